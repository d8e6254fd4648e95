//! How good the analysis is: precision and recall of facts and of the first cause over generated cases.
//!
//! Promise: the figures are counted, per story, from bundles that the analysis sees only as files.

mod real;

use std::fmt::Write as _;
use std::path::Path;

use holdfast_evidence::read::Progress;

use crate::rules::Role;
use crate::synth::{STORIES, SynthError, write};
use crate::{AnalyseError, Options, analyse};

pub use real::{Outcome, RealError, RealLog, RealScore, render_real, score_real};

/// Counts of one story.
#[derive(Debug, Clone, Default)]
pub struct Score {
    /// Story.
    pub story: String,
    /// Cases.
    pub cases: u32,
    /// Cases whose first cause is right (or rightly absent).
    pub cause_right: u32,
    /// Cases where a wrong cause was named, or one where there is none.
    pub cause_wrong: u32,
    /// Whether the story has no cause to name.
    pub causeless: bool,
    /// True facts found.
    pub found: u64,
    /// True facts.
    pub truth: u64,
    /// Facts reported that are not true.
    pub invented: u64,
    /// The wrong first causes and the missed and invented facts, for whoever improves the rules.
    pub remarks: Vec<String>,
}

/// A case could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// Making it.
    #[error(transparent)]
    Synth(#[from] SynthError),
    /// Reading it.
    #[error(transparent)]
    Analyse(#[from] AnalyseError),
    /// The folder for the cases.
    #[error("cannot use the folder for the cases: {0}")]
    Folder(#[from] std::io::Error),
}

/// Scores every story over `per_story` seeds below `folder`, which is left empty.
pub fn score(per_story: u32, first_seed: u64, folder: &Path) -> Result<Vec<Score>, ScoreError> {
    let mut out = Vec::new();
    for story in &STORIES {
        let mut score = Score { story: story.name.to_owned(), ..Score::default() };
        for seed in first_seed..first_seed + u64::from(per_story) {
            let case = folder.join(format!("{}-{seed}", story.name));
            std::fs::create_dir_all(&case)?;
            let truth = write(story, seed, &case)?;
            let report = analyse(std::slice::from_ref(&case), &Options::default(), &Progress::default())?;
            std::fs::remove_dir_all(&case)?;
            score.cases += 1;
            score.causeless = truth.cause.is_none();
            let named = report.causes.first().map(|c| c.id.clone());
            if named == truth.cause {
                score.cause_right += 1;
            } else {
                score.cause_wrong += u32::from(named.is_some());
                score.remarks.push(format!("seed {seed}: named {named:?}"));
            }
            let reported: std::collections::BTreeSet<(String, String)> =
                report.facts.iter().map(|f| (f.rule.clone(), f.host.clone())).collect();
            score.truth += truth.facts.len() as u64;
            for fact in &truth.facts {
                if reported.contains(fact) {
                    score.found += 1;
                } else {
                    score.remarks.push(format!("seed {seed}: missed {} on {}", fact.0, fact.1));
                }
            }
            for f in &report.facts {
                let counts = !matches!(f.role, Role::Context | Role::State);
                if counts && !truth.facts.contains(&(f.rule.clone(), f.host.clone())) {
                    score.invented += 1;
                    score.remarks.push(format!("seed {seed}: invented {} on {}", f.rule, f.host));
                }
            }
        }
        out.push(score);
    }
    Ok(out)
}

/// First causes that must be right, of all generated cases.
const TARGET: f64 = 0.95;

/// What of the target the scores miss: a right first cause in 95 % of the cases, and none where the evidence carries none.
pub fn below_target(scores: &[Score]) -> Option<String> {
    let cases: u32 = scores.iter().map(|s| s.cases).sum();
    let right: u32 = scores.iter().map(|s| s.cause_right).sum();
    if f64::from(right) < TARGET * f64::from(cases) {
        return Some(format!("the first cause is right in {right} of {cases} cases"));
    }
    let invented = scores.iter().find(|s| s.causeless && s.cause_wrong > 0)?;
    Some(format!("{}: a cause is named in {} cases that carry none", invented.story, invented.cause_wrong))
}

/// The table.
pub fn render(scores: &[Score], remarks: usize) -> String {
    let mut out = String::from("story              cases  cause right  wrong  fact recall  fact precision\n");
    let ratio = |a: u64, b: u64| if b == 0 { 1.0 } else { a as f64 / b as f64 };
    let mut sum = Score { story: "all".to_owned(), ..Score::default() };
    let mut line = |s: &Score| {
        let _ = writeln!(
            out,
            "{:<18} {:>5}  {:>11.3}  {:>5}  {:>11.3}  {:>14.3}",
            s.story,
            s.cases,
            ratio(u64::from(s.cause_right), u64::from(s.cases)),
            s.cause_wrong,
            ratio(s.found, s.truth),
            ratio(s.found, s.found + s.invented)
        );
    };
    for s in scores {
        line(s);
        sum.cases += s.cases;
        sum.cause_right += s.cause_right;
        sum.cause_wrong += s.cause_wrong;
        sum.found += s.found;
        sum.truth += s.truth;
        sum.invented += s.invented;
    }
    line(&sum);
    for s in scores {
        for remark in s.remarks.iter().take(remarks) {
            let _ = writeln!(out, "  {}: {remark}", s.story);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_below_the_target_or_a_cause_out_of_nothing_is_said() {
        let of = |cases, cause_right, cause_wrong, causeless| Score {
            story: "s".to_owned(),
            cases,
            cause_right,
            cause_wrong,
            causeless,
            ..Score::default()
        };
        assert_eq!(below_target(&[of(20, 19, 1, false), of(1, 1, 0, true)]), None);
        assert!(below_target(&[of(20, 18, 0, false)]).is_some_and(|m| m.contains("18 of 20")));
        assert!(
            below_target(&[of(90, 90, 0, false), of(10, 9, 1, true)]).is_some_and(|m| m.contains("1 cases"))
        );
    }
}
