//! Runs from seeds in which the disks differ from one to a node that is sound: several to a node, one more while everything
//! goes on, and blocks that cannot be read. A seed that fails is brought back as those of `seeds.rs` are.

mod common;

use holdfast_sim::run::Summary;
use holdfast_sim::{FaultKind, Options};

fn run(options: &Options, faults: &[FaultKind]) -> Summary {
    common::run(&Options { faults: faults.iter().copied().collect(), ..options.clone() })
}

#[test]
fn nodes_of_several_disks_keep_every_promise_under_random_faults() {
    use FaultKind::{Control, Crash, Hang, Move, Partition, Pause, Slow, Stop, Volumes};
    for seed in 10_000..10_020 {
        let options = Options { seed, disks: 2, steps: 500, discards: true, ..Options::default() };
        run(&options, &[Crash, Partition, Pause, Control, Move, Stop, Volumes]);
    }
    for seed in 10_020..10_030 {
        run(&Options { seed, disks: 3, ..Options::default() }, &[Crash, Hang, Slow, Stop]);
    }
}

/// What one disk had goes to another one of its node, while its daemon goes on with those that are left.
#[test]
fn one_disk_of_several_is_lost_or_fails_and_its_node_goes_on() {
    use FaultKind::{Crash, Fail, Gone, Partition, Pause};
    let (mut replaced, mut failed) = (0, 0);
    for seed in 10_100..10_115 {
        let options = Options { seed, disks: 2, steps: 800, ..Options::default() };
        replaced += run(&options, &[Gone, Crash, Partition, Pause]).replaced;
        failed += run(&options, &[Fail, Crash, Partition, Pause]).said_lost;
    }
    assert!(replaced >= 15, "hardly any copy was placed anew: {replaced}");
    assert!(failed >= 12, "hardly any disk failed: {failed}");
}

/// Full disks, and one more is added.
#[test]
fn a_disk_is_added_where_others_are_full() {
    use FaultKind::{Add, Crash, Partition, Stop};
    let mut added = 0;
    for seed in 10_200..10_215 {
        let options = Options { seed, small_disks: true, steps: 600, discards: true, ..Options::default() };
        added += run(&options, &[Add, Crash, Partition, Stop]).added;
    }
    assert!(added >= 12, "hardly any disk was added: {added}");
}

/// In places of their own, in the journal and in pages: damage that other copies mend, or the end of what is on that disk.
#[test]
fn blocks_that_cannot_be_read_lose_nothing() {
    use FaultKind::{BitFlip, Crash, Hang, Pause, Slow, Unreadable};
    let mut damaged = 0;
    for seed in 10_300..10_320 {
        let options = Options { seed, disks: 2, ..Options::default() };
        damaged += run(&options, &[Unreadable, BitFlip, Crash, Pause]).damaged;
    }
    for seed in [920_307, 920_318] {
        // The journal has an unreadable block whose content is to be put in place after a restart.
        let options = Options { seed, steps: 600, ..Options::default() };
        damaged += run(&options, &[Unreadable, Slow, Hang, Crash]).damaged;
    }
    assert!(damaged > 60, "hardly any block was damaged: {damaged}");
}
