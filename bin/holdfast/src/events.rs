//! `holdfast events`.

use crate::failure::Failure;
use crate::global::Context;
use crate::output;
use clap::Args;
use futures::StreamExt;
use holdfast_api::model::{Event, EventQuery};

/// Show what happened: who, what, when, why
#[derive(Args)]
#[command(after_help = "Examples:
  holdfast events
  holdfast events --last 100
  holdfast events --follow
  holdfast --json events --follow | jq -r 'select(.level == \"error\").what'")]
pub struct Events {
    /// Go on with what happens until interrupted
    #[arg(long, short)]
    follow: bool,
    /// At most so many, the newest
    #[arg(long, default_value_t = 30, value_name = "N")]
    last: usize,
    /// Only those with a greater number
    #[arg(long, value_name = "NUMBER")]
    since: Option<u64>,
}

impl Events {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let query = EventQuery { since: self.since, last: Some(self.last) };
        if !self.follow {
            let events = context.ask(|c| async move { c.events(query).await })?;
            if context.json() {
                return output::json(&events);
            }
            return events.iter().try_for_each(|e| output::line(&text(e)));
        }
        let client = context.client()?;
        context.wait(async {
            let mut stream = client.follow_events(query).await?;
            while let Some(event) = stream.next().await {
                let event = event?;
                match context.json() {
                    true => output::json_line(&event)?,
                    false => output::line(&text(&event))?,
                }
            }
            Ok(())
        })
    }
}

fn text(e: &Event) -> String {
    let why = if e.why.is_empty() { String::new() } else { format!(" ({})", e.why) };
    let line = format!(
        "{:>6}  {}  node {}  {:7}  {}: {}{why}",
        e.seq,
        output::time(e.time_ms),
        e.node,
        output::word(&e.level),
        e.who,
        e.what
    );
    output::printable(&line)
}
