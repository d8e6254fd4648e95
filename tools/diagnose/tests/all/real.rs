//! Logs that strangers published: the score over them is pinned, so that a change of rules shows what it changes.
//!
//! A better score is a change of `real/score.txt` like any other: it is read, and never made by a rule for one log.

use std::path::Path;

use holdfast_diagnose::score::{Outcome, render_real, score_real};

#[test]
fn the_scores_over_published_logs_are_those_that_were_recorded() {
    for (name, least) in [("real", 56), ("real-after", 16)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
        let scores = score_real(&folder).expect("the logs are readable");
        assert!(scores.len() >= least);
        let recorded = std::fs::read_to_string(folder.join("score.txt")).expect("a recorded score");
        assert_eq!(render_real(&scores), recorded, "{name}");
    }
}

#[test]
fn nothing_is_named_where_the_lines_carry_nothing() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
    let scores = score_real(&folder).expect("the logs are readable");
    for name in ["fence-race", "gfs2-all-paths"] {
        let silent = scores.iter().find(|s| s.name == name).expect("a log that shows what failed, not why");
        assert_eq!((silent.outcome, silent.named.as_deref()), (Outcome::Nothing, None), "{name}");
    }
}

#[test]
fn no_log_is_lost_of_those_that_were_scored_before_a_rule_was_changed_for_them() {
    // What an unseen log got; a log that was tuned for afterwards stands in `real`.
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let indexes = ["real", "real-after"]
        .map(|name| std::fs::read_to_string(tests.join(name).join("index.toml")).expect("an index"));
    for (file, count) in [
        ("first-score.txt", 11),
        ("first-score-2.txt", 14),
        ("first-score-3.txt", 5),
        ("first-score-4.txt", 15),
        ("first-score-5.txt", 7),
    ] {
        let first = std::fs::read_to_string(tests.join("real-after").join(file)).expect("the first score");
        let names: Vec<&str> = first.lines().filter_map(|l| l.split_whitespace().next()).collect();
        let [_head, logs @ .., _sum] = names.as_slice() else { panic!("no table in {first}") };
        assert_eq!(logs.len(), count, "{file}");
        for log in logs {
            let entry = format!("name = \"{log}\"");
            assert!(indexes.iter().any(|i| i.contains(&entry)), "{log}");
        }
    }
}
