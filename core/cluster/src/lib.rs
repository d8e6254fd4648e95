//! The cluster map, the one pure function that changes it, the failure detector, and the choice of paths.
//!
//! Promise: [`apply`] gives the same map and the same answer on every node for the same command, and breaks
//! none of the invariants of replication.md that control answers for (granted epochs only rise, two
//! configurations per segment, nothing deleted without a tombstone). It does not: agree on the order of
//! commands (shell/consensus), look at a clock, or reach a node. Where copies go is planned by
//! holdfast-placement, which knows neither the map nor a command.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

mod apply;
mod candidates;
mod command;
mod detector;
mod error;
mod limits;
mod loss;
mod map;
mod mix;
mod packets;
mod paths;
mod patience;
mod plan;
mod recover;
mod replace;
mod scrub;

pub use apply::apply;
pub use command::{
    Command, CommandOf, CommandResult, FenceTarget, NewNode, NoBatch, ResultOf, Single, SingleResult,
};
pub use detector::{Detector, DetectorConfig, Liveness, Verdict};
pub use error::{CommandError, NameFault};
pub use limits::*;
pub use loss::{Loss, losses, losses_without};
pub use map::*;
pub use paths::{PathChange, PathConfig, PathFault, PathNews, Paths};
pub use patience::{CopyOf, GivenUp, Patience};
pub use plan::{ControlPlan, Waiting, plan_grants};
pub use recover::recover;
pub use replace::{Reason, Replacement, ReplacementPlan, Unplaced, plan_replacements};
pub use scrub::due_for_scrub;
