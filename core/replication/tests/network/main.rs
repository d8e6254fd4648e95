//! Owners and replicas over a small simulated network, by seed. A failure names its seed.

mod store;
mod world;

use holdfast_types::Duration;
use world::World;

fn run(seeds: std::ops::Range<u64>, copies: usize) -> (u64, u64, u64) {
    let mut sum = (0, 0, 0);
    let mut failed = Vec::new();
    for seed in seeds {
        let one = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, copies);
            world.run(Duration::from_secs(8));
            world.finish();
            (world.acknowledged, world.activations, world.resyncs)
        });
        match one {
            Ok((a, b, c)) => sum = (sum.0 + a, sum.1 + b, sum.2 + c),
            Err(_) => {
                eprintln!("^^ seed {seed}, {copies} copies");
                failed.push(seed);
            }
        }
    }
    println!("{copies} copies: {} acknowledged, {} activations, {} resyncs", sum.0, sum.1, sum.2);
    assert!(failed.is_empty(), "seeds {failed:?} failed");
    sum
}

fn seeds(count: u64) -> std::ops::Range<u64> {
    let from = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    from.map_or(1..count + 1, |from: u64| from..from + 1)
}

#[test]
fn three_copies_keep_what_they_acknowledged_through_crashes_loss_and_takeovers() {
    run(seeds(100), 3);
}

#[test]
fn two_copies_keep_what_they_acknowledged_through_crashes_loss_and_takeovers() {
    run(seeds(60), 2);
}
