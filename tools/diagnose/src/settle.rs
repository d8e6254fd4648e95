//! Which host a file belongs to, and what its times mean: years, zones, kernel seconds, clocks.
//!
//! Promise: every inference carries its evidence in words; what was assumed is called assumed. Nothing is ordered more finely
//! than [`Host::uncertainty`] allows.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_evidence::Civil;
use holdfast_evidence::civil::{DAY_SECONDS, MICROS, days_from_civil};
use holdfast_evidence::place::{host_from_path, rotation};
use holdfast_evidence::zone::{Offset, from_name};

use crate::scan::{At, FileReport, Line};

/// A host of the bundle.
#[derive(Debug, Clone)]
pub struct Host {
    /// Name, made unique.
    pub name: String,
    /// Offset of its local time.
    pub zone: Offset,
    /// How the zone is known.
    pub zone_evidence: String,
    /// The line that fixes the zone, if one does.
    pub zone_line: Option<Line>,
    /// How the year is known; empty when its logs write it.
    pub year_evidence: BTreeSet<String>,
    /// Microseconds to take from its times to get the reference host's.
    pub clock_offset: i64,
    /// How well its clock is known against the others, in microseconds.
    pub uncertainty: i64,
    /// How the clock was fitted.
    pub clock_evidence: String,
}

/// Which host each file belongs to, and how its times become instants.
#[derive(Debug, Default)]
pub struct Settled {
    /// Hosts by name.
    pub hosts: BTreeMap<String, Host>,
    /// For each file, the host that speaks where a line names none.
    pub file_host: Vec<String>,
    /// For each file, the year of its nominal first year.
    year: Vec<i32>,
    /// For each file, wall-clock base of kernel seconds in UTC microseconds, by boot number.
    kernel_base: Vec<BTreeMap<u32, i64>>,
    /// Names that stood for two machines.
    pub twins: Vec<String>,
    /// (root, line's host) to unique name.
    alias: BTreeMap<(String, String), String>,
}

/// Where a bundle of `holdfast collect` has the data folder of a node, wherever it lay on the machine.
const NODE_DATA: &str = "var/lib/holdfast/";
const UNKNOWN_HOST: &str = "unknown-host";

impl Settled {
    /// Settles hosts, years, zones and kernel bases of all files.
    pub fn new(files: &[FileReport]) -> Settled {
        let mut out = Settled::default();
        out.find_hosts(files);
        out.find_zones(files);
        out.find_years(files);
        out.find_kernel_bases(files);
        out
    }

    /// The unique name of the host that a line of a file names.
    pub fn host_of(&self, files: &[FileReport], file: usize, named: &str) -> String {
        if named.is_empty() {
            return self.file_host[file].clone();
        }
        self.unique(&files[file].root, named).to_owned()
    }

    /// The unique name of a host as the lines below a root call it.
    pub fn unique<'a>(&'a self, root: &str, named: &'a str) -> &'a str {
        self.alias.get(&(root.to_owned(), named.to_owned())).map_or(named, String::as_str)
    }

    /// The instant of a time of a file, UTC microseconds on the reference clock.
    pub fn instant(&self, file: usize, host: &str, at: At) -> Option<i64> {
        let zone = self.hosts.get(host).map_or(Offset::UTC, |h| h.zone);
        let raw = match at {
            At::Utc(m) => m,
            At::Local(m) => m - zone.micros(),
            At::Yearless(m) => nominal_to_micros(m, self.year[file])? - zone.micros(),
            At::Uptime(m, boot) => self.kernel_base[file].get(&boot)? + m,
            At::None => return None,
        };
        Some(raw - self.hosts.get(host).map_or(0, |h| h.clock_offset))
    }

