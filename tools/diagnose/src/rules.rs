//! The rules: what a line must look like to be a fact, in data files beside this crate.
//!
//! Promise: every rule has an id, a source, what would refute it, and an example line that it is tested against. One search
//! for all literals finds candidate lines at the speed of memory; only those meet a regular expression.

use std::collections::BTreeMap;
use std::ops::Range;

use regex::bytes::{Captures, Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::literals::{Candidate, Literals, SHORTEST};

/// How bad a fact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// A sign of trouble.
    Warning,
    /// Trouble.
    Error,
    /// A service or host is lost.
    Critical,
}

/// The part a fact can play in a chain of causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It can start a chain.
    Trigger,
    /// A standing condition, such as a missing fence device.
    State,
    /// It stands in the middle of a chain.
    Symptom,
    /// What users felt: a host reset, a volume gone.
    Impact,
    /// It explains nothing by itself.
    Context,
}

/// One rule as its file states it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Stable id, such as `iscsi.refused`.
    pub id: String,
    /// How bad.
    pub severity: Severity,
    /// Its part in a chain.
    pub role: Role,
    /// Strings of which a matching line holds at least one; the fast filter.
    #[serde(default)]
    pub literals: Vec<String>,
    /// The regular expression over the whole line.
    #[serde(default)]
    pub pattern: String,
    /// Lines that fit the pattern and prove nothing, such as a request that a web server refused.
    #[serde(default)]
    pub except: Option<String>,
    /// A regular expression over the logical path, for rules about files rather than lines.
    #[serde(default)]
    pub path: Option<String>,
    /// What a file at that path must hold, each in one of its lines; `{name}` is the path's capture of that name. A name proves
    /// nothing: packages own init scripts of every name.
    #[serde(default)]
    pub holds: Vec<String>,
    /// Captures that tell episodes apart.
    #[serde(default)]
    pub key: Vec<String>,
    /// Lines further apart than this are separate episodes.
    #[serde(default = "default_gap")]
    pub gap_seconds: i64,
    /// Fewer lines than this in one episode prove nothing.
    #[serde(default = "one")]
    pub at_least_lines: u64,
    /// The capture that several hosts share for one event: fits their clocks.
    #[serde(default)]
    pub pair: Option<String>,
    /// The capture that names the other end of a connection: both ends log the event, each with the other's name.
    #[serde(default)]
    pub between: Option<String>,
    /// True before its first line too: a condition that was there, not an event.
    #[serde(default)]
    pub standing: bool,
    /// Marks the start of a boot; the line before it is kept.
    #[serde(default)]
    pub boot: bool,
    /// English title with `{captures}`.
    pub title: String,
    /// Where the knowledge comes from.
    pub source: String,
    /// What would show that the fact is not what it seems.
    pub refuted_by: String,
    /// A line (or path) that matches.
    pub example: String,
    /// More lines that it must take, in other wordings of its pattern.
    #[serde(default)]
    pub also: Vec<String>,
    /// What the file at that path holds.
    #[serde(default)]
    pub example_text: String,
}

/// How the names of files end that a source may name.
const SOURCE_FILES: [&str; 11] = ["c", "cc", "cpp", "h", "rs", "pm", "go", "rst", "md", "yml", "yar"];

impl Rule {
    /// The lines that it must take.
    pub fn examples(&self) -> impl Iterator<Item = &str> {
        self.also.iter().chain([&self.example]).map(String::as_str)
    }

    /// Whether the source names a file or an address where the knowledge can be read, or says that there is none to read.
    pub fn source_can_be_read(&self) -> bool {
        let names_a_file = |word: &str| {
            word.rsplit_once('.').is_some_and(|(stem, end)| !stem.is_empty() && SOURCE_FILES.contains(&end))
        };
        self.source.contains("https://")
            || self.source.contains("closed source")
            || self.source.split([' ', ',', ';', ':']).any(names_a_file)
    }
}

fn default_gap() -> i64 {
    60
}

fn one() -> u64 {
    1
}

#[derive(Deserialize)]
struct RuleFile {
    rule: Vec<Rule>,
}

