//! The habits of the tree as a test: arrows between floors, banned calls with what to use instead, sizes, module
//! docs, and documents that name only what exists.
//!
//! It reads text and no syntax trees: a rule that needs more belongs into clippy's configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A source file that is not a test may have so many lines before it has to be split.
const LINES_MAX: usize = 700;
/// Folders that hold nothing to judge.
const SKIPPED_FOLDERS: &[&str] = &[".git", "target", ".holdfast", "node_modules", "testdata", "corpus"];

/// Floors from the bottom up: a package may depend on packages of lower floors only.
const FLOORS: &[&[&str]] = &[
    &["holdfast-types", "holdfast-checksum"],
    &["holdfast-placement", "holdfast-scsi", "holdfast-nbd", "holdfast-replication", "holdfast-store"],
    &["holdfast-cluster", "holdfast-iscsi"],
    &["holdfast-engine"],
    &["holdfast-disk", "holdfast-net", "holdfast-evidence"],
    &["holdfast-consensus", "holdfast-api", "holdfast-diagnose"],
    &["holdfast-node"],
    &["holdfast", "holdfast-sim", "holdfast-powercut"],
    &["holdfast-tests"],
    &["holdfast-bench"],
];

/// What the core must not call, and what takes its place.
const BANNED_IN_CORE: &[(&str, &str)] = &[
    ("std::time", "holdfast_types::Time, given with each input"),
    ("Instant", "holdfast_types::Time, given with each input"),
    ("SystemTime", "holdfast_types::Time, given with each input"),
    ("std::fs", "an order to the shell (DiskOrder)"),
    ("std::net", "an output to the shell (Send)"),
    ("std::thread", "nothing: the core has one thread, the caller's"),
    ("std::env", "a field of the part's configuration"),
    ("tokio", "nothing: the core is synchronous"),
    ("HashMap", "BTreeMap: hash order differs between runs"),
    ("HashSet", "BTreeSet: hash order differs between runs"),
    ("rand::", "a number given by the shell"),
    ("println!", "an event in the outputs"),
];

/// What nothing in the tree may hold.
const BANNED_ANYWHERE: &[(&str, &str)] = &[
    ("todo!", "finished code"),
    ("unimplemented!", "finished code"),
    ("dbg!(", "tracing"),
    ("static mut", "a type that is Sync"),
];

/// Places that may call what is unsafe: each block says why it is sound.
const UNSAFE_ALLOWED: &[&str] =
    &["shell/disk/", "shell/net/src/tcp_info.rs", "tests/src/libiscsi.rs", "bench/src/interrupt.rs"];

struct Source {
    path: String,
    text: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the tree").to_owned()
}

fn collect(dir: &Path, wanted: &dyn Fn(&str) -> bool, into: &mut Vec<Source>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).expect("the tree can be read").flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().expect("the tree can be read");
        if kind.is_dir() && !SKIPPED_FOLDERS.contains(&name.as_str()) && !name.starts_with("target") {
            collect(&entry.path(), wanted, into);
        } else if kind.is_file() && wanted(&name) {
            let path = entry.path();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let relative =
                path.strip_prefix(root()).expect("it lies in the tree").to_string_lossy().into_owned();
            into.push(Source { path: relative, text });
        }
    }
}

fn files(ends: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), &|name| ends.iter().any(|e| name.ends_with(e)), &mut found);
    assert!(found.len() > 3, "found nothing to judge");
    found
}

fn is_test(path: &str) -> bool {
    path.contains("/tests/")
        || path.contains("/testing")
        || path.ends_with("tests.rs")
        || path.contains("/examples/")
}

/// The code of a file without its tests and comments, as (line number, line).
fn code(source: &Source) -> Vec<(usize, &str)> {
    let lines = source.text.lines().enumerate().map(|(i, l)| (i + 1, l));
    let body = lines.take_while(|(_, l)| !l.starts_with("#[cfg(test)]") && !l.starts_with("mod tests {"));
    body.filter(|(_, l)| !l.trim_start().starts_with("//")).collect()
}

