//! The part of the evidence that was asked for: a time, a host. And what may be said of it when nothing in it failed.
//!
//! Promise: "no sign of an incident" is said only over log lines with times in that part; everything less is named as what it is.

use holdfast_evidence::zone::Offset;

use crate::analyse::{AnalyseError, Options};
use crate::facts::Fact;
use crate::scan::FileReport;
use crate::settle::Settled;
use crate::words::Said;

/// A time as a user gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// With a zone: UTC microseconds.
    Utc(i64),
    /// Without one: in the zone of the report.
    Local(i64),
}

/// What was asked for, as instants.
pub struct Window {
    /// Facts at or after this instant, UTC microseconds.
    pub since: Option<i64>,
    /// Facts before this one.
    pub until: Option<i64>,
    /// The host whose zone is that of the report.
    pub zone_of: String,
    host: Option<String>,
    /// First and last instant of the logs of that host, or of all.
    logs: Option<(i64, i64)>,
}

impl Window {
    /// Settles what the options mean for these files; a host that is not among them is an error.
    pub fn new(
        options: &Options,
        files: &[FileReport],
        settled: &Settled,
        facts: &[Fact],
    ) -> Result<Window, AnalyseError> {
        let host = options.host.clone();
        if let Some(name) = &host
            && !(settled.hosts.contains_key(name) && speaks(files, settled, facts, name))
        {
            let names = settled.hosts.keys().filter(|h| speaks(files, settled, facts, h));
            let names: Vec<&str> = names.map(String::as_str).collect();
            let hosts = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(AnalyseError::NoSuchHost { name: name.clone(), hosts });
        }
        let zone_of = host.clone().or_else(|| settled.file_host.first().cloned()).unwrap_or_default();
        let zone = settled.hosts.get(&zone_of).map_or(Offset::UTC, |h| h.zone);
        let instant = |when: Option<When>| {
            when.map(|w| match w {
                When::Utc(m) => m,
                When::Local(m) => m - zone.micros(),
            })
        };
        let mut logs: Option<(i64, i64)> = None;
        for (index, file) in files.iter().enumerate() {
            let owner = &settled.file_host[index];
            let named = |h: &String| file.hosts.keys().any(|n| settled.unique(&file.root, n) == h);
            let Some((first, last)) =
                file.span.filter(|_| host.as_ref().is_none_or(|h| h == owner || named(h)))
            else {
                continue;
            };
            for at in [first, last] {
                if let Some(at) = settled.instant(index, owner, at) {
                    let (a, b) = logs.unwrap_or((at, at));
                    logs = Some((a.min(at), b.max(at)));
                }
            }
        }
        Ok(Window { since: instant(options.since), until: instant(options.until), zone_of, host, logs })
    }

    /// Whether a fact lies in it.
    pub fn holds(&self, fact: &Fact) -> bool {
        let after = self.since.is_none_or(|s| fact.end.is_none_or(|e| e >= s));
        let before = self.until.is_none_or(|u| fact.start.is_none_or(|s| s < u));
        let host = self.host.as_ref().is_none_or(|h| fact.host == *h || fact.host == "cluster");
        after && before && host
    }

    /// Whether no log line lies in the time asked for.
    fn misses_logs(&self) -> bool {
        self.logs.is_some_and(|(first, last)| {
            self.since.is_some_and(|s| s > last) || self.until.is_some_and(|u| u <= first)
        })
    }

    /// A word on facts without a time, which are all that is left when no log line lies in the time asked for.
    pub fn without_logs(&self, shown: impl Fn(i64) -> String) -> Option<Said> {
        let (first, last) = self.logs.filter(|_| self.misses_logs())?;
        let (a, b) = (shown(first), shown(last));
        Some(Said::of(
            "no log line lies in the time asked for (the logs reach from {a} to {b}): what is left rests on files without times",
            &[("a", &a), ("b", &b)],
        ))
    }

    /// What may be said when no fact in it is an error: `facts` lie in it, of which `signs` are signs of trouble, `outside` do
    /// not, `unread` files were not read whole.
    pub fn quiet(
        &self,
        (facts, signs): (usize, usize),
        outside: usize,
        unread: u64,
        shown: impl Fn(i64) -> String,
    ) -> Said {
        let Some((first, last)) = self.logs else {
            return Said::of(
                "no line of this input has a time that can be read: nothing can be said about an incident",
                &[],
            );
        };
        if self.misses_logs() {
            let (a, b) = (shown(first), shown(last));
            return Said::of(
                "no log line lies in that time: the logs reach from {a} to {b}",
                &[("a", &a), ("b", &b)],
            );
        }
        if facts == 0 && outside > 0 {
            return Said::of("no fact in what was asked for; {n} lie outside it", &[("n", &outside)]);
        }
        if signs > 0 {
            return Said::of("signs of trouble, but no failure that this evidence shows", &[]);
        }
        if unread > 0 {
            return Said::of(
                "no sign of an incident in what could be read; {n} files could not, or not whole",
                &[("n", &unread)],
            );
        }
        Said::of("no sign of an incident in this evidence", &[])
    }
}

/// Whether anything speaks for a host: its own name file, a line with a time, a line that names it, or a fact. A folder of
/// configuration files is none.
pub fn speaks(files: &[FileReport], settled: &Settled, facts: &[Fact], host: &str) -> bool {
    let in_file = |(file, owner): (&FileReport, &String)| {
        owner == host && (file.span.is_some() || file.path.ends_with("etc/hostname"))
            || file.hosts.keys().any(|named| settled.unique(&file.root, named) == host)
    };
    facts.iter().any(|f| f.host == host) || files.iter().zip(&settled.file_host).any(in_file)
}
