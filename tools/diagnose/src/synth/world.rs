//! The world of a story: hosts, clocks, noise, and how their logs reach the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use holdfast_evidence::Civil;
use holdfast_evidence::civil::{MICROS, days_from_civil, month_name};

/// Hours of ordinary life before the incident, when nothing else is asked for.
const HISTORY_HOURS: i64 = 8;
/// Mean seconds between two ordinary lines of a host, likewise.
const EVERY_SECONDS: u64 = 28;
/// Zones, in seconds east of UTC.
const ZONES: [i64; 5] = [0, 8 * 3600, 8 * 3600, 3600, -5 * 3600];
/// Hours after it.
const AFTER_HOURS: i64 = 2;

/// What is true about a bundle.
#[derive(Debug, Clone, Default)]
pub struct Truth {
    /// The cause that must be named first.
    pub cause: Option<String>,
    /// Facts that the logs carry: (rule, host).
    pub facts: BTreeSet<(String, String)>,
}

struct Event {
    host: usize,
    at: i64,
    file: &'static str,
    body: String,
    kernel: bool,
}

struct Outage {
    host: usize,
    stop: i64,
    up: i64,
    clean: bool,
}

/// Hosts and what happens to them.
pub struct World {
    seed: u64,
    history_hours: i64,
    every_seconds: u64,
    /// Host names.
    pub hosts: Vec<String>,
    /// Instant of the incident, epoch seconds.
    pub t0: i64,
    /// Zone of each host, in seconds east of UTC; one for all but in a mixed world.
    zones: Vec<i64>,
    /// A host of which the bundle lacks the files that name it and its zone.
    unnamed: Option<usize>,
    skew: Vec<i64>,
    born: Vec<i64>,
    events: Vec<Event>,
    outages: Vec<Outage>,
    files: BTreeMap<(usize, String), Vec<u8>>,
    /// What is true.
    pub truth: Truth,
}

impl World {
    /// A quiet world of three to five hosts.
    pub fn new(seed: u64) -> World {
        let mut world = World {
            seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d,
            history_hours: HISTORY_HOURS,
            every_seconds: EVERY_SECONDS,
            hosts: Vec::new(),
            t0: 0,
            zones: Vec::new(),
            unnamed: None,
            skew: Vec::new(),
            born: Vec::new(),
            events: Vec::new(),
            outages: Vec::new(),
            files: BTreeMap::new(),
            truth: Truth::default(),
        };
        let prefix = ["cvk", "pve", "node-", "kvm0", "hci"][world.below(5) as usize];
        let count = 3 + world.below(3) as usize;
        world.hosts = (1..=count).map(|i| format!("{prefix}{i}")).collect();
        let zone = ZONES[world.below(5) as usize];
        world.zones = vec![zone; count];
        let day = days_from_civil(2014, 1, 1) + world.below(4000) as i64;
        world.t0 = day * 86_400 + world.below(86_400) as i64;
        world.skew = (0..count).map(|_| world.below(3) as i64 - 1).collect();
        world.born = (0..count).map(|_| world.t0 - 86_400 * (3 + world.below(200) as i64)).collect();
        // Every fourth world is one of several sites, every fourth lacks what names a host and its zone.
        match seed % 4 {
            1 => world.zones = (0..count).map(|h| ZONES[(seed as usize / 4 + 2 * h) % 5]).collect(),
            3 => world.unnamed = Some(seed as usize / 4 % count),
            _ => {}
        }
        world
    }

    /// Asks for another length and density of ordinary life.
    pub fn stretch(&mut self, history_hours: u32, every_seconds: u32) {
        self.history_hours = i64::from(history_hours);
        self.every_seconds = u64::from(every_seconds.max(1));
    }