fn verdict(rule: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn dependencies_go_down_the_floors_only() {
    let floor: BTreeMap<&str, usize> =
        FLOORS.iter().enumerate().flat_map(|(i, names)| names.iter().map(move |n| (*n, i))).collect();
    let mut broken = Vec::new();
    for manifest in files(&["Cargo.toml"]) {
        let Some(name) = manifest.text.lines().find_map(|l| l.strip_prefix("name = ")) else { continue };
        let name = name.trim_matches('"');
        let Some(own) = floor.get(name) else {
            broken.push(format!("{}: {name} has no floor; give it one in this test", manifest.path));
            continue;
        };
        let mut section = "";
        for line in manifest.text.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
            // Tests may use more: the sections for them are not judged.
            let judged = section == "[dependencies]" && used.starts_with("holdfast-") && used != name;
            if judged && floor.get(used).is_none_or(|f| f >= own) {
                broken.push(format!(
                    "{}: {name} depends on {used}, which is not on a lower floor",
                    manifest.path
                ));
            }
            if section == "[dependencies]" && manifest.path.starts_with("core/") && line.starts_with("tokio")
            {
                broken.push(format!("{}: the core is synchronous and knows no tokio", manifest.path));
            }
        }
    }
    verdict("an arrow points up (docs/architecture.md)", broken);
}

#[test]
fn the_core_calls_nothing_of_the_world() {
    let mut broken = Vec::new();
    for source in files(&[".rs"]).iter().filter(|s| s.path.starts_with("core/")) {
        let unsafe_forbidden = source.text.contains("#![forbid(unsafe_code)]");
        if source.path.ends_with("src/lib.rs")
            && !unsafe_forbidden
            && !source.path.starts_with("core/checksum/")
        {
            broken.push(format!("{}: lacks #![forbid(unsafe_code)]", source.path));
        }
        if is_test(&source.path) {
            continue;
        }
        for (number, line) in code(source) {
            for (banned, instead) in BANNED_IN_CORE.iter().filter(|(b, _)| has_word(line, b)) {
                broken.push(format!("{}:{number}: {banned}; use {instead}", source.path));
            }
        }
    }
    verdict("the core is deterministic and does no I/O", broken);
}

/// Whether a line holds the word, and not as a part of a longer name.
fn has_word(line: &str, word: &str) -> bool {
    let name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(i, _)| {
        let before = line[..i].chars().next_back().is_some_and(name);
        let after = word.ends_with(name) && line[i + word.len()..].chars().next().is_some_and(name);
        !before && !after
    })
}

#[test]
fn nothing_unfinished_is_in_the_tree() {
    let mut broken = Vec::new();
    for source in files(&[".rs"]).iter().filter(|s| !s.path.ends_with("tidy.rs")) {
        for (number, line) in source.text.lines().enumerate() {
            for (banned, instead) in BANNED_ANYWHERE.iter().filter(|(b, _)| has_word(line, b)) {
                broken.push(format!("{}:{}: {banned}; wanted: {instead}", source.path, number + 1));
            }
        }
    }
    verdict("unfinished or debugging code", broken);
}

#[test]
fn an_unwrap_has_a_comment_that_proves_it() {
    let mut broken = Vec::new();
    for source in files(&[".rs"]).iter().filter(|s| !is_test(&s.path) && !s.path.starts_with("tests/")) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in code(source) {
            let above = number >= 2 && lines[number - 2].trim_start().starts_with("//");
            if line.contains(".unwrap()") && !line.contains("//") && !above {
                broken.push(format!("{}:{number}: unwrap() without a comment that proves it", source.path));
            }
        }
    }
    verdict("say why it cannot fail, in a comment or as the text of expect()", broken);
}