    fn find_hosts(&mut self, files: &[FileReport]) {
        // A root's own name: what most of its lines say, else its path.
        let mut votes: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
        for file in files {
            for (host, count) in &file.hosts {
                *votes.entry(&file.root).or_default().entry(host).or_default() += count;
            }
        }
        let mut by_name: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut root_name: BTreeMap<&str, String> = BTreeMap::new();
        for file in files {
            let named = votes
                .get(file.root.as_str())
                .and_then(|v| v.iter().max_by_key(|(_, n)| **n))
                .map(|(h, _)| (*h).to_owned());
            let content = file.content.as_deref().filter(|_| file.path.ends_with("etc/hostname"));
            let own = content
                .map(|c| String::from_utf8_lossy(c).trim().to_owned())
                .filter(|n| !n.is_empty() && n.len() < 64);
            let name = own
                .or(named)
                .or_else(|| host_from_path(&file.path))
                .unwrap_or_else(|| UNKNOWN_HOST.to_owned());
            let entry = root_name.entry(&file.root).or_insert_with(|| name.clone());
            if content.is_some() {
                *entry = name;
            }
        }
        for (root, name) in &root_name {
            by_name.entry(name.clone()).or_default().insert((*root).to_owned());
        }
        let mut nodes: BTreeMap<&str, String> = BTreeMap::new();
        for (name, roots) in by_name.iter().filter(|(_, roots)| roots.len() > 1) {
            if are_one_machine(files, roots) {
                let of = files.iter().filter(|f| roots.contains(&f.root));
                nodes.extend(of.filter_map(|f| Some((f.root.as_str(), format!("{name}/node{}", f.node?)))));
            } else if are_twins(files, roots) {
                self.twins.push(name.clone());
                for root in roots {
                    let label = format!("{name}@{}", root.trim_end_matches('/'));
                    self.alias.insert((root.clone(), name.clone()), label);
                }
            }
        }
        for file in files {
            let name = &root_name[file.root.as_str()];
            let below = &file.path[file.root.len().min(file.path.len())..];
            let node = nodes.get(file.root.as_str()).filter(|_| below.starts_with(NODE_DATA));
            let unique = node
                .or_else(|| self.alias.get(&(file.root.clone(), name.clone())))
                .cloned()
                .unwrap_or_else(|| name.clone());
            self.file_host.push(unique.clone());
            self.hosts.entry(unique).or_insert_with_key(|n| new_host(n));
            for named in file.hosts.keys() {
                let key = (file.root.clone(), named.clone());
                let unique = self.alias.get(&key).cloned().unwrap_or_else(|| named.clone());
                self.hosts.entry(unique).or_insert_with_key(|n| new_host(n));
            }
        }
        if self.hosts.len() > 1
            && files.iter().all(|f| root_name[f.root.as_str()] != UNKNOWN_HOST || f.hosts.is_empty())
        {
            let only_unknown = self.file_host.iter().all(|h| h != UNKNOWN_HOST);
            if only_unknown {
                self.hosts.remove(UNKNOWN_HOST);
            }
        }
    }

