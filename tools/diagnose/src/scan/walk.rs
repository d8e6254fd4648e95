//! How a scan moves through the time of one file: stamps, hosts, zones, gaps, and the wall clock against the kernel's.
//!
//! Promise: a step back over a new year is told from a step of the clock; nothing here depends on other files.

use std::sync::Arc;

use holdfast_evidence::civil::{DAY_SECONDS, MICROS, days_from_civil};
use holdfast_evidence::format::Record;
use holdfast_evidence::place::Place;
use holdfast_evidence::stamp::Stamp;
use holdfast_evidence::text::printable;
use holdfast_evidence::zone::from_pair;

use super::{At, ClockStep, Gap, Line, MAX_GAPS, MAX_TEXT, MIN_GAP, Scanner};

/// Lines that a logger writes at once stand so close together.
const BURST: i64 = 5 * MICROS;

impl Scanner<'_> {
    /// Takes time and host from a record.
    pub(super) fn take_record(&mut self, record: &Record<'_>, line: &[u8], number: u64, offset: u64) {
        let at = match record.stamp {
            Some(stamp) => self.at_of(stamp),
            None => match record.uptime {
                Some(uptime) => self.kernel_only(uptime),
                None => At::None,
            },
        };
        if let Some(stamp) = record.stamp
            && let Some(epoch) = stamp.epoch
            && stamp.offset.is_none()
            && let Some(zone) = from_pair(stamp.civil.to_micros(), epoch)
        {
            let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
            let vote = self
                .report
                .zone_votes
                .entry(zone.0)
                .or_insert_with(|| (0, Line { place, at, text: printable(line, MAX_TEXT) }));
            vote.0 += 1;
        } else if let Some(stamp) = record.stamp
            && let Some(zone) = stamp.offset
            && stamp.epoch.is_none()
            && (zone.0 != 0 || record.program == b"corosync")
        {
            let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
            let vote = self
                .report
                .zone_votes
                .entry(zone.0)
                .or_insert_with(|| (0, Line { place, at, text: printable(line, MAX_TEXT) }));
            vote.0 += 1;
        }
        self.report.userspace |= !record.program.is_empty() && record.program != b"kernel";
        if record.program == b"holdfast" && self.report.node.is_none() {
            self.report.node = holdfast_evidence::format::event_node(record.message);
        }
        if !record.host.is_empty() && record.host.len() < 64 {
            if record.host != self.host.as_bytes() {
                self.count_host();
                self.host = printable(record.host, 64);
            }
            self.host_lines += 1;
        } else if record.host.is_empty() && record.program == b"lich" {
            self.count_host();
            self.host.clear();
        }
        self.watch_clock(at, record.uptime, line, number, offset);
        self.move_to(at, number, offset);
        self.head.clear();
        if !record.host.is_empty() && record.uptime.is_none() && matches!(at, At::Yearless(_)) {
            // Everything up to and with the host and its space: the next line that starts so has the same time and host.
            // The host is a part of the line; by its place, since the stamp may hold the same letters.
            let end = (record.host.as_ptr_range().end as usize).wrapping_sub(line.as_ptr() as usize);
            if line.get(..end).is_some_and(|l| l.ends_with(record.host)) && line.get(end) == Some(&b' ') {
                self.head.extend_from_slice(&line[..=end]);
            }
        }
    }

    /// Adds the lines of the current host to its count.
    pub(super) fn count_host(&mut self) {
        let lines = std::mem::take(&mut self.host_lines);
        if lines > 0 && !self.host.is_empty() {
            *self.report.hosts.entry(self.host.clone()).or_default() += lines;
        }
    }

    pub(super) fn at_of(&mut self, stamp: Stamp) -> At {
        if let Some(epoch) = stamp.epoch {
            return At::Utc(epoch * MICROS + i64::from(stamp.civil.micro));
        }
        if let Some(offset) = stamp.offset {
            return At::Utc(stamp.civil.to_micros() - offset.micros());
        }
        if stamp.has_year() {
            return At::Local(stamp.civil.to_micros());
        }
        let days = days_from_civil(2000, stamp.civil.month, stamp.civil.day) - days_from_civil(2000, 1, 1);
        let civil = stamp.civil;
        let of_day = i64::from(civil.hour) * 3600 + i64::from(civil.minute) * 60 + i64::from(civil.second);
        let in_year = (days * DAY_SECONDS + of_day) * MICROS + i64::from(civil.micro);
        const YEAR: i64 = 366 * DAY_SECONDS * MICROS;
        if let Some(last) = self.last_yearless {
            // December to January is a new year; January to December is a clock that went back over one.
            if last - in_year > YEAR / 2 {
                self.wraps += 1;
            } else if in_year - last > YEAR / 2 && self.wraps > 0 {
                self.wraps -= 1;
            }
        }
        self.last_yearless = Some(in_year);
        At::Yearless(in_year + self.wraps * YEAR)
    }

    pub(super) fn kernel_only(&mut self, uptime: i64) -> At {
        if self.last_uptime.is_some_and(|last| uptime + MICROS < last) {
            self.boot_number += 1;
        }
        self.last_uptime = Some(uptime);
        At::Uptime(uptime, self.boot_number)
    }

    /// Compares the wall clock with the kernel's own count, where a line has both.
    pub(super) fn watch_clock(&mut self, at: At, uptime: Option<i64>, line: &[u8], number: u64, offset: u64) {
        const MAX_STEPS: usize = 64;
        let (Some(uptime), At::Yearless(_) | At::Local(_) | At::Utc(_)) = (uptime, at) else { return };
        let base = at.micros() - uptime;
        // A logger that starts late stamps all that the kernel said before with one time: not the clock stood still, but the
        // lines waited. The first line after those comes with its own, smaller delay.
        let waited = self.backlog;
        let (passed, counted) =
            self.last_both.map_or((-1, 0), |(wall, up)| (at.micros() - wall, uptime - up));
        self.backlog = (0..BURST).contains(&passed) && (waited || counted > 30 * MICROS);
        self.last_both = Some((at.micros(), uptime));
        if let Some((last_base, last_uptime)) = self.clock_base {
            let moved = base - last_base;
            let same_boot = uptime >= last_uptime && uptime > 60 * MICROS;
            let late = moved < 0 && passed >= 0 && (waited || self.backlog);
            if same_boot && !late && moved.abs() > 30 * MICROS && self.report.steps.len() < MAX_STEPS {
                let place = Place { file: Arc::clone(&self.report.path), line: number, offset };
                let line = Line { place, at, text: printable(line, MAX_TEXT) };
                self.report.steps.push(ClockStep { seconds: moved as f64 / MICROS as f64, line });
            }
        }
        let of = |(wall, up): &(At, i64)| wall.micros() - up;
        let mut known = self.clock_base.map(|(base, _)| base);
        if waited || self.backlog {
            // The least delay says best when this boot was.
            while self.report.uptimes.pop_if(|pair| pair.1 <= uptime && of(pair) > base).is_some() {}
            known = self.report.uptimes.last().map(of);
        }
        if self.report.uptimes.len() < 256 && known.is_none_or(|b| (b - base).abs() > 5 * MICROS) {
            self.report.uptimes.push((at, uptime));
        }
        // The boot's own burst is logged late: only later lines fix the base.
        if uptime > 60 * MICROS || self.clock_base.is_some_and(|(_, u)| uptime < u) {
            self.clock_base = Some((base, uptime));
        }
    }

    pub(super) fn move_to(&mut self, at: At, number: u64, offset: u64) {
        if at == At::None {
            return;
        }
        let before = self.now;
        if before != At::None && std::mem::discriminant(&before) == std::mem::discriminant(&at) {
            let silence = at.micros() - before.micros();
            if silence <= -MIN_GAP && !matches!(at, At::Uptime(..)) {
                self.went_back = self.went_back.map_or(Some((1, number)), |(n, first)| Some((n + 1, first)));
            }
            if silence >= MIN_GAP {
                self.report.gaps.push(Gap { from: before, to: at, line: number, offset });
                if self.report.gaps.len() > 2 * MAX_GAPS {
                    self.trim_gaps();
                }
            }
        }
        self.now = at;
        self.report.span = match self.report.span {
            None => Some((at, at)),
            Some((first, _)) => Some((first, at)),
        };
    }

    pub(super) fn trim_gaps(&mut self) {
        self.report.gaps.sort_by_key(|g| std::cmp::Reverse(g.to.micros() - g.from.micros()));
        self.report.gaps.truncate(MAX_GAPS);
    }
}