/// A rule file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    /// Not TOML of the expected shape.
    #[error("rule file {file}: {source}")]
    Syntax {
        /// The file.
        file: &'static str,
        /// The parser's word.
        source: toml::de::Error,
    },
    /// A regular expression does not compile.
    #[error("rule {id}: {source}")]
    Pattern {
        /// The rule.
        id: String,
        /// The compiler's word.
        source: regex::Error,
    },
    /// A literal is too short to be searched for.
    #[error("rule {id}: the literal {literal:?} has less than {SHORTEST} bytes")]
    Short {
        /// The rule.
        id: String,
        /// The literal.
        literal: String,
    },
    /// Two rules share an id.
    #[error("rule {id} stands twice")]
    Twice {
        /// The rule.
        id: String,
    },
}

/// All rule files, in a fixed order.
const FILES: [(&str, &str); 8] = [
    ("fencing.toml", include_str!("../rules/fencing.toml")),
    ("storage.toml", include_str!("../rules/storage.toml")),
    ("disk.toml", include_str!("../rules/disk.toml")),
    ("network.toml", include_str!("../rules/network.toml")),
    ("kernel.toml", include_str!("../rules/kernel.toml")),
    ("system.toml", include_str!("../rules/system.toml")),
    ("malware.toml", include_str!("../rules/malware.toml")),
    ("holdfast.toml", include_str!("../rules/holdfast.toml")),
];

struct Compiled {
    pattern: Option<Regex>,
    except: Option<Regex>,
    path: Option<Regex>,
}

/// A file that fits a rule by its path and by what it holds.
pub struct FileMatch {
    /// Index of the rule.
    pub rule: usize,
    /// The captures of its path and its lines.
    pub fields: BTreeMap<String, String>,
    /// The lines that decided, as ranges of the content, in order.
    pub lines: Vec<Range<usize>>,
}

/// The compiled rules.
pub struct RuleSet {
    /// The rules in file order.
    pub rules: Vec<Rule>,
    compiled: Vec<Compiled>,
    literals: Literals,
    /// For each literal, the rules that own it.
    owners: Vec<Vec<u16>>,
    by_id: BTreeMap<String, usize>,
}

/// The literal of the repeat line, which is no rule.
const REPEAT: &str = "message repeated ";

impl RuleSet {
    /// Compiles the rules that come with the program.
    pub fn builtin() -> Result<RuleSet, RuleError> {
        let mut rules = Vec::new();
        for (file, text) in FILES {
            let parsed: RuleFile =
                toml::from_str(text).map_err(|source| RuleError::Syntax { file, source })?;
            rules.extend(parsed.rule);
        }
        RuleSet::compile(rules)
    }

    fn compile(rules: Vec<Rule>) -> Result<RuleSet, RuleError> {
        let mut compiled = Vec::new();
        let mut literals: Vec<String> = vec![REPEAT.to_owned()];
        let mut owners: Vec<Vec<u16>> = vec![Vec::new()];
        let mut by_id = BTreeMap::new();
        for (index, rule) in rules.iter().enumerate() {
            if by_id.insert(rule.id.clone(), index).is_some() {
                return Err(RuleError::Twice { id: rule.id.clone() });
            }
            let regex = |text: &str| {
                Regex::new(text).map_err(|source| RuleError::Pattern { id: rule.id.clone(), source })
            };
            let pattern = if rule.pattern.is_empty() { None } else { Some(regex(&rule.pattern)?) };
            let except = rule.except.as_deref().map(regex).transpose()?;
            let path = rule.path.as_deref().map(regex).transpose()?;
            let names = path.iter().flat_map(Regex::capture_names).flatten();
            let any: BTreeMap<String, String> = names.map(|n| (n.to_owned(), "x".to_owned())).collect();
            for held in &rule.holds {
                held_pattern(held, &any)
                    .map_err(|source| RuleError::Pattern { id: rule.id.clone(), source })?;
            }
            compiled.push(Compiled { pattern, except, path });
            for literal in &rule.literals {
                if literal.len() < SHORTEST {
                    return Err(RuleError::Short { id: rule.id.clone(), literal: literal.clone() });
                }
                match literals.iter().position(|l| l == literal) {
                    Some(at) => owners[at].push(index as u16),
                    None => {
                        literals.push(literal.clone());
                        owners.push(vec![index as u16]);
                    }
                }
            }
        }
        let literals = Literals::new(&literals);
        Ok(RuleSet { rules, compiled, literals, owners, by_id })
    }

