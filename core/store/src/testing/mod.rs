//! A simulated disk, for tests here and elsewhere.

mod sim_disk;

pub use sim_disk::{Cut, Faults, Rng, SimDisk};
