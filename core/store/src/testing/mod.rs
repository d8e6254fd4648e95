//! A simulated disk, and a store on it, for tests here and elsewhere.

mod rig;
mod sim_disk;

pub use rig::{RIG_DISK, Rig, identity};
pub use sim_disk::{Cut, Faults, Rng, SimDisk};
