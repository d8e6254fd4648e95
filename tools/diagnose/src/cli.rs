//! The commands `diagnose` and `collect`, to be mounted by the `holdfast` binary.
//!
//! Promise: exit 0 when a cause was found, 1 when nothing is conclusive, 2 when the input is unusable; a one-line error on
//! standard error; output that another program closes early is no error.

mod lab;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use holdfast_evidence::read::Progress;
use holdfast_evidence::stamp;

use crate::causes::Knowledge;
use crate::facts::fits;
use crate::model::Report;
use crate::report::{Lang, html, pdf, terminal};
use crate::rules::RuleSet;
use crate::{Options, analyse, collect};

const EXIT_CODES: &str = "Exit: 0 a cause was found, 1 nothing conclusive, 2 the input is unusable.\n\nExamples:\n  holdfast diagnose cas-logs.tar.gz\n  holdfast diagnose host1/ host2/ -o report.html\n  holdfast diagnose bundle --since '2016-01-07T18:00:00+08:00' --json | jq .causes\n  holdfast diagnose rules explain iscsi.refused\n  holdfast diagnose synth incident -o /tmp/incident";

/// The command `diagnose`.
pub fn diagnose_command() -> Command {
    Command::new("diagnose")
        .about("From a bundle of logs to the cause, with the evidence")
        .after_help(EXIT_CODES)
        .args_conflicts_with_subcommands(true)
        .arg(
            Arg::new("bundle")
                .value_name("BUNDLE")
                .num_args(0..)
                .value_parser(value_parser!(PathBuf))
                .help("Folders, archives (tar, gz, xz, zst, bz2, zip, nested) or single logs"),
        )
        .arg(Arg::new("live").long("live").action(ArgAction::SetTrue).help("Read this host"))
        .arg(
            Arg::new("since").long("since").value_name("TIME").help(
                "Only facts from this time on, such as 2016-01-07T18:00:00+08:00 (without a zone: UTC)",
            ),
        )
        .arg(Arg::new("until").long("until").value_name("TIME").help("Only facts before this time"))
        .arg(Arg::new("host").long("host").value_name("NAME").help("Only facts of this host"))
        .arg(
            Arg::new("lang")
                .long("lang")
                .value_parser(PossibleValuesParser::new(["en", "zh"]))
                .default_value("en")
                .help("Language of titles"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("The whole report as JSON"))
        .arg(Arg::new("brief").long("brief").action(ArgAction::SetTrue).help("The first screen only"))
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the report to FILE (.html, .pdf, .json or text)"),
        )
        .subcommand(rules_command())
        .subcommand(
            Command::new("synth")
                .about("Write a generated incident with a known cause")
                .arg(Arg::new("story").required(true).value_name("STORY").help("A story, or `ls`"))
                .arg(Arg::new("seed").long("seed").value_parser(value_parser!(u64)).default_value("1"))
                .arg(
                    Arg::new("hours")
                        .long("hours")
                        .value_parser(value_parser!(u32).range(1..=1000))
                        .default_value("8")
                        .help("Hours of ordinary life before the incident"),
                )
                .arg(
                    Arg::new("every")
                        .long("every")
                        .value_name("SECONDS")
                        .value_parser(value_parser!(u32).range(1..=3600))
                        .default_value("28")
                        .help("Mean time between two ordinary lines of a host"),
                )
                .arg(
                    Arg::new("folder")
                        .short('o')
                        .long("output")
                        .value_name("DIR")
                        .value_parser(value_parser!(PathBuf))
                        .help("Folder to write to"),
                ),
        )
        .subcommand(
            Command::new("score")
                .about("Score the analysis over generated incidents")
                .arg(
                    Arg::new("cases")
                        .long("cases")
                        .value_parser(value_parser!(u32))
                        .default_value("23")
                        .help("Cases per story; 0 for none"),
                )
                .arg(
                    Arg::new("real")
                        .long("real")
                        .value_name("DIR")
                        .value_parser(value_parser!(PathBuf))
                        .help("Score the published logs that DIR/index.toml names, too"),
                )
                .arg(Arg::new("seed").long("seed").value_parser(value_parser!(u64)).default_value("1000"))
                .arg(
                    Arg::new("remarks")
                        .long("remarks")
                        .value_parser(value_parser!(usize))
                        .default_value("0")
                        .help("Remarks per story"),
                ),
        )
}

