//! The report for people who read Chinese.
//!
//! Promise: every text of the knowledge in it speaks Chinese afterwards; how hosts, years, clocks and files were read stays English.

use crate::model::Report;
use crate::words::{Said, chinese};

/// Puts Chinese in the place of English.
pub fn speak(report: &mut Report) {
    let speak = |said: &mut Said| said.speak();
    for cause in &mut report.causes {
        cause.confidence = chinese(cause.confidence);
        cause.chain.iter_mut().flat_map(|e| [&mut e.mechanism, &mut e.alternative]).for_each(speak);
        cause.single_points_of_failure.iter_mut().for_each(speak);
        cause.prevented_by.speak();
    }
    report.facts.iter_mut().map(|f| &mut f.refuted_by).for_each(speak);
    report.contradictions.iter_mut().map(|c| &mut c.text).for_each(speak);
    let missing = report.missing_evidence.iter_mut();
    missing.flat_map(|m| [&mut m.file, &mut m.decides, &mut m.how]).for_each(speak);
    let todo = report.recommendations.iter_mut();
    todo.flat_map(|r| [&mut r.urgency, &mut r.owner, &mut r.text]).for_each(speak);
}
