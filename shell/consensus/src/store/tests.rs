//! The database: openraft's own test suite for stores, and what damage is answered with.

use super::*;
use crate::machine::Machine;
use crate::raft_types::{StorageError, TypeConfig, Vote};
use openraft::testing::{StoreBuilder, Suite};
use std::path::Path;
use tempfile::TempDir;

const FILES: [&str; 2] = ["control.redb", "control.copy.redb"];

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (writer, loaded, _) = Writer::open(dir.path(), NodeId(1)).expect("a new database opens");
        let (machine, _) = Machine::new(writer.clone(), None).expect("an empty machine");
        Ok((dir, LogStore::new(writer, loaded), machine))
    }
}

#[test]
fn the_store_passes_the_librarys_own_suite() {
    Suite::test_all(Builder).expect("every test of the suite passes");
}

fn writer(dir: &TempDir, node: u16) -> Result<(Writer, Loaded, Option<Damage>), StoreError> {
    // The thread of an earlier writer closes the database when its last handle is gone.
    for _ in 0..500 {
        match Writer::open(dir.path(), NodeId(node)) {
            Err(StoreError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other,
        }
    }
    panic!("the database stays in use");
}

/// The vote that is there, and what was mended.
fn open(dir: &TempDir, node: u16) -> Result<(Option<Vote>, Option<Damage>), StoreError> {
    writer(dir, node).map(|(_, loaded, mended)| (loaded.vote, mended))
}

fn put(dir: &TempDir, key: &str, value: &[u8]) {
    FILES.iter().for_each(|file| put_in(dir, file, key, value));
}

fn put_in(dir: &TempDir, file: &str, key: &str, value: &[u8]) {
    let database = loop {
        match redb::Database::open(dir.path().join(file)) {
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
    let (_held, ..) = Writer::open(dir.path(), NodeId(1)).expect("a new database opens");
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
}

/// A database in which the node voted once.
fn voted() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    vote(&dir, 3);
    dir
}

fn vote(dir: &TempDir, term: u64) {
    let (writer, ..) = writer(dir, 1).expect("the database opens");
    let vote = crate::codec::encode(&Vote::new(term, 1)).expect("it can be written");
    futures::executor::block_on(writer.put_vote(vote)).expect("it is written");
    drop(writer);
    // Its thread closes the files, the first one last.
    std::fs::File::open(dir.path().join(FILES[0])).and_then(|f| f.lock()).expect("it can be waited for");
}

fn cut(path: &Path) {
    let length = std::fs::metadata(path).expect("it is there").len();
    std::fs::OpenOptions::new().write(true).open(path).and_then(|f| f.set_len(length / 3)).expect("cut");
}

#[test]
fn one_file_that_is_damaged_or_gone_is_mended_from_the_other_one() {
    type Damaging = fn(&Path);
    let damages: [(&str, Damaging); 5] = [
        ("cut", cut),
        ("zeros", |path| {
            let length = std::fs::metadata(path).expect("it is there").len();
            std::fs::write(path, vec![0; length as usize]).expect("wiped");
        }),
        ("garbage", |path| std::fs::write(path, [0xa5; 8192]).expect("written")),
        ("empty", |path| std::fs::write(path, "").expect("written")),
        ("gone", |path| std::fs::remove_file(path).expect("removed")),
    ];
    for (what, damage) in damages {
        for file in FILES {
            let dir = voted();
            damage(&dir.path().join(file));
            let (vote, mended) = open(&dir, 1).unwrap_or_else(|e| panic!("{file}, {what}: {e}"));
            assert_eq!(vote, Some(Vote::new(3, 1)), "{file}, {what}");
            match mended {
                Some(Damage { kept, .. }) => {
                    assert_eq!(kept, dir.path().join(format!("{file}.damaged-1")), "{what}");
                    assert!(kept.exists(), "what was damaged is evidence");
                }
                None => assert!(["empty", "gone"].contains(&what), "{file}, {what}"),
            }
            // Both are good again: each can do without the other.
            let other = FILES.iter().find(|f| **f != file).expect("two files");
            std::fs::remove_file(dir.path().join(other)).expect("removed");
            assert_eq!(open(&dir, 1).expect("it opens"), (Some(Vote::new(3, 1)), None), "{file}, {what}");
        }
    }
}

#[test]
fn of_two_good_files_the_newer_one_counts() {
    for file in FILES {
        let dir = voted();
        let (path, older) = (dir.path().join(file), dir.path().join("older"));
        std::fs::copy(&path, &older).expect("a copy");
        vote(&dir, 4);
        std::fs::copy(&older, &path).expect("put back");
        assert_eq!(open(&dir, 1).expect("it opens"), (Some(Vote::new(4, 1)), None), "{file}");
    }
}

#[test]
fn two_damaged_files_are_damage() {
    let dir = voted();
    FILES.iter().for_each(|file| cut(&dir.path().join(file)));
    let error = open(&dir, 1).expect_err("cut");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    put_both_aside(dir.path()).expect("they can be renamed");
    assert_eq!(open(&dir, 1).expect("a new one"), (None, None));
}