fn rules_command() -> Command {
    Command::new("rules")
        .about("List, explain and check the rules")
        .subcommand_required(true)
        .subcommand(Command::new("ls").about("List all rules"))
        .subcommand(Command::new("explain").about("All about one rule").arg(Arg::new("id").required(true)))
        .subcommand(
            Command::new("lint").about(
                "Check all rules: their examples, their sources, and the names that causes and edges use",
            ),
        )
}

/// The command `collect`.
pub fn collect_command() -> Command {
    Command::new("collect")
        .about("Make a bundle of this host: bounded, without secrets")
        .after_help("Exit: 0 the bundle is made, 2 it is not.\n\nExamples:\n  holdfast collect -o /tmp/host.tar.gz\n  holdfast collect --dir ./one -o /tmp/one.tar.gz")
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .required(true)
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("The bundle to write (tar.gz); an existing file is not overwritten"),
        )
        .arg(
            Arg::new("root")
                .long("root")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .default_value("/")
                .help("Root of the tree to read"),
        )
        .arg(
            Arg::new("dir")
                .long("dir")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("The data folder of a node on this host, for its events [default: ROOT/var/lib/holdfast]"),
        )
}

/// A program of its own: `diagnose` with `collect` as a further subcommand.
pub fn main_with(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = diagnose_command().name("holdfast-diagnose").subcommand(collect_command());
    let matches = command.get_matches_from(args);
    match matches.subcommand() {
        Some(("collect", sub)) => run_collect(sub),
        _ => run_diagnose(&matches),
    }
}

const UNUSABLE: u8 = 2;

fn fail(message: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "holdfast: {message}");
    ExitCode::from(UNUSABLE)
}

fn print(text: &str) {
    // A closed pipe (`| head`) is the reader's choice.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Runs `collect`.
pub fn run_collect(matches: &ArgMatches) -> ExitCode {
    let (Some(out), Some(root)) = (matches.get_one::<PathBuf>("output"), matches.get_one::<PathBuf>("root"))
    else {
        return fail("collect needs -o FILE");
    };
    // Mounted in `holdfast`, its global --dir has a default, which is no word about the tree at --root.
    let said = matches.value_source("dir").is_some_and(|source| source != ValueSource::DefaultValue);
    let data = matches.get_one::<PathBuf>("dir").filter(|_| said).map(PathBuf::as_path);
    for (option, folder, next) in [
        ("--root", Some(root.as_path()), "it is the root of the tree to read"),
        ("--dir", data, "it is the folder that `holdfast node run --dir` got"),
    ] {
        // What was asked for and is not there would be missed only when the bundle is read.
        if let Some(folder) = folder
            && let Err(e) = std::fs::read_dir(folder)
        {
            return fail(&format!("cannot read {option} {}: {e}; {next}", folder.display()));
        }
    }
    match collect::collect(root, data, out) {
        Ok(done) => {
            print(&format!(
                "{}: {} files, {} bytes before compression\n",
                out.display(),
                done.taken,
                done.bytes
            ));
            for line in &done.left_out {
                print(&format!("left out: {line}\n"));
            }
            ExitCode::SUCCESS
        }
        Err(e) => fail(&format!("cannot write {}: {e}", out.display())),
    }
}

/// Runs `diagnose` and its subcommands.
pub fn run_diagnose(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("rules", sub)) => run_rules(sub),
        Some(("synth", sub)) => lab::run_synth(sub),
        Some(("score", sub)) => lab::run_score(sub),
        _ => run_analysis(matches),
    }
}

fn time_argument(matches: &ArgMatches, name: &str) -> Result<Option<i64>, String> {
    let Some(text) = matches.get_one::<String>(name) else { return Ok(None) };
    let mut padded = text.clone();
    if padded.len() == 10 {
        padded.push_str("T00:00:00");
    } else if padded.len() == 16 {
        padded.push_str(":00");
    }
    let (stamp, _) = stamp::iso(padded.as_bytes())
        .ok_or_else(|| format!("--{name} {text}: not a time such as 2016-01-07T18:00:00+08:00"))?;
    Ok(Some(stamp.civil.to_micros() - stamp.offset.map_or(0, |o| o.micros())))
}

fn run_analysis(matches: &ArgMatches) -> ExitCode {
    let mut bundles: Vec<PathBuf> =
        matches.get_many::<PathBuf>("bundle").map(|b| b.cloned().collect()).unwrap_or_default();
    let live = match matches.get_flag("live").then(Live::new).transpose() {
        Ok(live) => live,
        Err(e) => return fail(&e),
    };
    if let Some(live) = &live {
        bundles.push(live.folder.join(Live::BUNDLE));
    }
    if bundles.is_empty() {
        return fail("give a bundle (a folder, an archive or a log), or --live; see --help");
    }
    analyse_and_print(matches, &bundles)
}

