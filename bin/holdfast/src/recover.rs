//! `holdfast recover`.

use crate::failure::Failure;
use crate::global::Context;
use crate::output;
use clap::Args;
use holdfast_api::model::{FollowReport, RecoverReport, VolumeLoss};
use holdfast_node::recover::{Choice, Loss, NotOne, Position, Stopped, Ticket};

/// Bring the control plane back after a majority of its nodes is lost for good
#[derive(Args)]
#[command(after_help = "Examples:
  holdfast recover
  holdfast recover --lost beta --dry-run
  holdfast recover --lost 3,4,5 --survivor 2=7.1234
  holdfast recover --survivor 2=0.0
  holdfast recover --follow 1-7.1234-00000001a5c3e2f0

Only with the daemon of this node stopped. Without options it says what this node knows and changes nothing. Run that on
every node that is left, then the second form on the one whose position is the greatest, and there only. Be sure that the
nodes called lost do not run: two control planes of one cluster would both serve it.

A node whose own record of the control plane is gone is let in again by a majority of the others. Of two nodes the other
one is none: it goes on with the fourth form, and the one at 0.0 follows.")]
pub struct Recover {
    /// Nodes that are lost for good, by name or number
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    lost: Vec<String>,
    /// Another node that is left, and the position that `holdfast recover` says there. Repeat it for more
    #[arg(long, value_name = "NODE=POSITION", value_parser = survivor)]
    survivor: Vec<(String, Position)>,
    /// Go on although acknowledged writes may be on the lost nodes only
    #[arg(long, requires = "lost")]
    accept_loss: bool,
    /// Say what would be lost, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Let this node follow the one that was recovered, with the ticket that was printed there
    #[arg(long, value_name = "TICKET", conflicts_with_all = ["lost", "survivor"])]
    follow: Option<Ticket>,
    /// With --follow: give up what this node knows and the one that was recovered did not
    #[arg(long, requires = "follow")]
    discard: bool,
}

fn survivor(text: &str) -> Result<(String, Position), String> {
    let (node, position) = text.split_once('=').ok_or("write NODE=POSITION, like 2=7.1234")?;
    Ok((node.to_owned(), position.parse().map_err(|e: NotOne| e.to_string())?))
}

impl Recover {
    /// Runs it.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let stopped = Stopped::open(context.dir().path())?;
        let dir = context.dir().path().display().to_string();
        if let Some(ticket) = &self.follow {
            return follow(context, stopped, ticket, self.discard);
        }
        let choice = Choice { lost: self.lost, survivors: self.survivor, accept_loss: self.accept_loss };
        let mut report = report(&stopped);
        if choice.lost.is_empty() && choice.survivors.is_empty() {
            let text = format!("{}\n\n{}", table(&stopped), what_next(&stopped, &dir));
            return print(context, &report, &text);
        }
        let (lost, losses) = stopped.weigh(&choice)?;
        report.lost = lost.iter().map(|n| n.0).collect();
        report.losses = losses.iter().map(loss).collect();
        if self.dry_run {
            return print(context, &report, &format!("{}\nNothing was changed.", loss_table(&losses)));
        }
        let done = stopped.recover(&choice)?;
        report.ticket = Some(done.ticket.to_string());
        report.kept = Some(done.kept.display().to_string());
        let mut text = format!(
            "Node {} is the whole control plane of cluster {} now{}.\n\nStart its daemon:\n  \
             holdfast node run --dir {dir}\n\nThen, on each other node that is left, and on a lost one that is found \
             after all, with its daemon stopped:\n  holdfast recover --follow {}\n\n",
            report.node,
            report.name,
            without(&report.lost),
            done.ticket
        );
        text += &format!("Control's database as it was: {}", done.kept.display());
        print(context, &report, &text)
    }
}

fn follow(context: &Context, stopped: Stopped, ticket: &Ticket, discard: bool) -> Result<(), Failure> {
    let node = stopped.node().0;
    let kept = stopped.follow(ticket, discard)?.display().to_string();
    let report = FollowReport { node, follows: ticket.node.0, kept };
    if context.json() {
        return output::json(&report);
    }
    output::line(&format!(
        "Node {node} follows node {} once both daemons run.\n\nStart its daemon:\n  holdfast node run --dir {}\n\n\
         Control's database as it was: {}",
        report.follows,
        context.dir().path().display(),
        report.kept
    ))
}

fn print(context: &Context, report: &RecoverReport, text: &str) -> Result<(), Failure> {
    match context.json() {
        true => output::json(report),
        false => output::line(text),
    }
}

fn report(stopped: &Stopped) -> RecoverReport {
    let map = stopped.map();
    RecoverReport {
        cluster: map.cluster.to_string(),
        name: map.name.clone(),
        node: stopped.node().0,
        position: stopped.position().map(|p| p.to_string()),
        voters: stopped.voters().iter().map(|n| n.0).collect(),
        ..RecoverReport::default()
    }
}

fn table(stopped: &Stopped) -> String {
    let map = stopped.map();
    let voters = stopped.voters();
    let rows = map.nodes.values().map(|node| {
        let votes = if voters.contains(&node.id) { "yes" } else { "no" };
        let here = if node.id == stopped.node() { "this node" } else { "" };
        [node.id.to_string(), node.name.clone(), node.address.clone(), votes.into(), here.into()]
    });
    let rows = rows.collect();
    output::table_text(["NODE", "NAME", "ADDRESS", "VOTES", ""], rows)
}

fn what_next(stopped: &Stopped, dir: &str) -> String {
    let Some(position) = stopped.position() else {
        return format!(
            "This node has nothing to recover from: it was never let into the control plane, or its record of it is \
             gone. If it was a member, it is left at {}.",
            Position::NONE
        );
    };
    let others: Vec<String> = stopped.others().map(|n| n.to_string()).collect();
    let mut text = format!("The log of node {} ends at {position}.", stopped.node());
    if others.is_empty() {
        return text + " It needs nobody else: start its daemon.";
    }
    text += &format!(
        "\n\nNothing was changed. Is a majority of the voters lost for good, and goes no log further of those that are \
         left:\n  holdfast recover --dir {dir} --lost {}\nwith each that is left as --survivor NODE=POSITION instead; \
         --dry-run says what would be lost.",
        others.join(",")
    );
    text
}

fn loss(loss: &Loss) -> VolumeLoss {
    VolumeLoss {
        volume: loss.volume.clone(),
        segments: loss.segments as u64,
        in_doubt: loss.in_doubt as u64,
        gone: loss.gone as u64,
    }
}

fn loss_table(losses: &[Loss]) -> String {
    if losses.is_empty() {
        return "No acknowledged write is lost, as far as this node's log knows.".into();
    }
    let row =
        |l: &Loss| [l.volume.clone(), l.segments.to_string(), l.in_doubt.to_string(), l.gone.to_string()];
    let rows = losses.iter().map(row).collect();
    let table = output::table_text(["VOLUME", "SEGMENTS", "IN DOUBT", "GONE"], rows);
    format!(
        "{table}\n\nIn doubt: acknowledged writes may be on the lost nodes only. Gone: no copy is left that was in sync."
    )
}

fn without(lost: &[u16]) -> String {
    let numbers: Vec<String> = lost.iter().map(ToString::to_string).collect();
    match numbers.as_slice() {
        [] => String::new(),
        [one] => format!(", without node {one}"),
        _ => format!(", without nodes {}", numbers.join(", ")),
    }
}
