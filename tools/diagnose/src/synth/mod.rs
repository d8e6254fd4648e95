//! Generated incidents: bundles whose true cause is known, made from one seed.
//!
//! Promise: the same story and seed give the same bytes; lines are worded as the programs print them (their sources are named
//! in the stories), never copied from the rules. A world has hosts with skews, noise, resets that lose the last seconds, rotated
//! logs and decoys. Of four seeds one has hosts in several zones, and one lacks the files that name a host and its zone.

mod across;
mod heldback;
mod stories;
mod world;

use std::io;
use std::path::Path;

pub use stories::STORIES;
pub use world::{Truth, World};

/// A story by name.
pub struct Story {
    /// Name on the command line.
    pub name: &'static str,
    /// The cause that the report must name first; `None` when it must name none.
    pub cause: Option<&'static str>,
    /// One sentence.
    pub about: &'static str,
    /// Writes the events into a world.
    pub tell: fn(&mut World),
}

/// Why a story could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// No such story.
    #[error("no story {name}; stories: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The folder could not be written.
    #[error("cannot write the bundle: {0}")]
    Write(#[from] io::Error),
}

/// Finds a story.
pub fn story(name: &str) -> Result<&'static Story, SynthError> {
    STORIES.iter().find(|s| s.name == name).ok_or_else(|| SynthError::Unknown {
        name: name.to_owned(),
        known: STORIES.iter().map(|s| s.name).collect::<Vec<_>>().join(", "),
    })
}

/// Writes a bundle below `folder` and gives the truth about it.
pub fn write(story: &Story, seed: u64, folder: &Path) -> Result<Truth, SynthError> {
    tell(story, World::new(seed), folder)
}

/// The same with a longer or denser ordinary life around it.
pub fn write_stretched(
    story: &Story,
    seed: u64,
    (history_hours, every_seconds): (u32, u32),
    folder: &Path,
) -> Result<Truth, SynthError> {
    let mut world = World::new(seed);
    world.stretch(history_hours, every_seconds);
    tell(story, world, folder)
}

fn tell(story: &Story, mut world: World, folder: &Path) -> Result<Truth, SynthError> {
    (story.tell)(&mut world);
    world.truth.cause = story.cause.map(str::to_owned);
    world.write(folder)?;
    Ok(world.truth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let story = story("incident").unwrap();
        write(story, 7, a.path()).unwrap();
        write(story, 7, b.path()).unwrap();
        let mut compared = 0;
        let mut folders = vec![a.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let twin = b.path().join(path.strip_prefix(a.path()).unwrap());
                assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(twin).unwrap(), "{path:?}");
                compared += 1;
            }
        }
        assert!(compared > 10);
    }

    #[test]
    fn of_four_seeds_one_has_several_zones_and_one_lacks_what_names_a_host() {
        let mut kinds = Vec::new();
        for seed in 20..24 {
            let dir = tempfile::tempdir().unwrap();
            write(story("healthy").unwrap(), seed, dir.path()).unwrap();
            let hosts = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().path());
            let zones: Vec<Option<String>> =
                hosts.map(|h| std::fs::read_to_string(h.join("etc/timezone")).ok()).collect();
            let said: std::collections::BTreeSet<_> = zones.iter().flatten().collect();
            kinds.push((said.len() > 1, zones.iter().filter(|z| z.is_none()).count()));
        }
        assert_eq!(kinds, [(false, 0), (true, 0), (false, 0), (false, 1)]);
    }

    #[test]
    fn an_unknown_story_is_answered_with_the_known_ones() {
        assert!(story("nonsense").err().unwrap().to_string().contains("incident"));
        assert!(STORIES.len() >= 16);
    }
}