/// A bundle of this host in a folder that only this user may read, and that goes with this value.
struct Live {
    folder: PathBuf,
}

impl Live {
    const BUNDLE: &str = "live.tar.gz";

    fn new() -> Result<Live, String> {
        use std::os::unix::fs::DirBuilderExt;
        let failed = |e: std::io::Error| format!("cannot read this host: {e}");
        let folder = std::env::temp_dir().join(format!("holdfast-live-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(failed)?;
        let live = Live { folder };
        let done = collect::collect(Path::new("/"), None, &live.folder.join(Live::BUNDLE)).map_err(failed)?;
        if let Some(first) = done.left_out.first() {
            let _ = writeln!(
                std::io::stderr(),
                "holdfast: {} things of this host were left out or cut, which the report names; the first: {first}",
                done.left_out.len()
            );
        }
        Ok(live)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.folder) {
            let _ = writeln!(std::io::stderr(), "holdfast: cannot remove {}: {e}", self.folder.display());
        }
    }
}

fn analyse_and_print(matches: &ArgMatches, bundles: &[PathBuf]) -> ExitCode {
    let (since, until) = match (time_argument(matches, "since"), time_argument(matches, "until")) {
        (Ok(s), Ok(u)) => (s, u),
        (Err(e), _) | (_, Err(e)) => return fail(&e),
    };
    let options =
        Options { since, until, host: matches.get_one::<String>("host").cloned(), ..Options::default() };
    let lang = if matches.get_one::<String>("lang").is_some_and(|l| l == "zh") { Lang::Zh } else { Lang::En };
    let report = match with_progress(|progress| analyse(bundles, &options, progress)) {
        Ok(report) => report,
        Err(e) => return fail(&e.to_string()),
    };
    if let Err(e) = output(matches, &report, lang) {
        return fail(&e);
    }
    ExitCode::from(u8::from(report.causes.is_empty()))
}

fn output(matches: &ArgMatches, report: &Report, lang: Lang) -> Result<(), String> {
    let json = || serde_json::to_string_pretty(report).map(|t| t + "\n").map_err(|e| e.to_string());
    if let Some(path) = matches.get_one::<PathBuf>("output") {
        let bytes = match path.extension().and_then(|e| e.to_str()) {
            Some("html" | "htm") => html::render(report, lang).map_err(|e| e.to_string())?.into_bytes(),
            Some("pdf") => pdf::render(report, lang),
            Some("json") => json()?.into_bytes(),
            _ => terminal::render(report, lang, true).into_bytes(),
        };
        std::fs::write(path, bytes).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        print(&terminal::render(report, lang, false));
        print(&format!("\nreport: {}\n", path.display()));
    } else if matches.get_flag("json") {
        print(&json()?);
    } else {
        print(&terminal::render(report, lang, !matches.get_flag("brief")));
    }
    Ok(())
}

/// Shows a bar on a terminal while work lasts longer than a moment.
fn with_progress<T>(work: impl FnOnce(&Progress) -> T) -> T {
    let progress = Progress::default();
    if !std::io::stderr().is_terminal() {
        return work(&progress);
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let bar = indicatif::ProgressBar::new(0);
            while !done.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(150));
                bar.set_length(progress.total.load(Ordering::Relaxed));
                bar.set_position(progress.done.load(Ordering::Relaxed));
            }
            bar.finish_and_clear();
        });
        let result = work(&progress);
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn run_rules(matches: &ArgMatches) -> ExitCode {
    let (rules, knowledge) = match (RuleSet::builtin(), Knowledge::builtin()) {
        (Ok(r), Ok(k)) => (r, k),
        (Err(e), _) | (_, Err(e)) => return fail(&e.to_string()),
    };
    match matches.subcommand() {
        Some(("ls", _)) => {
            for rule in &rules.rules {
                print(&format!(
                    "{:<28} {:<9} {}\n",
                    rule.id,
                    format!("{:?}", rule.severity).to_lowercase(),
                    rule.title
                ));
            }
            for (id, title) in COMPUTED {
                print(&format!("{id:<28} computed  {title}\n"));
            }
            ExitCode::SUCCESS
        }
        Some(("explain", sub)) => explain(&rules, sub.get_one::<String>("id").map_or("", String::as_str)),
        _ => lint(&rules, &knowledge),
    }
}