    /// The index of a rule.
    pub fn index(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// All literals found in a block, in order of their ends.
    pub fn candidates(&self, block: &[u8], found: &mut Vec<Candidate>) {
        self.literals.find(block, found);
    }

    /// Whether a literal is the mark of a repeat line.
    pub fn is_repeat(literal: usize) -> bool {
        literal == 0
    }

    /// The rules that a literal may lead to.
    pub fn owners(&self, literal: usize) -> &[u16] {
        &self.owners[literal]
    }

    /// Whether one of a rule's literals stands in a line, so that its pattern is tried at all.
    pub fn reaches(&self, rule: usize, line: &[u8]) -> bool {
        let mut found = Vec::new();
        self.candidates(line, &mut found);
        found.iter().any(|c| self.owners(c.literal).contains(&(rule as u16)))
    }

    /// Matches one rule against a line.
    pub fn matches<'h>(&self, rule: usize, line: &'h [u8]) -> Option<Captures<'h>> {
        let compiled = &self.compiled[rule];
        let captures = compiled.pattern.as_ref()?.captures(line)?;
        compiled.except.as_ref().is_none_or(|e| !e.is_match(line)).then_some(captures)
    }

    /// The named captures of a match, for facts.
    pub fn fields(&self, rule: usize, captures: &Captures<'_>) -> BTreeMap<String, String> {
        self.compiled[rule].pattern.as_ref().map_or_else(BTreeMap::new, |p| named(p, captures))
    }

    /// Whether what a file holds decides a rule, so that its content must be kept.
    pub fn asks_for(&self, path: &str) -> bool {
        self.compiled.iter().any(|c| c.path.as_ref().is_some_and(|p| p.is_match(path.as_bytes())))
    }

    /// The rules that a file fits, by its path and by its content.
    pub fn file_matches(&self, path: &str, content: &[u8]) -> Vec<FileMatch> {
        let fits = |(rule, compiled): (usize, &Compiled)| {
            let regex = compiled.path.as_ref()?;
            let mut fields = named(regex, &regex.captures(path.as_bytes())?);
            let mut lines = Vec::new();
            for held in &self.rules[rule].holds {
                let held = held_pattern(held, &fields).ok()?;
                let captures = held.captures(content)?;
                fields.extend(named(&held, &captures));
                lines.push(captures.get(0)?.range());
            }
            lines.sort_by_key(|r| r.start);
            (!lines.is_empty()).then_some(FileMatch { rule, fields, lines })
        };
        self.compiled.iter().enumerate().filter_map(fits).collect()
    }
}

/// A regular expression over the lines of a file, with the captures of its path put in.
fn held_pattern(held: &str, fields: &BTreeMap<String, String>) -> Result<Regex, regex::Error> {
    let put_in =
        |h: String, (name, v): (&String, &String)| h.replace(&format!("{{{name}}}"), &regex::escape(v));
    RegexBuilder::new(&fields.iter().fold(held.to_owned(), put_in)).multi_line(true).build()
}

fn named(regex: &Regex, captures: &Captures<'_>) -> BTreeMap<String, String> {
    let value =
        |name: &str| captures.name(name).map(|m| holdfast_evidence::text::printable(m.as_bytes(), 120));
    regex.capture_names().flatten().filter_map(|n| Some((n.to_owned(), value(n)?))).collect()
}