#[test]
fn unsafe_code_stays_where_it_is_allowed_and_says_why_it_is_sound() {
    let mut broken = Vec::new();
    for source in files(&[".rs"]).iter().filter(|s| !s.path.ends_with("tidy.rs")) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if !(["unsafe {", "unsafe impl", "unsafe fn", "unsafe extern"].iter().any(|w| has_word(code, w)))
            {
                continue;
            }
            if !UNSAFE_ALLOWED.iter().any(|a| source.path.starts_with(a)) {
                broken.push(format!("{}:{}: unsafe code is not allowed here", source.path, number + 1));
            }
            let near = lines[number.saturating_sub(8)..=number]
                .iter()
                .any(|l| l.contains("SAFETY") || l.contains("# Safety"));
            if !near {
                broken.push(format!("{}:{}: no SAFETY comment", source.path, number + 1));
            }
        }
    }
    verdict("unsafe code", broken);
}

#[test]
fn no_file_is_too_long_for_one_idea() {
    let sources = files(&[".rs"]);
    let judged = sources.iter().filter(|s| !is_test(&s.path));
    let until_tests = |s: &Source| s.text.lines().take_while(|l| !l.starts_with("#[cfg(test)]")).count();
    let long = judged.map(|s| (s, until_tests(s))).filter(|(_, lines)| *lines > LINES_MAX);
    let broken = long.map(|(s, lines)| format!("{}: {lines} lines, at most {LINES_MAX}", s.path)).collect();
    verdict("split it by ideas", broken);
}

