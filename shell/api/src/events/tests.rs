//! Tests of the event log.

use super::*;
use std::fs;

fn event(what: &str) -> NewEvent {
    NewEvent { who: "operator".into(), kind: "test", what: what.into(), ..NewEvent::default() }
}

fn whats(log: &EventLog, query: EventQuery) -> Vec<String> {
    log.tail(query).unwrap().into_iter().map(|e| e.what).collect()
}

fn only_file(folder: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

#[test]
fn events_and_their_numbers_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let log = EventLog::open(folder.path(), 3).unwrap();
    assert_eq!(log.append(event("one")), 1);
    assert_eq!(log.append(event("two")), 2);
    drop(log);
    let log = EventLog::open(folder.path(), 3).unwrap();
    assert_eq!(log.append(event("three")), 3);
    assert_eq!(whats(&log, EventQuery::default()), ["one", "two", "three"]);
    assert_eq!(whats(&log, EventQuery { since: Some(2), last: None }), ["three"]);
    assert_eq!(whats(&log, EventQuery { since: None, last: Some(1) }), ["three"]);
}

#[test]
fn a_torn_last_line_is_cut_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = EventLog::open(folder.path(), 1).unwrap();
    log.append(event("one"));
    log.append(event("two"));
    drop(log);
    let path = only_file(folder.path());
    let content = fs::read(&path).unwrap();
    fs::write(&path, &content[..content.len() - 5]).unwrap();
    let log = EventLog::open(folder.path(), 1).unwrap();
    assert_eq!(log.damaged_lines(), 0);
    log.append(event("three"));
    drop(log);
    let log = EventLog::open(folder.path(), 1).unwrap();
    assert_eq!(whats(&log, EventQuery::default()), ["one", "three"]);
    assert_eq!(log.damaged_lines(), 0);
}

#[test]
fn a_line_with_a_flipped_bit_is_counted_and_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let log = EventLog::open(folder.path(), 1).unwrap();
    for what in ["one", "two", "three"] {
        log.append(event(what));
    }
    drop(log);
    let path = only_file(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"two\"", "\"twp\"")).unwrap();
    let log = EventLog::open(folder.path(), 1).unwrap();
    assert_eq!(whats(&log, EventQuery::default()), ["one", "three"]);
    assert_eq!(log.damaged_lines(), 1);
}

#[test]
fn the_log_is_bounded_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = EventLog::open(folder.path(), 1).unwrap();
    let long = "x".repeat(3 * MAX_TEXT);
    let per_file = MAX_FILE_BYTES / MAX_TEXT as u64;
    let total = per_file * (KEPT_FILES as u64 + 3);
    for n in 0..total {
        log.append(event(&long));
        assert!(n % 1000 > 0 || log.flush());
    }
    assert!(log.flush());
    let size: u64 = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(fs::read_dir(folder.path()).unwrap().count() <= KEPT_FILES);
    assert!(size <= KEPT_FILES as u64 * (MAX_FILE_BYTES + 2 * MAX_TEXT as u64), "{size} bytes");
    drop(log);
    let log = EventLog::open(folder.path(), 1).unwrap();
    assert_eq!(log.append(event("next")), total + 1);
    let all = log.tail(EventQuery { since: Some(0), last: None }).unwrap();
    assert!(all.len() > RECENT, "older events are read from the files");
    assert!(all.windows(2).all(|w| w[0].seq + 1 == w[1].seq));
}

#[tokio::test]
async fn a_follower_sees_old_and_new_events_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let log = EventLog::open(folder.path(), 1).unwrap();
    log.append(event("old"));
    let mut stream = log.follow(EventQuery::default()).unwrap();
    assert_eq!(stream.next().await.unwrap().what, "old");
    let writer = log.clone();
    tokio::spawn(async move {
        for i in 0..3000 {
            writer.append(event(&i.to_string()));
        }
    });
    for i in 0..3000 {
        assert_eq!(stream.next().await.unwrap().what, i.to_string());
    }
}