    fn find_zones(&mut self, files: &[FileReport]) {
        let mut found: BTreeMap<String, (Offset, String, Option<Line>)> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            let host = self.file_host[index].clone();
            if let Some((zone, (count, line))) = file.zone_votes.iter().max_by_key(|(_, (n, _))| *n) {
                let words = format!("{count} lines of {} write it or both times", file.path);
                found.insert(host.clone(), (Offset(*zone), words, Some(line.clone())));
            } else if file.path.ends_with("etc/timezone")
                && let Some(content) = &file.content
            {
                let name = String::from_utf8_lossy(content).trim().to_owned();
                let when = file.mtime.unwrap_or(0);
                if let Some(zone) = from_name(&name, when) {
                    found.entry(host).or_insert((zone, format!("{} says {name}", file.path), None));
                }
            }
        }
        let common: BTreeSet<Offset> = found.values().map(|(z, _, _)| *z).collect();
        for (name, host) in &mut self.hosts {
            if let Some((zone, words, line)) = found.get(name) {
                (host.zone, host.zone_evidence, host.zone_line) = (*zone, words.clone(), line.clone());
            } else if common.len() == 1
                && let Some(zone) = common.first()
            {
                host.zone = *zone;
                host.zone_evidence = "assumed: the same as the other hosts of the bundle".to_owned();
            } else {
                host.zone_evidence = "assumed: nothing in the bundle fixes it".to_owned();
            }
        }
    }

    fn find_years(&mut self, files: &[FileReport]) {
        self.year = vec![2000; files.len()];
        // The latest explicit time of each root and of the bundle.
        let mut explicit: BTreeMap<&str, (i64, &str)> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            let zone = self.hosts.get(&self.file_host[index]).map_or(Offset::UTC, |h| h.zone);
            let last = match file.span {
                Some((_, At::Utc(m))) => m + zone.micros(),
                Some((_, At::Local(m))) => m,
                _ => continue,
            };
            for key in [file.root.as_str(), "\u{0}"] {
                let entry = explicit.entry(key).or_insert((last, &file.path));
                if last > entry.0 {
                    *entry = (last, &file.path);
                }
            }
        }
        let mut series: BTreeMap<String, Vec<(u64, usize)>> = BTreeMap::new();
        for (index, file) in files.iter().enumerate() {
            if matches!(file.span, Some((At::Yearless(_), _))) {
                let (name, age) = rotation(&file.path);
                series.entry(name).or_default().push((age, index));
            }
        }
        for members in series.values_mut() {
            members.sort();
            let mut ceiling: Option<i64> = None;
            for (_, index) in members.iter() {
                let file = &files[*index];
                let Some((At::Yearless(first), last)) = file.span else { continue };
                let last = last.micros().max(first);
                let explicit_end = explicit.get(file.root.as_str()).or_else(|| explicit.get("\u{0}"));
                let (limit, words) = match (ceiling, explicit_end, file.mtime) {
                    (Some(limit), _, _) => (limit, String::new()),
                    (None, Some((end, path)), _) => {
                        (end + 45 * DAY_SECONDS * MICROS, format!("from {path}, which writes the year"))
                    }
                    (None, None, Some(mtime)) => (
                        mtime * MICROS + 2 * DAY_SECONDS * MICROS,
                        format!("assumed from the modification time of {}", file.path),
                    ),
                    (None, None, None) => (i64::MAX, "assumed: nothing fixes it".to_owned()),
                };
                let year = latest_year(last, limit);
                self.year[*index] = year;
                if !words.is_empty()
                    && let Some(host) = self.hosts.get_mut(&self.file_host[*index])
                {
                    let shown = nominal_to_micros(last, year).map_or(year, |m| Civil::from_micros(m).year);
                    host.year_evidence.insert(format!("{shown} {words}"));
                }
                ceiling = nominal_to_micros(first, year).map(|m| m + 2 * DAY_SECONDS * MICROS);
            }
        }
    }

    fn find_kernel_bases(&mut self, files: &[FileReport]) {
        let mut bases: BTreeMap<String, BTreeSet<i64>> = BTreeMap::new();
        self.kernel_base = vec![BTreeMap::new(); files.len()];
        for (index, file) in files.iter().enumerate() {
            let host = self.file_host[index].clone();
            for (at, uptime) in &file.uptimes {
                if let Some(wall) = self.instant(index, &host, *at) {
                    bases.entry(host.clone()).or_default().insert(wall - uptime);
                }
            }
        }
        for (index, file) in files.iter().enumerate() {
            let Some((_, At::Uptime(end, last_boot))) = file.span else { continue };
            let host = &self.file_host[index];
            let zone = self.hosts.get(host).map_or(Offset::UTC, |h| h.zone);
            if let Some(crash) = crash_folder_time(&file.path) {
                self.kernel_base[index].insert(last_boot, crash - zone.micros() - end);
            } else if let Some(known) = bases.get(host) {
                let mut newest = known.iter().rev();
                for boot in (0..=last_boot).rev() {
                    if let Some(base) = newest.next() {
                        self.kernel_base[index].insert(boot, *base);
                    }
                }
            }
        }
    }
}

pub(crate) fn new_host(name: &str) -> Host {
    Host {
        name: name.to_owned(),
        zone: Offset::UTC,
        zone_evidence: String::new(),
        zone_line: None,
        year_evidence: BTreeSet::new(),
        clock_offset: 0,
        uncertainty: 2 * MICROS,
        clock_evidence: "not fitted: no event that two hosts saw".to_owned(),
    }
}

