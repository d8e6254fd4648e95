//! `holdfast volume check`: progress on a terminal, then the report.

use crate::failure::Failure;
use crate::global::Context;
use crate::output;
use futures::StreamExt;
use holdfast_api::model::{CheckFinding, CheckReport, CheckStep};
use holdfast_api::size::show;
use indicatif::ProgressBar;

/// Runs it.
pub fn run(context: &Context, name: &str) -> Result<(), Failure> {
    let client = context.client()?;
    let bar = output::progress(0, context.json());
    let report = context.wait(async {
        let mut steps = client.check_volume(name).await?;
        while let Some(step) = steps.next().await {
            match step? {
                CheckStep::Progress { segments_done, segments_total, bytes } => {
                    show_progress(&bar, segments_done, segments_total, bytes);
                }
                CheckStep::Waiting { nodes } => {
                    let nodes: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                    bar.set_message(format!("waiting for the copies on node {}", nodes.join(", ")));
                }
                CheckStep::Report(report) => return Ok(report),
                CheckStep::Failed(error) => return Err(error.into()),
            }
        }
        Err(Failure::NoReport)
    });
    bar.finish_and_clear();
    let report = report?;
    match context.json() {
        true => output::json(&report)?,
        false => output::line(&text(&report))?,
    }
    match report.findings.len() {
        0 => Ok(()),
        count => Err(Failure::Findings { volume: report.volume, count }),
    }
}

fn show_progress(bar: &ProgressBar, done: u32, total: u32, bytes: u64) {
    bar.set_message(format!("{done} of {total} segments"));
    // The bytes to come are not known; those of the segments done tell how it goes.
    bar.set_length(bytes.max(1) * u64::from(total.max(1)) / u64::from(done.max(1)));
    bar.set_position(bytes);
}

fn text(report: &CheckReport) -> String {
    let mut text = format!("Compared {} segments, {} of each copy.", report.segments, show(report.bytes));
    report.skipped.iter().for_each(|s| text.push_str(&format!("\n  not compared: {}", output::printable(s))));
    if report.findings.is_empty() {
        text.push_str("\nNo differences.");
        return text;
    }
    let row = |f: &CheckFinding| {
        let healed = if f.healed { "yes" } else { "no" };
        [
            f.segment.to_string(),
            f.offset.to_string(),
            show(f.len),
            f.node.to_string(),
            healed.into(),
            f.what.clone(),
        ]
    };
    let rows = report.findings.iter().map(row).collect();
    let head = ["SEGMENT", "OFFSET", "LENGTH", "NODE", "HEALED", "WHAT"];
    text.push_str(&format!("\n{}", output::table_text(head, rows)));
    text
}
