use super::*;

/// Each step is a sending (`w3`, `r`) or the answer to the n-th sending (`0`, or `1=3` for a read that read 3).
fn explained(steps: &[&str]) -> bool {
    let mut history = History::default();
    let mut tickets = Vec::new();
    for step in steps {
        if *step == "r" {
            tickets.push(history.sent(0, 0, Action::Read(None), false));
        } else if let Some(value) = step.strip_prefix('w') {
            tickets.push(history.sent(0, 0, Action::Write(value.parse().expect("a number")), false));
        } else {
            let (which, read) = step.split_once('=').unwrap_or((step, "0"));
            let which: usize = which.parse().expect("a number");
            history.answered(tickets[which], Some(read.parse().expect("a number")));
        }
    }
    history.check().is_ok()
}

#[test]
fn a_read_returns_what_was_written_last() {
    assert!(explained(&["w1", "0", "r", "1=1"]));
    assert!(explained(&["r", "0=0"]));
    assert!(!explained(&["w1", "0", "r", "1=0"]));
    assert!(!explained(&["w1", "0", "w2", "1", "r", "2=1"]));
    assert!(!explained(&["r", "0=7"]));
}

#[test]
fn a_write_under_way_may_be_seen_or_not() {
    assert!(explained(&["w1", "r", "1=0", "r", "2=1", "0"]));
    assert!(explained(&["w1", "r", "1=1", "0"]));
    assert!(!explained(&["w1", "r", "1=1", "r", "2=0", "0"]));
}

#[test]
fn an_unanswered_write_may_happen_late_but_never_comes_and_goes() {
    assert!(explained(&["w1", "r", "1=0", "w2", "2", "r", "3=2", "r", "4=1"]));
    assert!(!explained(&["w1", "w2", "1", "r", "2=1", "r", "3=2"]));
    assert!(!explained(&["w1", "w2", "1", "r", "2=1", "r", "3=0"]));
}

#[test]
fn two_zeroes_under_way_are_two_writes() {
    assert!(explained(&["w1", "0", "w0", "w0", "r", "3=0", "w2", "4", "r", "5=0"]));
    assert!(!explained(&["w1", "0", "w0", "r", "2=0", "w2", "3", "r", "4=0"]));
}
