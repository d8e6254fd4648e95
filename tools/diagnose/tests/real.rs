//! Logs that strangers published: the score over them is pinned, so that a change of rules shows what it changes.
//!
//! A better score is a change of `real/score.txt` like any other: it is read, and never made by a rule for one log.

use std::path::Path;

use holdfast_diagnose::score::{Outcome, render_real, score_real};

#[test]
fn the_score_over_published_logs_is_the_one_that_was_recorded() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    let scores = score_real(&folder).expect("the logs are readable");
    assert!(scores.len() >= 15);
    let recorded = std::fs::read_to_string(folder.join("score.txt")).expect("a recorded score");
    assert_eq!(render_real(&scores), recorded);
}

#[test]
fn nothing_is_named_where_the_lines_carry_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    let scores = score_real(&folder).expect("the logs are readable");
    let silent = scores.iter().find(|s| s.name == "sysrq-crash").expect("a log whose cause it does not show");
    assert_eq!((silent.outcome, silent.named.as_deref()), (Outcome::Right, None));
}