#[test]
fn every_source_file_opens_with_what_it_is() {
    let mut broken = Vec::new();
    // A sibling tests.rs is a part of the file that it tests.
    for source in files(&[".rs"]).iter().filter(|s| !s.path.ends_with("/tests.rs")) {
        let first = source.text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!["));
        if !first.is_some_and(|l| l.starts_with("//!")) {
            broken.push(format!("{}: begin with a //! paragraph: what it is, what it promises", source.path));
        }
    }
    verdict("module documentation", broken);
}

#[test]
fn documents_name_only_paths_that_exist() {
    let tops =
        ["core/", "shell/", "tools/", "bin/", "tests/", "docs/", "packaging/", ".ci/", "bench/", "fuzz/"];
    let mut broken = Vec::new();
    for document in files(&[".md"]) {
        let folder = root().join(&document.path);
        let folder = folder.parent().expect("a file lies in a folder");
        for (number, line) in document.text.lines().enumerate() {
            let quoted = line.split('`').skip(1).step_by(2).map(|path| (path, root()));
            let linked = line.split("](").skip(1).filter_map(|l| l.split([')', '#']).next());
            let linked =
                linked.filter(|l| !l.is_empty() && !l.contains(':')).map(|path| (path, folder.to_owned()));
            for (path, base) in quoted.filter(|(p, _)| tops.iter().any(|t| p.starts_with(t))).chain(linked) {
                let plain = !path.contains(['*', '<', '{', ' ', '…', 'N']);
                if plain && !base.join(path).exists() {
                    broken.push(format!("{}:{}: {path} does not exist", document.path, number + 1));
                }
            }
        }
    }
    verdict("dead paths in documents", broken);
}

#[test]
fn no_file_names_a_registry_or_a_path_of_someones_machine() {
    // Written in halves, so that this file does not break its own rule.
    let banned = [
        concat!("crates", ".io"),
        concat!("pypi", ".org"),
        concat!("npmjs", ".org"),
        concat!("deb.debian", ".org"),
        concat!("/home", "/"),
        concat!("/root", "/"),
        concat!("/wo", "rk/"),
    ];
    let mut broken = Vec::new();
    for source in files(&[".rs", ".md", ".toml", ".sh", ".service", ".socket", "x", "run"]) {
        for (number, line) in source.text.lines().enumerate() {
            // Sample logs may name what their hosts named.
            let sample = source.path.starts_with("tools/");
            for word in banned.iter().filter(|b| line.contains(**b) && !(sample && b.starts_with('/'))) {
                broken.push(format!("{}:{}: {word}", source.path, number + 1));
            }
        }
    }
    verdict("hosts and paths that are not ours to name", broken);
}

#[test]
fn every_folder_of_the_workspace_has_its_sentence_in_the_architecture() {
    let text =
        std::fs::read_to_string(root().join("docs/architecture.md")).expect("docs/architecture.md is there");
    let manifests = files(&["Cargo.toml"]);
    let folders = manifests.iter().filter_map(|m| m.path.strip_suffix("/Cargo.toml"));
    let broken = folders.filter(|f| !text.contains(&format!("`{f}`"))).map(str::to_owned).collect();
    verdict("a folder without a sentence in docs/architecture.md", broken);
}

/// The value of `NAME: type = N;`, `N << M`, or a `Duration` in milliseconds, anywhere in the tree.
fn constant(sources: &[Source], name: &str) -> Option<u64> {
    let definition = format!("const {name}: ");
    let line = sources.iter().flat_map(|s| s.text.lines()).find(|l| l.contains(&definition))?;
    // Without the underscores of long numbers, and so of the function's name.
    let value = line.split_once(" = ")?.1.trim_end_matches(';').replace('_', "");
    let seconds = value.strip_prefix("Duration::fromsecs(").map(|v| (v, 1000));
    let duration = seconds.or(value.strip_prefix("Duration::frommillis(").map(|v| (v, 1)));
    let (value, unit) = duration.unwrap_or((&value, 1));
    let (number, shift) = value.trim_end_matches(')').split_once(" << ").unwrap_or((value, "0"));
    Some((number.trim_end_matches(')').parse::<u64>().ok()? << shift.parse::<u32>().ok()?) * unit)
}

#[test]
fn the_limits_in_the_documents_are_those_of_the_code() {
    let sources = files(&[".rs"]);
    let text =
        std::fs::read_to_string(root().join("docs/operations.md")).expect("docs/operations.md is there");
    let limits = text.split("\n## Limits").nth(1).expect("it has limits");
    let mut broken = Vec::new();
    let mut judged = 0;
    for row in limits.lines().filter(|l| l.starts_with("| ") && l.contains('`')) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names = cells[3].split(", ").map(|n| n.trim_matches('`'));
        for (name, said) in names.zip(cells[2].split(", ")) {
            let words: Vec<String> = said.split([' ', ',']).map(|w| w.replace(',', "")).collect();
            let number = said.split(' ').next().and_then(|n| n.replace(',', "").parse::<f64>().ok());
            let unit = match words.get(1).map(String::as_str) {
                Some("MiB") => 1_u64 << 20,
                Some("TiB") => 1 << 40,
                Some("s") => 1000,
                _ => 1,
            };
            judged += 1;
            let number = number.map(|n| (n * unit as f64) as u64);
            if number.is_none() || number != constant(&sources, name) {
                broken.push(format!(
                    "{name}: the document says {said} ({number:?}), the code {:?}",
                    constant(&sources, name)
                ));
            }
        }
    }
    assert!(judged > 8, "only {judged} limits were found");
    verdict("docs/operations.md, limits", broken);
}

#[test]
fn the_formats_document_names_every_magic_of_the_store() {
    let text = std::fs::read_to_string(root().join("docs/formats.md")).expect("docs/formats.md is there");
    let sources = files(&[".rs"]);
    let formats = sources.iter().filter(|s| s.path.starts_with("core/store/src/format/"));
    let magics = formats.flat_map(|s| s.text.lines().filter(|l| l.starts_with("const MAGIC")));
    let names: Vec<&str> = magics.filter_map(|l| l.split('"').nth(1)).collect();
    assert!(names.len() >= 3, "the store's magics were not found");
    let broken =
        names.iter().filter(|n| !text.contains(&format!("`{n}`"))).map(|n| (*n).to_owned()).collect();
    verdict("a structure that docs/formats.md does not draw", broken);
}
