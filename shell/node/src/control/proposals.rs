//! What owners on this node propose to control, and what copies on it have freed. A stop hands every segment over at once, a takeover
//! activates every segment at once, and a volume is deleted with all of its segments: what is there when a proposal is made
//! goes along in it, so that hundreds of segments cost a few rounds of consensus and not hundreds.

use super::Shared;
use futures::future::BoxFuture;
use holdfast_cluster::{Command, CommandError, CommandResult, Single, SingleResult};
use holdfast_consensus::ProposeError;
use holdfast_engine::Input;
use holdfast_types::{DiskId, SegmentCommand, SegmentCommandResult, SegmentKey};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The most commands of one proposal. Far below what one may be long.
const TOGETHER_MOST: usize = 256;

/// An owner's proposal, and the number that its answer carries.
pub type Proposal = (u64, SegmentCommand);

/// Proposes what comes. Several proposals may be under way: each command is a compare-and-set.
pub async fn run(
    shared: Arc<Shared>,
    mut proposals: mpsc::UnboundedReceiver<Proposal>,
) -> anyhow::Result<()> {
    let mut together = Vec::new();
    while proposals.recv_many(&mut together, TOGETHER_MOST).await > 0 {
        let (batch, shared) = (std::mem::take(&mut together), shared.clone());
        tokio::spawn(async move {
            let control = shared.control.clone();
            let propose = move |command| -> BoxFuture<'static, Result<CommandResult, ProposeError>> {
                let control = control.clone();
                Box::pin(async move { control.propose(command).await })
            };
            for (number, result) in propose_together(batch, propose).await {
                shared.data.input(Input::Proposed { number, result });
            }
        });
    }
    Ok(())
}

/// Tells control of copies that are gone from this node's disks.
pub async fn run_freed(
    shared: Arc<Shared>,
    mut freed: mpsc::UnboundedReceiver<(SegmentKey, DiskId)>,
) -> anyhow::Result<()> {
    let mut together = Vec::new();
    while freed.recv_many(&mut together, TOGETHER_MOST).await > 0 {
        let commands = together.drain(..).map(|(segment, disk)| Single::SegmentFreed { segment, disk });
        // What is not known to control is freed again when the disk is next opened.
        if let Err(error) = shared.propose_until_done(Command::Batch(commands.collect())).await {
            tracing::warn!(%error, "control does not know of copies that were freed");
        }
    }
    Ok(())
}

async fn propose_together(
    batch: Vec<Proposal>,
    propose: impl Fn(Command) -> BoxFuture<'static, Result<CommandResult, ProposeError>>,
) -> Vec<(u64, SegmentCommandResult)> {
    let (numbers, commands): (Vec<u64>, Vec<Single>) =
        batch.into_iter().map(|(number, command)| (number, Single::Segment(command))).unzip();
    let results = match propose(Command::Batch(commands)).await {
        Ok(CommandResult::Batch(results)) if results.len() == numbers.len() => {
            results.into_iter().map(of_one).collect()
        }
        Ok(_) | Err(ProposeError::Rejected(_) | ProposeError::TooLong { .. }) => {
            vec![SegmentCommandResult::Refused; numbers.len()]
        }
        Err(ProposeError::Unavailable | ProposeError::Unknown) => {
            vec![SegmentCommandResult::Unknown; numbers.len()]
        }
    };
    numbers.into_iter().zip(results).collect()
}

fn of_one(result: Result<SingleResult, CommandError>) -> SegmentCommandResult {
    match result {
        Ok(SingleResult::Segment(result)) => result,
        Ok(_) | Err(_) => SegmentCommandResult::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_types::{Epoch, LogPosition};

    fn batch() -> Vec<Proposal> {
        let (segment, tail) = (SegmentKey::default(), LogPosition::ZERO);
        (7..9).map(|n| (n, SegmentCommand::Activated { segment, epoch: Epoch(n), tail })).collect()
    }

    async fn answers(said: Result<CommandResult, ProposeError>) -> Vec<(u64, SegmentCommandResult)> {
        let propose = move |command: Command| -> BoxFuture<'static, Result<CommandResult, ProposeError>> {
            assert!(matches!(command, Command::Batch(commands) if commands.len() == 2));
            let said = said.clone();
            Box::pin(async move { said })
        };
        propose_together(batch(), propose).await
    }

    #[tokio::test]
    async fn each_command_of_a_batch_gets_its_own_answer() {
        let stale = SegmentCommandResult::Stale { granted: Epoch(9) };
        let each = [stale.clone(), SegmentCommandResult::Done].map(|r| Ok(SingleResult::Segment(r)));
        let said = Ok(CommandResult::Batch(each.to_vec()));
        assert_eq!(answers(said).await, [(7, stale), (8, SegmentCommandResult::Done)]);
    }

    #[tokio::test]
    async fn without_control_every_command_of_a_batch_is_unknown() {
        use SegmentCommandResult::{Refused, Unknown};
        assert_eq!(answers(Err(ProposeError::Unavailable)).await, [(7, Unknown), (8, Unknown)]);
        assert_eq!(answers(Ok(CommandResult::Done)).await, [(7, Refused), (8, Refused)]);
    }
}
