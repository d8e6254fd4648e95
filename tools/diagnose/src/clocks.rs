//! The clocks of hosts against each other, from events that several of them saw.
//!
//! Promise: an event pairs hosts only where its own number does (a ring's id, a generation's), or where both ends of one connection
//! log it; the n-th of one host is the n-th of another only where both saw as many. One pair alone corrects nothing, and pairs
//! that do not agree only widen the uncertainty.

use std::collections::BTreeMap;

use holdfast_evidence::civil::MICROS;

use crate::rules::RuleSet;
use crate::scan::FileReport;
use crate::settle::{Host, Settled};

/// The same event in two files of a host, or said twice at once.
const ONCE: i64 = 2 * MICROS;

/// Events that several hosts saw: the instant on each, by a name of the event.
pub fn shared_events(
    rules: &RuleSet,
    files: &[FileReport],
    settled: &Settled,
) -> BTreeMap<String, Vec<(String, i64)>> {
    let mut seen: BTreeMap<String, BTreeMap<String, Vec<i64>>> = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        for episode in &file.episodes {
            let rule = &rules.rules[episode.rule];
            let value = |name: &Option<String>| name.as_ref().and_then(|n| episode.fields.get(n));
            let host = settled.host_of(files, index, &episode.host);
            let name = if let Some(number) = value(&rule.pair) {
                format!("{} {number}", rule.id)
            } else if let Some(peer) = value(&rule.between) {
                let peer = settled.unique(&file.root, peer);
                let (a, b) = if host.as_str() < peer { (host.as_str(), peer) } else { (peer, host.as_str()) };
                format!("{} {a} {b}", rule.id)
            } else {
                continue;
            };
            if let Some(at) = settled.instant(index, &host, episode.first.at) {
                seen.entry(name).or_default().entry(host).or_default().push(at);
            }
        }
    }
    let mut shared: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
    for (name, hosts) in &mut seen {
        for (host, times) in hosts {
            times.sort_unstable();
            times.dedup_by(|later, kept| *later - *kept < ONCE);
            for (n, at) in times.iter().enumerate() {
                let event = format!("{name} {n} of {}", times.len());
                shared.entry(event).or_default().push((host.clone(), *at));
            }
        }
    }
    shared
}

/// Fits clocks from events that several hosts saw at once: (host, instant) for each shared key.
pub fn fit(hosts: &mut BTreeMap<String, Host>, shared: &BTreeMap<String, Vec<(String, i64)>>) {
    const MAX_PLAUSIBLE: i64 = 12 * 3600 * MICROS;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for seen in shared.values().filter(|s| s.len() > 1) {
        for (host, _) in seen {
            *counts.entry(host).or_default() += 1;
        }
    }
    let Some(reference) =
        counts.iter().max_by_key(|(name, n)| (**n, std::cmp::Reverse(**name))).map(|(n, _)| (*n).to_owned())
    else {
        return;
    };
    let mut differences: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for seen in shared.values() {
        let Some((_, base)) = seen.iter().find(|(h, _)| *h == reference) else { continue };
        for (host, at) in seen.iter().filter(|(h, _)| *h != reference) {
            if (at - base).abs() < MAX_PLAUSIBLE {
                differences.entry(host.clone()).or_default().push(at - base);
            }
        }
    }
    for (name, mut all) in differences {
        all.sort_unstable();
        let median = all[all.len() / 2];
        let spread = all[all.len() * 9 / 10] - all[all.len() / 10];
        let Some(host) = hosts.get_mut(&name) else { continue };
        host.uncertainty = (spread / 2).max(MICROS);
        if median.abs() > 2 * MICROS && all.len() >= 2 && median.abs() > 2 * spread {
            host.clock_offset = median;
            host.clock_evidence = format!(
                "{:+.1} s against {reference}, from {} events that both saw; corrected",
                median as f64 / MICROS as f64,
                all.len()
            );
        } else {
            host.clock_evidence = format!(
                "agrees with {reference} within {:.0} s ({} events)",
                host.uncertainty as f64 / MICROS as f64,
                all.len()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settle::new_host;

    /// Hosts a, b and c; what b and c say of events that a saw at 1000 s, 2000 s and so on, in seconds.
    fn fitted(b: &[i64], c: &[i64]) -> BTreeMap<String, Host> {
        let mut hosts: BTreeMap<String, Host> =
            ["a", "b", "c"].map(|n| (n.to_owned(), new_host(n))).into_iter().collect();
        let mut shared: BTreeMap<String, Vec<(String, i64)>> = BTreeMap::new();
        for (name, off) in [("b", b), ("c", c)] {
            for (n, off) in off.iter().enumerate() {
                let at = (n as i64 + 1) * 1000;
                let event = shared.entry(format!("e{n}")).or_insert_with(|| vec![("a".into(), at * MICROS)]);
                event.push((name.to_owned(), (at + off) * MICROS));
            }
        }
        fit(&mut hosts, &shared);
        hosts
    }

    #[test]
    fn a_clock_is_corrected_by_pairs_that_agree_and_by_nothing_less() {
        let hosts = fitted(&[300, 301, 300, 299], &[-75, -75]);
        assert_eq!((hosts["b"].clock_offset, hosts["c"].clock_offset), (300 * MICROS, -75 * MICROS));
        assert_eq!(hosts["b"].clock_evidence, "+300.0 s against a, from 4 events that both saw; corrected");
        assert_eq!(hosts["a"].clock_offset, 0);
        // A second is within the resolution of syslog; one pair may be chance; pairs that differ prove nothing.
        for (b, said) in [
            (&[1, 0, 1][..], "agrees with a within 1 s (3 events)"),
            (&[300][..], "agrees with a within 1 s (1 events)"),
            (&[300, 20, 900][..], "agrees with a within 440 s (3 events)"),
        ] {
            let hosts = fitted(b, &[]);
            assert_eq!((hosts["b"].clock_offset, hosts["b"].clock_evidence.as_str()), (0, said));
        }
        assert_eq!(fitted(&[300, 300], &[])["c"].clock_evidence, "not fitted: no event that two hosts saw");
    }
}
