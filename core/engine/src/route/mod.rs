//! The engine's routes: a file for each kind of neighbour.

mod changed;
pub mod copies;
pub mod disks;
pub mod early;
pub mod follow;
pub mod map;
pub mod messages;
pub mod sessions;
mod slow;
