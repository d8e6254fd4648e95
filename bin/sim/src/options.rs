//! What a run is made with, and the words of the command line for it.

use std::collections::BTreeSet;
use thiserror::Error;

/// A kind of fault that is injected at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// A node loses power or its daemon is killed; it comes back.
    Crash,
    /// Two groups of nodes, or two nodes, do not reach each other.
    Partition,
    /// A daemon is stopped for a while (SIGSTOP); time goes on.
    Pause,
    /// A disk does not answer for a while.
    Hang,
    /// A disk takes long for everything for a while.
    Slow,
    /// A bit on a disk flips.
    BitFlip,
    /// Control has no majority, loses answers, or is late.
    Control,
    /// A client goes away with requests under way.
    Disconnect,
    /// Once in a run a node, or a disk, is lost for ever. Only where there is a node without a copy, or another disk, to spare.
    Gone,
    /// An iSCSI initiator logs in anew over any node and leaves its session, with what is under way, as it is.
    Move,
    /// A node's daemon is asked to stop, as an operator does; it comes back.
    Stop,
    /// Volumes are made, grown and deleted.
    Volumes,
    /// Once in a run an operator says of a node that does not answer, or of a disk that is slow, that it is lost, and is wrong:
    /// it comes back, or was never away.
    Lost,
    /// Once in a run a disk fails what is written to it, and control hears of it; what is on it begins anew with its node's next
    /// run.
    Fail,
    /// A block of a disk cannot be read until it is written anew.
    Unreadable,
    /// An operator puts one disk more into a node, once in a run.
    Add,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [FaultKind; 16] = [
        FaultKind::Crash,
        FaultKind::Partition,
        FaultKind::Pause,
        FaultKind::Hang,
        FaultKind::Slow,
        FaultKind::BitFlip,
        FaultKind::Control,
        FaultKind::Disconnect,
        FaultKind::Gone,
        FaultKind::Move,
        FaultKind::Stop,
        FaultKind::Volumes,
        FaultKind::Lost,
        FaultKind::Fail,
        FaultKind::Unreadable,
        FaultKind::Add,
    ];

    /// Its word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Crash => "crash",
            FaultKind::Partition => "partition",
            FaultKind::Pause => "pause",
            FaultKind::Hang => "hang",
            FaultKind::Slow => "slow",
            FaultKind::BitFlip => "bitflip",
            FaultKind::Control => "control",
            FaultKind::Disconnect => "disconnect",
            FaultKind::Gone => "gone",
            FaultKind::Move => "move",
            FaultKind::Stop => "stop",
            FaultKind::Volumes => "volumes",
            FaultKind::Lost => "lost",
            FaultKind::Fail => "fail",
            FaultKind::Unreadable => "unreadable",
            FaultKind::Add => "add",
        }
    }
}

/// See the module's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Everything that looks random comes from it.
    pub seed: u64,
    /// Client requests before everything heals.
    pub steps: u64,
    /// Nodes: 1, 3 or 5.
    pub nodes: u16,
    /// Disks of each node: 1 to 4.
    pub disks: u16,
    /// What is injected at random.
    pub faults: BTreeSet<FaultKind>,
    /// The disks say "on stable storage" of what is not: the checkers must find out.
    pub disks_lie: bool,
    /// The disks hold fewer extents than the clients use: writes of new data fail now and then.
    pub small_disks: bool,
    /// Clients zero long ranges, too: whole extents and segments.
    pub discards: bool,
    /// Print the trace as it happens.
    pub verbose: bool,
}

impl Options {
    /// Whether one of these is injected.
    pub fn has_any(&self, kinds: &[FaultKind]) -> bool {
        kinds.iter().any(|kind| self.faults.contains(kind))
    }
}

impl Default for Options {
    fn default() -> Self {
        use FaultKind::{Control, Crash, Disconnect, Partition, Pause};
        let faults = [Crash, Partition, Pause, Control, Disconnect].into_iter().collect();
        Self {
            seed: 1,
            steps: 300,
            nodes: 3,
            disks: 1,
            faults,
            disks_lie: false,
            small_disks: false,
            discards: false,
            verbose: false,
        }
    }
}

/// The command line: which seeds to run, each with these options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// The options; the seed in them is the first.
    pub options: Options,
    /// One past the last seed.
    pub end: u64,
}

/// What is wrong with a command line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum UsageError {
    /// An unknown option.
    #[error("unknown option {0}; see the head of bin/sim/src/main.rs")]
    Unknown(String),
    /// An option lacks its value.
    #[error("{0} needs a value")]
    NoValue(String),
    /// A value is not one that the option takes.
    #[error("{option} does not take {value:?}")]
    BadValue {
        /// The option.
        option: String,
        /// What was given.
        value: String,
    },
}

/// Reads a command line.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<CommandLine, UsageError> {
    let mut options = Options::default();
    let mut end = None;
    let mut arguments = arguments.into_iter();
    while let Some(option) = arguments.next() {
        match option.as_str() {
            "--verbose" => options.verbose = true,
            "--disks-lie" => options.disks_lie = true,
            "--small-disks" => options.small_disks = true,
            "--discards" => options.discards = true,
            "--seed" | "--steps" | "--nodes" | "--disks" | "--faults" | "--seeds" => {
                let value = arguments.next().ok_or_else(|| UsageError::NoValue(option.clone()))?;
                set(&mut options, &mut end, &option, &value).ok_or(UsageError::BadValue { option, value })?;
            }
            _ => return Err(UsageError::Unknown(option)),
        }
    }
    let end = end.unwrap_or(options.seed.saturating_add(1));
    Ok(CommandLine { options, end })
}

fn set(options: &mut Options, end: &mut Option<u64>, option: &str, value: &str) -> Option<()> {
    match option {
        "--seed" => options.seed = value.parse().ok()?,
        "--steps" => options.steps = value.parse().ok()?,
        "--nodes" => options.nodes = value.parse().ok().filter(|n| [1, 3, 5].contains(n))?,
        "--disks" => options.disks = value.parse().ok().filter(|n| (1..=4).contains(n))?,
        "--seeds" => {
            let (first, last) = value.split_once("..")?;
            options.seed = first.parse().ok()?;
            *end = Some(last.parse().ok().filter(|last| *last > options.seed)?);
        }
        _ => {
            let find = |word: &str| FaultKind::ALL.into_iter().find(|f| f.name() == word);
            options.faults = value.split(',').filter(|w| *w != "none").map(find).collect::<Option<_>>()?;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<CommandLine, UsageError> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_line_says_which_seeds_run_under_which_faults() {
        let line =
            read("--seeds 5..9 --nodes 5 --disks 2 --faults crash,bitflip --steps 7").expect("it is valid");
        assert_eq!((line.options.seed, line.end, line.options.nodes, line.options.steps), (5, 9, 5, 7));
        assert_eq!(line.options.disks, 2);
        assert_eq!(line.options.faults, BTreeSet::from([FaultKind::Crash, FaultKind::BitFlip]));
        assert_eq!(read("--seed 3").expect("it is valid").end, 4);
        assert!(read("--faults none").expect("it is valid").options.faults.is_empty());
    }

    #[test]
    fn a_bad_line_is_refused() {
        assert_eq!(read("--what"), Err(UsageError::Unknown("--what".into())));
        assert_eq!(read("--seed"), Err(UsageError::NoValue("--seed".into())));
        for bad in ["--nodes 2", "--disks 0", "--seeds 4..4", "--faults storm", "--steps x"] {
            assert!(matches!(read(bad), Err(UsageError::BadValue { .. })), "{bad}");
        }
    }
}