/// Fills `{name}` from fields; an absent field leaves nothing.
pub fn fill(template: &str, fields: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let Some(len) = rest[open..].find('}') else { break };
        out.push_str(&rest[..open]);
        out.push_str(fields.get(&rest[open + 1..open + len]).map_or("", String::as_str));
        rest = &rest[open + len + 1..];
    }
    out.push_str(rest);
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_finds_its_own_example_through_its_literals() {
        let set = RuleSet::builtin().expect("the shipped rules compile");
        for (index, rule) in set.rules.iter().enumerate() {
            if rule.path.is_some() {
                let found = set.file_matches(&rule.example, rule.example_text.as_bytes());
                assert!(found.iter().any(|m| m.rule == index), "{}", rule.id);
                assert!(set.file_matches(&rule.example, b"").is_empty(), "{}: a name alone", rule.id);
                continue;
            }
            for line in rule.examples() {
                let found = set.matches(index, line.as_bytes());
                assert!(found.is_some(), "pattern of {} misses {line}", rule.id);
                assert!(set.reaches(index, line.as_bytes()), "literals of {} miss {line}", rule.id);
            }
            assert!(!rule.refuted_by.is_empty());
        }
    }

    #[test]
    fn ordinary_lines_of_a_healthy_host_match_no_rule_but_context() {
        let set = RuleSet::builtin().unwrap();
        for line in [
            "Mar  3 10:00:00 n1 CRON[99]: (root) CMD (   cd / && run-parts --report /etc/cron.hourly)",
            "Mar  3 10:00:00 n1 systemd[1]: Started Session 12 of user root.",
            "Mar  3 10:00:00 n1 sshd[8]: Accepted publickey for admin from 10.0.0.9 port 5022 ssh2",
            "Mar  3 10:00:00 n1 kernel: [12.000001] igb 0000:01:00.0 eth1: igb: eth1 NIC Link is Up 1000 Mbps",
            "Mar  3 10:00:00 n1 corosync[9]:   [TOTEM ] A new membership (1.2f) was formed. Members joined: 2",
            "Mar  3 10:00:00 n1 smartd[9]: Device: /dev/sda [SAT], SMART Usage Attribute: 194 changed from 64 to 65",
            "4: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1400 qdisc pfifo_fast state UP group default qlen 1000",
            "Mar  3 10:00:00 n1 kernel: [    2.100000] e1000e 0000:00:19.0 eno1: NIC Link is Down",
            "eth0: flags=4163<UP,BROADCAST,RUNNING,MULTICAST>  mtu 1500",
        ] {
            for (index, rule) in set.rules.iter().enumerate() {
                if rule.role != Role::Context {
                    assert!(set.matches(index, line.as_bytes()).is_none(), "{} matches {line}", rule.id);
                }
            }
        }
    }

    #[test]
    fn a_source_names_a_file_or_an_address_or_says_that_it_is_closed() {
        let mut rule = RuleSet::builtin().unwrap().rules.remove(0);
        for (source, can_be_read) in [
            ("Linux fs/ext4/super.c", true),
            ("Linux include/scsi/iscsi_if.h: ISCSI_ERR_TCP_CONN_CLOSED", true),
            ("MITRE ATT&CK T1053.003: https://attack.mitre.org/techniques/T1053/003", true),
            ("closed source: lich logs, as quoted in public incident notes", true),
            ("Linux ENOSPC", false),
            ("MITRE ATT&CK T1053.003", false),
            ("cron 3.0pl1 (Debian)", false),
            (".c", false),
            ("", false),
        ] {
            rule.source = source.to_owned();
            assert_eq!(rule.source_can_be_read(), can_be_read, "{source}");
        }
    }

    #[test]
    fn the_files_of_this_tree_that_rules_name_are_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let set = RuleSet::builtin().unwrap();
        let ours = set.rules.iter().filter(|r| r.id.starts_with("holdfast."));
        for word in ours.flat_map(|r| r.source.split([' ', ',', ';'])).filter(|w| w.ends_with(".rs")) {
            assert!(root.join(word).is_file(), "{word}");
        }
    }

    #[test]
    fn a_title_takes_its_fields() {
        let fields = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        assert_eq!(fill("x {a} y {b} z", &fields), "x 1 y z");
    }
}
