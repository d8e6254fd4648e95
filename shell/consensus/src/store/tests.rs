//! The database: openraft's own test suite for stores, and what damage is answered with.

use super::*;
use crate::machine::Machine;
use crate::raft_types::{StorageError, TypeConfig};
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (writer, loaded) = Writer::open(dir.path(), NodeId(1)).expect("a new database opens");
        let (machine, _) = Machine::new(writer.clone(), None).expect("an empty machine");
        Ok((dir, LogStore::new(writer, loaded), machine))
    }
}

#[test]
fn the_store_passes_the_librarys_own_suite() {
    Suite::test_all(Builder).expect("every test of the suite passes");
}

fn open(dir: &TempDir, node: u16) -> Result<(), StoreError> {
    // The thread of an earlier writer closes the database when its last handle is gone.
    for _ in 0..500 {
        match Writer::open(dir.path(), NodeId(node)) {
            Err(StoreError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other.map(|_| ()),
        }
    }
    panic!("the database stays in use");
}

fn put(dir: &TempDir, key: &str, value: &[u8]) {
    let database = loop {
        match redb::Database::open(dir.path().join("control.redb")) {
            Ok(database) => break database,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    };
    let table: redb::TableDefinition<&str, &[u8]> = redb::TableDefinition::new("meta");
    let transaction = database.begin_write().expect("it can be written");
    transaction.open_table(table).expect("the table").insert(key, value).expect("inserted");
    transaction.commit().expect("committed");
}

#[test]
fn a_database_of_another_node_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    open(&dir, 1).expect("a new database opens");
    open(&dir, 1).expect("it opens again");
    let error = open(&dir, 2).expect_err("another node");
    let (found, expected) = (NodeId(1), NodeId(2));
    assert!(
        matches!(&error, StoreError::OtherNode { found: f, expected: e, .. } if *f == found && *e == expected),
        "{error}"
    );
}

#[test]
fn a_database_in_use_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_held, _) = Writer::open(dir.path(), NodeId(1)).expect("a new database opens");
    let error = Writer::open(dir.path(), NodeId(1)).err().expect("it is in use");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
}

#[test]
fn a_later_layout_and_a_later_value_are_refused_with_their_version() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    open(&dir, 1).expect("a new database opens");
    put(&dir, "vote", &[77, 0, 0, 0, 0, 1]);
    let error = open(&dir, 1).expect_err("a later value");
    assert!(matches!(error, StoreError::UnknownVersion { found: 77, .. }), "{error}");
    put(&dir, "identity", &[9, 0, 0, 0, 1, 0]);
    let error = open(&dir, 1).expect_err("a later layout");
    assert!(matches!(error, StoreError::UnknownVersion { found: 9, .. }), "{error}");
}

#[test]
fn a_flipped_bit_in_a_value_is_damage() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    open(&dir, 1).expect("a new database opens");
    let mut vote = crate::codec::encode(&openraft::Vote::<u64>::new(3, 1)).expect("it can be written");
    put(&dir, "vote", &vote);
    open(&dir, 1).expect("a good value opens");
    *vote.last_mut().expect("not empty") ^= 4;
    put(&dir, "vote", &vote);
    let error = open(&dir, 1).expect_err("a flipped bit");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn a_file_that_is_garbage_or_cut_is_damage_and_no_panic() {
    for (what, bytes) in [("garbage", vec![0xa5; 8192]), ("short", b"redb".to_vec())] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("control.redb"), bytes).expect("written");
        let error = open(&dir, 1).expect_err(what);
        assert!(matches!(error, StoreError::Corrupt { .. }), "{what}: {error:?}");
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    open(&dir, 1).expect("a new database opens");
    let path = dir.path().join("control.redb");
    let length = std::fs::metadata(&path).expect("it is there").len();
    std::fs::OpenOptions::new().write(true).open(&path).and_then(|f| f.set_len(length / 3)).expect("cut");
    let error = open(&dir, 1).expect_err("cut");
    assert!(matches!(error, StoreError::Corrupt { .. } | StoreError::Io { .. }), "{error:?}");
}
