//! Pure planners: where the copies of new segments go, where a lost copy goes, and what to grant when an owner is gone.
//!
//! Promise: the same facts give the same plan, on every node and in every order of asking; a plan never puts
//! two copies on one node. They do not know the cluster map (holdfast-cluster hands them what they need of
//! it), and they change nothing: control decides whether a plan is carried out.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;

mod place;
mod replace;
mod takeover;

pub use place::{Candidate, PlaceError, Placement, place_segments};
pub use replace::replacement;
pub use takeover::{Copy, NextGrant, Standing, next_grant};
