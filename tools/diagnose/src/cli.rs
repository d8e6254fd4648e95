//! The commands `diagnose` and `collect`, to be mounted by the `holdfast` binary.
//!
//! Promise: exit 0 when a cause was found, 1 when nothing is conclusive, 2 when the input is unusable; a one-line error on
//! standard error; output that another program closes early is no error.

mod lab;
mod rules;

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
use indicatif::ProgressStyle;

use crate::model::Report;
use crate::report::{Lang, chinese, html, pdf, terminal};
use crate::window::When;
use crate::{Options, analyse, collect};

pub use rules::lint_findings;

const EXIT_CODES: &str = "Exit: 0 a cause was found, 1 nothing conclusive, 2 the input is unusable.\n\nOn a terminal: the first screen, unless --details is given. In a pipe or a file: all of it, unless --brief is given.\nTimes are those of each host's own zone and name it; a time given without a zone is taken in the zone of the report.\nWith --lang zh the lines themselves, how hosts, years and clocks were settled, the remarks on\nreading, and --json stay English.\n\nExamples:\n  holdfast diagnose cas-logs.tar.gz\n  holdfast diagnose host1/ host2/ -o report.html\n  holdfast diagnose bundle --since '2016-01-07T18:00:00+08:00' --json | jq .causes\n  holdfast diagnose rules explain iscsi.refused\n  holdfast diagnose synth incident -o /tmp/incident";

/// Options of the commands that ask a node, which `holdfast` gives to every command: here they would do nothing, so they are
/// not shown and are refused.
const NODE_OPTIONS: [(&str, &str); 3] = [("dir", "dir"), ("node", "node"), ("token_file", "token-file")];

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
                "Only facts from this time on, such as 2016-01-07T18:00:00+08:00",
            ),
        )
        .arg(Arg::new("until").long("until").value_name("TIME").help("Only facts before this time"))
        .arg(Arg::new("host").long("host").value_name("NAME").help("Only facts of this host"))
        .arg(
            Arg::new("lang")
                .long("lang")
                .value_parser(PossibleValuesParser::new(["en", "zh"]))
                .default_value("en")
                .help("Language of headline, titles and headings"),
        )
        .arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("The whole report as JSON"))
        .arg(Arg::new("brief").long("brief").action(ArgAction::SetTrue).help("The first screen only"))
        .arg(
            Arg::new("details")
                .long("details")
                .action(ArgAction::SetTrue)
                .conflicts_with("brief")
                .help("The details after the first screen, on a terminal too"),
        )
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write the report to FILE (.html, .pdf, .json or text)"),
        )
        .args(NODE_OPTIONS.map(|(id, long)| Arg::new(id).long(long).hide(true)))
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
                .after_help("Exit: 0, or 1 when generated cases miss the target: a right first cause in 95 % of them, and none named where none is carried.")
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
        .subcommand(Command::new("ls").about("List all rules, computed facts and causes"))
        .subcommand(
            Command::new("explain")
                .about("All about one rule, computed fact or cause")
                .arg(Arg::new("id").required(true)),
        )
        .subcommand(
            Command::new("lint").about(
                "Check all rules: their examples, their sources, and the names that causes and edges use",
            ),
        )
}

/// The command `collect`; its `--dir` is one of its own.
pub fn collect_command() -> Command {
    Command::new("collect")
        .args(NODE_OPTIONS[1..].iter().map(|(id, long)| Arg::new(*id).long(*long).hide(true)))
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

fn refuse_node_options(matches: &ArgMatches, options: &[(&str, &str)]) -> Result<(), String> {
    match options.iter().find(|(id, _)| matches.value_source(id) == Some(ValueSource::CommandLine)) {
        Some((_, long)) => {
            Err(format!("--{long} is for commands that ask a node; this one reads logs and asks none"))
        }
        None => Ok(()),
    }
}

/// Runs `collect`.
pub fn run_collect(matches: &ArgMatches) -> ExitCode {
    if let Err(e) = refuse_node_options(matches, &NODE_OPTIONS[1..]) {
        return fail(&e);
    }
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
            for (word, lines) in [("not read", &done.refused), ("left out", &done.left_out)] {
                lines.iter().for_each(|line| print(&format!("{word}: {line}\n")));
            }
            ExitCode::SUCCESS
        }
        Err(e) => fail(&format!("cannot write {}: {e}", out.display())),
    }
}

/// Runs `diagnose` and its subcommands.
pub fn run_diagnose(matches: &ArgMatches) -> ExitCode {
    match matches.subcommand() {
        Some(("rules", sub)) => rules::run(sub),
        Some(("synth", sub)) => lab::run_synth(sub),
        Some(("score", sub)) => lab::run_score(sub),
        _ => run_analysis(matches),
    }
}