/// Facts that are computed in code.
const COMPUTED: [(&str, &str); 15] = [
    ("host.reset", "a boot without an orderly shutdown before it"),
    ("host.rebooted", "a boot after an orderly shutdown"),
    ("hosts.reset-together", "several hosts stopped within three minutes"),
    ("host.boot-loop", "three unclean boots within 30 minutes"),
    ("host.silent", "no line in any log for an unusual time"),
    ("clock.step-kernel", "the wall clock moved against the kernel's own count"),
    ("config.nul-run", "NUL bytes in a configuration file"),
    ("log.nul-run", "NUL bytes in a log"),
    ("config.crontab-broken", "a crontab that Debian's cron refuses whole"),
    ("config.quorum-below-majority", "fewer copies than a majority are accepted"),
    ("config.single-local-portal", "the shared disk hangs on one local portal"),
    ("storage.port-closed", "how long the storage port was closed"),
    ("log.none", "never present: marks evidence that is always worth having"),
    ("boot.*", "boots and shutdowns"),
    ("net.*", "network facts"),
];

fn explain(rules: &RuleSet, id: &str) -> ExitCode {
    if let Some(index) = rules.index(id) {
        let r = &rules.rules[index];
        print(&format!(
            "{}\n  {}\n  {}\n  severity {:?}, role {:?}\n  {} {}\n  {} {}\n  source     {}\n  refuted by {}\n  example    {}\n",
            r.id,
            r.title,
            r.title_zh,
            r.severity,
            r.role,
            if r.path.is_some() { "path      " } else { "pattern   " },
            r.path.as_ref().unwrap_or(&r.pattern),
            if r.path.is_some() { "holds     " } else { "literals  " },
            if r.path.is_some() { &r.holds } else { &r.literals }.join(" | "),
            r.source,
            r.refuted_by,
            r.example
        ));
        return ExitCode::SUCCESS;
    }
    match COMPUTED.iter().find(|(c, _)| *c == id) {
        Some((id, title)) => {
            print(&format!("{id}\n  {title}\n  computed from other facts\n"));
            ExitCode::SUCCESS
        }
        None => fail(&format!("no rule {id}; `rules ls` lists them")),
    }
}

/// Names that the knowledge uses but nothing can produce, rules that miss their example, sources that nobody can look up.
pub fn lint_findings(rules: &RuleSet, knowledge: &Knowledge) -> Vec<String> {
    let mut out = Vec::new();
    for (index, rule) in rules.rules.iter().enumerate() {
        if rule.path.is_none() && rules.matches(index, rule.example.as_bytes()).is_none() {
            out.push(format!("{} misses its example", rule.id));
        }
        if rule.path.is_some() && rules.file_matches(&rule.example, rule.example_text.as_bytes()).is_empty() {
            out.push(format!("{} misses its example, or decides by a name alone", rule.id));
        }
        if !rule.source_can_be_read() {
            out.push(format!("the source of {} names no file and no address: {}", rule.id, rule.source));
        }
    }
    for pattern in knowledge.patterns() {
        let known = rules.rules.iter().any(|r| fits(pattern, &r.id))
            || COMPUTED.iter().any(|(id, _)| fits(pattern, id));
        if !known {
            out.push(format!("{pattern} is named by a cause or edge but nothing finds it"));
        }
    }
    out
}

fn lint(rules: &RuleSet, knowledge: &Knowledge) -> ExitCode {
    let findings = lint_findings(rules, knowledge);
    for finding in &findings {
        print(&format!("{finding}\n"));
    }
    print(&format!(
        "{} rules, {} causes, {} findings\n",
        rules.rules.len(),
        knowledge.causes.len(),
        findings.len()
    ));
    if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use holdfast_evidence::civil::MICROS;

    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        diagnose_command().debug_assert();
        collect_command().debug_assert();
    }

    #[test]
    fn every_name_in_causes_and_edges_can_be_found_by_something() {
        let findings = lint_findings(&RuleSet::builtin().unwrap(), &Knowledge::builtin().unwrap());
        assert_eq!(findings, Vec::<String>::new());
    }

    #[test]
    fn times_on_the_command_line_are_read_with_and_without_zone() {
        let matches = diagnose_command().get_matches_from([
            "diagnose",
            "x",
            "--since",
            "2016-01-07T18:13:11+08:00",
            "--until",
            "2016-01-07",
        ]);
        assert_eq!(time_argument(&matches, "since"), Ok(Some(1_452_161_591 * MICROS)));
        assert_eq!(time_argument(&matches, "until"), Ok(Some(1_452_124_800 * MICROS)));
        let bad = diagnose_command().get_matches_from(["diagnose", "x", "--since", "yesterday"]);
        assert!(time_argument(&bad, "since").is_err());
    }
}