    /// A number below `n` (splitmix64).
    pub fn below(&mut self, n: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    /// Notes a true fact.
    pub fn fact(&mut self, rule: &str, host: usize) {
        let name = self.hosts[host].clone();
        self.truth.facts.insert((rule.to_owned(), name));
    }

    /// Notes a true fact of the cluster.
    pub fn cluster_fact(&mut self, rule: &str) {
        self.truth.facts.insert((rule.to_owned(), "cluster".to_owned()));
    }

    fn event(&mut self, host: usize, after: i64, file: &'static str, body: &str, kernel: bool) {
        let jitter = self.below(900_000) as i64;
        let at = (self.t0 + after) * MICROS + jitter;
        self.events.push(Event { host, at, file, body: body.to_owned(), kernel });
    }

    /// A syslog line `program[pid]: text`, `after` seconds from the incident; a non-empty rule is noted as true.
    pub fn log(&mut self, host: usize, after: i64, body: &str, rule: &str) {
        self.event(host, after, "syslog", body, false);
        if !rule.is_empty() {
            self.fact(rule, host);
        }
    }

    /// Every host but one.
    pub fn peers(&self, host: usize) -> Vec<usize> {
        (0..self.hosts.len()).filter(|h| *h != host).collect()
    }

    /// A kernel line.
    pub fn kernel(&mut self, host: usize, after: i64, text: &str, rule: &str) {
        self.event(host, after, "syslog", text, true);
        if !rule.is_empty() {
            self.fact(rule, host);
        }
    }

    /// A line of a file with its own stamps: `lich` or `ceph`.
    pub fn daemon(&mut self, host: usize, after: i64, file: &'static str, text: &str, rule: &str) {
        self.event(host, after, file, text, false);
        if !rule.is_empty() {
            self.fact(rule, host);
        }
    }

    /// A file of a host's tree.
    pub fn file(&mut self, host: usize, path: &str, bytes: &[u8]) {
        self.files.insert((host, path.to_owned()), bytes.to_vec());
    }

    /// What a crash kernel keeps of the last words: a file of lines with seconds since the boot.
    pub fn crash_dump(&mut self, host: usize, after: i64, lines: &[(String, &str)]) {
        let at = self.t0 + after;
        let uptime = at - self.born[host];
        let text: String =
            lines.iter().map(|(text, _)| format!("[{uptime:5}.{:06}] {text}\n", 104_211)).collect();
        for (_, rule) in lines.iter().filter(|(_, rule)| !rule.is_empty()) {
            self.fact(rule, host);
        }
        let local = Civil::from_micros((at + self.zones[host] + self.skew[host]) * MICROS).display(false);
        let path = format!("var/crash/127.0.0.1-{}/vmcore-dmesg.txt", local.replace(' ', "-"));
        self.file(host, &path, text.as_bytes());
    }

    /// The host stops without a word and boots again.
    pub fn reset(&mut self, host: usize, after: i64, down: i64) {
        self.outage(host, after, down, false);
        self.fact("host.reset", host);
    }

    /// The host is shut down in order and boots again.
    pub fn reboot(&mut self, host: usize, after: i64, down: i64) {
        self.log(host, after - 2, "systemd[1]: Stopped target Multi-User System.", "");
        self.log(host, after - 1, "rsyslogd: [origin software=\"rsyslogd\" swVersion=\"8.2102.0\" x-pid=\"512\"] exiting on signal 15.", "boot.shutdown-mark");
        self.outage(host, after, down, true);
        self.fact("host.rebooted", host);
    }

    fn outage(&mut self, host: usize, after: i64, down: i64, clean: bool) {
        let stop = self.t0 + after;
        self.outages.push(Outage { host, stop, up: stop + down, clean });
        let up = after + down;
        for (delay, text) in [
            (
                0,
                "Linux version 5.10.0-28-amd64 (debian-kernel@lists.debian.org) (gcc-10 (Debian 10.2.1-6) 10.2.1)",
            ),
            (0, "Command line: BOOT_IMAGE=/boot/vmlinuz-5.10.0-28-amd64 root=/dev/mapper/vg-root ro quiet"),
            (1, "Memory: 65536000K/67108864K available"),
        ] {
            self.kernel(host, up + delay, text, "boot.start");
        }
        if !clean {
            self.kernel(host, up + 3, "EXT4-fs (dm-0): recovery complete", "fs.recovery");
        }
        self.log(host, up + 4, "systemd[1]: Started OpenBSD Secure Shell server.", "");
    }

    /// Ordinary talk: cron, sessions, smartd, dhcp, a mail queue.
    fn noise(&mut self) {
        let (from, to) = (-self.history_hours * 3600, AFTER_HOURS * 3600);
        let (least, more) = ((self.every_seconds * 2 / 7).max(1), (self.every_seconds * 10 / 7).max(1));
        for host in 0..self.hosts.len() {
            let mut at = from + self.below(60) as i64;
            while at < to {
                let pid = 1000 + self.below(60_000);
                match self.below(9) {
                    0 => self.log(host, at, &format!("CRON[{pid}]: (root) CMD (   cd / && run-parts --report /etc/cron.hourly)"), ""),
                    1 | 2 => self.log(host, at, &format!("CRON[{pid}]: (root) CMD (command -v debian-sa1 > /dev/null && debian-sa1 1 1)"), ""),
                    3 => self.log(host, at, &format!("sshd[{pid}]: Accepted publickey for monitor from 10.0.9.{} port {} ssh2", pid % 200, 1024 + pid), ""),
                    4 => self.log(host, at, &format!("systemd[1]: Started Session {pid} of user monitor."), ""),
                    5 => self.log(host, at, "smartd[702]: Device: /dev/sda [SAT], SMART Usage Attribute: 190 Airflow_Temperature_Cel changed from 66 to 65", ""),
                    6 => self.log(host, at, &format!("postfix/qmgr[900]: {pid:X}: removed"), ""),
                    _ => self.log(host, at, &format!("snmpd[650]: Connection from UDP: [10.0.9.5]:{pid}->[10.0.0.{host}]:161"), ""),
                }
                at += (least + self.below(more)) as i64;
            }
        }
    }

    /// Things that happen beside the incident and have nothing to do with it.
    fn decoys(&mut self) {
        let host = self.below(self.hosts.len() as u64) as usize;
        match self.below(4) {
            0 => self.log(host, -6 * 3600, "sshd[4711]: Failed password for invalid user test from 198.51.100.7 port 50022 ssh2", ""),
            1 => {
                self.log(host, -5 * 3600, "vzdump[3300]: INFO: starting new backup job: vzdump 104 --mode snapshot --storage nfs", "backup.start");
                self.log(host, -5 * 3600 + 400, "vzdump[3300]: INFO: Backup job finished successfully", "");
            }
            2 => self.kernel(host, -4 * 3600, "perf: interrupt took too long (2506 > 2500), lowering kernel.perf_event_max_sample_rate to 79750", ""),
            _ => {}
        }
    }

    /// Writes the bundle.
    pub fn write(&mut self, folder: &Path) -> io::Result<()> {
        self.noise();
        self.decoys();
        let mut events = std::mem::take(&mut self.events);
        events.sort_by_key(|e| e.at);
        for host in 0..self.hosts.len() {
            let root = folder.join(&self.hosts[host]);
            let mut by_file: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for event in events.iter().filter(|e| e.host == host) {
                if let Some(line) = self.line(event) {
                    by_file.entry(event.file).or_default().push(line);
                }
            }
            for (file, lines) in by_file {
                self.write_log(&root, file, &lines)?;
            }
            let own: Vec<(String, Vec<u8>)> = self
                .files
                .iter()
                .filter(|((h, _), _)| *h == host)
                .map(|((_, p), b)| (p.clone(), b.clone()))
                .collect();
            for (path, bytes) in own {
                let target = root.join(&path);
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(target, bytes)?;
            }
            if self.unnamed == Some(host) {
                continue;
            }
            fs::create_dir_all(root.join("etc"))?;
            fs::write(root.join("etc/hostname"), format!("{}\n", self.hosts[host]))?;
            let zone = match self.zones[host] / 3600 {
                8 => "Asia/Shanghai",
                1 => "Africa/Lagos",
                -5 => "America/Panama",
                _ => "Etc/UTC",
            };
            fs::write(root.join("etc/timezone"), format!("{zone}\n"))?;
        }
        Ok(())
    }

    /// The line as the host's disk has it, or nothing when it was lost.
    fn line(&self, event: &Event) -> Option<String> {
        let seconds = event.at.div_euclid(MICROS);
        let mut boot = self.born[event.host];
        for outage in self.outages.iter().filter(|o| o.host == event.host) {
            // A reset loses what was not flushed: the last three seconds.
            let lost_from = if outage.clean { outage.stop } else { outage.stop - 3 };
            if seconds >= lost_from && seconds < outage.up {
                return None;
            }
            if seconds >= outage.up {
                boot = boot.max(outage.up);
            }
        }
        let local = event.at + (self.zones[event.host] + self.skew[event.host]) * MICROS;
        let civil = Civil::from_micros(local);
        let uptime = event.at - boot * MICROS;
        Some(match event.file {
            "lich" => {
                format!(
                    "{}[{}] {}",
                    civil.display(false),
                    local.div_euclid(MICROS) - self.zones[event.host],
                    event.body
                )
            }
            "ceph" => format!("{}+0000 {}", utc(event.at + self.skew[event.host] * MICROS), event.body),
            _ => {
                let stamp = format!(
                    "{} {:2} {:02}:{:02}:{:02}",
                    month_name(civil.month),
                    civil.day,
                    civil.hour,
                    civil.minute,
                    civil.second
                );
                let name = &self.hosts[event.host];
                if event.kernel {
                    let uptime = uptime.max(0);
                    format!(
                        "{stamp} {name} kernel: [{:5}.{:06}] {}",
                        uptime / MICROS,
                        uptime % MICROS,
                        event.body
                    )
                } else {
                    format!("{stamp} {name} {}", event.body)
                }
            }
        })
    }

    /// Writes a log, rotated at two thirds, and sets its modification time to its last line's.
    fn write_log(&mut self, root: &Path, file: &str, lines: &[String]) -> io::Result<()> {
        let end = (self.t0 + AFTER_HOURS * 3600) as u64;
        let path = match file {
            "lich" => "var/log/lich/lichd.log",
            "ceph" => "var/log/ceph/ceph.log",
            _ => "var/log/syslog",
        };
        let target = root.join(path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let text = |part: &[String]| part.iter().map(|l| format!("{l}\n")).collect::<String>();
        let rotated = file == "syslog" && self.below(2) == 0;
        let cut = if rotated { lines.len() / 3 } else { 0 };
        if rotated {
            let old = File::create(root.join("var/log/syslog.1.gz"))?;
            let mut packer = flate2::GzBuilder::new().mtime(0).write(old, flate2::Compression::fast());
            packer.write_all(text(&lines[..cut]).as_bytes())?;
            packer.finish()?.set_modified(UNIX_EPOCH + Duration::from_secs(end))?;
        }
        fs::write(&target, text(&lines[cut..]))?;
        File::options().write(true).open(&target)?.set_modified(UNIX_EPOCH + Duration::from_secs(end))
    }
}

fn utc(micros: i64) -> String {
    let civil = Civil::from_micros(micros);
    format!("{}.{:03}", civil.display(false).replace(' ', "T"), civil.micro / 1000)
}