fn time_argument(matches: &ArgMatches, name: &str) -> Result<Option<When>, String> {
    let Some(text) = matches.get_one::<String>(name) else { return Ok(None) };
    let mut padded = text.clone();
    if padded.len() == 10 {
        padded.push_str("T00:00:00");
    } else if padded.len() == 16 {
        padded.push_str(":00");
    }
    let (stamp, _) = stamp::iso(padded.as_bytes())
        .ok_or_else(|| format!("--{name} {text}: not a time such as 2016-01-07T18:00:00+08:00"))?;
    let micros = stamp.civil.to_micros();
    Ok(Some(stamp.offset.map_or(When::Local(micros), |o| When::Utc(micros - o.micros()))))
}

fn run_analysis(matches: &ArgMatches) -> ExitCode {
    if let Err(e) = refuse_node_options(matches, &NODE_OPTIONS) {
        return fail(&e);
    }
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
        if let Some(first) = done.refused.iter().chain(&done.left_out).next() {
            let _ = writeln!(
                std::io::stderr(),
                "holdfast: {} things of this host could not be read or were left out, which the report names; the first: {first}",
                done.lacks()
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
    let mut report = std::borrow::Cow::Borrowed(report);
    if lang == Lang::Zh {
        chinese::speak(report.to_mut());
    }
    let report = &*report;
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
        // On a terminal the first screen would scroll away; a pipe or a file is searched, and gets everything.
        let first_only = std::io::stdout().is_terminal() && !matches.get_flag("details");
        print(&terminal::render(report, lang, !matches.get_flag("brief") && !first_only));
        if first_only {
            print(lang.pick(
                "\nevery fact with its lines: --details, or -o report.html\n",
                "\n全部事实及其日志行：--details 或 -o report.html\n",
            ));
        }
    }
    Ok(())
}

/// Shows on a terminal how much was read and how long the rest takes, while work lasts longer than a moment.
fn with_progress<T>(work: impl FnOnce(&Progress) -> T) -> T {
    let progress = Progress::default();
    if !std::io::stderr().is_terminal() {
        return work(&progress);
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let shown = scope.spawn(|| {
            let bar = indicatif::ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{wide_bar} {bytes} of {total_bytes}, {eta} left")
            {
                bar.set_style(style);
            }
            loop {
                std::thread::park_timeout(Duration::from_millis(150));
                if done.load(Ordering::Relaxed) {
                    break;
                }
                let total = progress.total.load(Ordering::Relaxed);
                if total > 0 {
                    bar.set_length(total);
                    bar.set_position(progress.done.load(Ordering::Relaxed));
                }
            }
            bar.finish_and_clear();
        });
        let result = work(&progress);
        done.store(true, Ordering::Relaxed);
        shown.thread().unpark();
        result
    })
}

#[cfg(test)]
mod tests {
    use holdfast_evidence::civil::MICROS;

    use super::*;
    use crate::knowledge::Knowledge;
    use crate::rules::RuleSet;

    #[test]
    fn the_commands_are_well_formed() {
        diagnose_command().debug_assert();
        collect_command().debug_assert();
    }

    #[test]
    fn options_of_commands_that_ask_a_node_are_neither_shown_nor_taken() {
        // As `holdfast` mounts them, with options of its own for every command.
        let global = |id: &'static str, long: &'static str| Arg::new(id).long(long).global(true);
        let mut holdfast = Command::new("holdfast")
            .args(NODE_OPTIONS.map(|(id, long)| global(id, long)))
            .subcommands([diagnose_command(), collect_command()]);
        for (path, shown) in
            [(&["diagnose"][..], &[][..]), (&["diagnose", "rules"], &[]), (&["collect"], &["--dir"])]
        {
            let args = ["holdfast"].iter().chain(path).chain(&["--help"]);
            let help = holdfast.try_get_matches_from_mut(args).unwrap_err().to_string();
            for (_, long) in NODE_OPTIONS {
                let option = format!("--{long}");
                assert_eq!(
                    help.contains(&option),
                    shown.contains(&option.as_str()),
                    "{path:?} {option}: {help}"
                );
            }
        }
        for args in
            [["holdfast", "diagnose", "x", "--node", "a"], ["holdfast", "--node", "a", "diagnose", "x"]]
        {
            let matches = holdfast.clone().get_matches_from(args);
            let sub = matches.subcommand_matches("diagnose").unwrap();
            assert!(refuse_node_options(sub, &NODE_OPTIONS).is_err_and(|e| e.contains("--node")), "{args:?}");
        }
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
        assert_eq!(time_argument(&matches, "since"), Ok(Some(When::Utc(1_452_161_591 * MICROS))));
        assert_eq!(time_argument(&matches, "until"), Ok(Some(When::Local(1_452_124_800 * MICROS))));
        let bad = diagnose_command().get_matches_from(["diagnose", "x", "--since", "yesterday"]);
        assert!(time_argument(&bad, "since").is_err());
    }
}