/// Whether roots with one name are one machine, of which several bundles were made: they have its id.
fn are_one_machine(files: &[FileReport], roots: &BTreeSet<String>) -> bool {
    let id = |root: &String| {
        let file = files.iter().find(|f| f.root == *root && f.path.ends_with("etc/machine-id"))?;
        file.content.as_deref().map(<[u8]>::trim_ascii).filter(|id| !id.is_empty())
    };
    let mut ids = roots.iter().map(id);
    let first = ids.next().flatten();
    first.is_some() && ids.all(|id| id == first)
}

/// Two roots with one name are two machines when both hold the same log over the same time with different content.
fn are_twins(files: &[FileReport], roots: &BTreeSet<String>) -> bool {
    let mut seen: BTreeMap<&str, Vec<&FileReport>> = BTreeMap::new();
    for file in files.iter().filter(|f| roots.contains(&f.root) && f.span.is_some()) {
        seen.entry(&file.path[file.root.len().min(file.path.len())..]).or_default().push(file);
    }
    seen.values().any(|same| {
        same.iter().enumerate().any(|(i, a)| {
            same[i + 1..].iter().any(|b| {
                let (Some((a0, a1)), Some((b0, b1))) = (a.span, b.span) else { return false };
                a.root != b.root && a.fingerprint != b.fingerprint && a0 <= b1 && b0 <= a1
            })
        })
    })
}

/// A nominal time of a file without years, with the file's first year put in.
fn nominal_to_micros(nominal: i64, first_year: i32) -> Option<i64> {
    let year_len = 366 * DAY_SECONDS * MICROS;
    let wraps = nominal.div_euclid(year_len) as i32;
    let base =
        Civil::from_micros(nominal.rem_euclid(year_len) + days_from_civil(2000, 1, 1) * DAY_SECONDS * MICROS);
    let civil = Civil { year: first_year + wraps, ..base };
    // 29 February in a year that has none can only be a wrong year; the day after is the least wrong instant.
    let civil = if civil.is_valid() { civil } else { Civil { month: 3, day: 1, ..civil } };
    civil.is_valid().then(|| civil.to_micros())
}

/// The latest first year that puts `last` at or before `limit`.
fn latest_year(last: i64, limit: i64) -> i32 {
    let top = if limit == i64::MAX { 2000 } else { Civil::from_micros(limit).year.clamp(1971, 9998) };
    for year in (top - 3..=top).rev() {
        if nominal_to_micros(last, year).is_some_and(|m| m <= limit) {
            return year;
        }
    }
    top
}

/// The time in a folder such as `/var/crash/201601071820/` or `127.0.0.1-2016-01-07-18:20:11/`.
fn crash_folder_time(path: &str) -> Option<i64> {
    for part in path.split('/') {
        let digits: String =
            part.strip_prefix("127.0.0.1-").unwrap_or(part).chars().filter(char::is_ascii_digit).collect();
        if !(digits.len() == 12 || digits.len() == 14) || !path.contains("crash") {
            continue;
        }
        let get = |from: usize, to: usize| digits.get(from..to).and_then(|t| t.parse::<u32>().ok());
        let civil = Civil {
            year: get(0, 4)? as i32,
            month: get(4, 6)? as u8,
            day: get(6, 8)? as u8,
            hour: get(8, 10)? as u8,
            minute: get(10, 12)? as u8,
            second: get(12, 14).unwrap_or(0) as u8,
            micro: 0,
        };
        return civil.is_valid().then(|| civil.to_micros());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_year_is_the_latest_that_is_not_in_the_future() {
        let december = (360 * DAY_SECONDS) * MICROS;
        let limit =
            Civil { year: 2016, month: 1, day: 7, hour: 0, minute: 0, second: 0, micro: 0 }.to_micros();
        assert_eq!(latest_year(december, limit), 2015);
        assert_eq!(latest_year(DAY_SECONDS * MICROS, limit), 2016);
    }

    #[test]
    fn a_crash_folder_names_the_end_of_its_boot() {
        assert!(crash_folder_time("h/var/crash/201601071820/vmcore-dmesg.txt").is_some());
        assert!(crash_folder_time("h/var/crash/127.0.0.1-2016-01-07-18:20:11/vmcore-dmesg.txt").is_some());
        assert!(crash_folder_time("h/var/log/201601071820").is_none());
    }
}
