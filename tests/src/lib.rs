//! What the cluster tests and the benchmark share: clusters of real daemons on loopback addresses, the
//! initiators of others as commands, and a writer that remembers every acknowledgement and verifies it.
//!
//! Everything here looks at the product from outside: the command line, its JSON, the ports. It links no crate
//! of the product, so that a wrong shared assumption cannot hide on both sides.

pub mod cluster;
pub mod command;
pub mod disk_image;
pub mod hosts;
pub mod initiator;
pub mod libiscsi;
pub mod nbd;
pub mod pattern;
pub mod powered;
pub mod preload;
pub mod process;
pub mod qemu_io;
pub mod small_fs;
pub mod wait;
pub mod writer;

pub use cluster::{Cluster, Options};
pub use command::{output_of, run, succeed};
pub use wait::{until, wait_for};
pub use writer::{Report, Writer};
