//! The rules of replication, one test for each thing that goes wrong without one: the real owner against scripted
//! copies, and the real copy against a scripted owner. Each test carries the number under which replication.md §3
//! tells how the rule's absence loses or invents a write.
//!
//! Rules that live elsewhere are tested there: H4, H5, H19, H20 and H22 also in the map of the cluster
//! (`core/cluster`), H13 also with real daemons (`tests/tests/ghost.rs`), H14, H15 and H16 in the store
//! (`core/store/tests`), H18 in the gateway's splitting and in the SCSI target.

mod activation;
mod behind;
mod check;
mod copies;
mod full_disk;
mod reads;
mod resync;
mod script;
mod writes;
