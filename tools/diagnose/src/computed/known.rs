//! The facts that code computes: what each means, how it is computed, and what would refute it.
//!
//! Promise: the one place for these words; every computed fact is in it.

/// One of them.
pub struct Known {
    /// Id.
    pub id: &'static str,
    /// What it means.
    pub about: &'static str,
    /// How it is computed.
    pub source: &'static str,
    /// What would show that it is not what it seems.
    pub refuted_by: &'static str,
}

/// One of them, by its id.
pub fn of(id: &str) -> Option<&'static Known> {
    KNOWN.iter().find(|k| k.id == id)
}

/// All of them.
pub const KNOWN: [Known; 15] = [
    Known {
        id: "host.reset",
        about: "a boot without an orderly shutdown before it",
        source: "computed: a kernel start with no shutdown line in the 15 minutes before it",
        refuted_by: "a shutdown line of that boot in a log that is missing here",
    },
    Known {
        id: "host.rebooted",
        about: "a boot after an orderly shutdown",
        source: "computed: a shutdown line, then a kernel start",
        refuted_by: "a shutdown that was asked for and did not come to its end",
    },
    Known {
        id: "hosts.reset-together",
        about: "several hosts stopped within three minutes",
        source: "computed from the last lines before unclean boots",
        refuted_by: "different reasons logged for each of them",
    },
    Known {
        id: "host.boot-loop",
        about: "three unclean boots within 30 minutes",
        source: "computed from unclean boots",
        refuted_by: "an operator who reset it each time",
    },
    Known {
        id: "host.silent",
        about: "no line in any log for an unusual time",
        source: "computed: gaps against the usual rate of the most talkative log",
        refuted_by: "lines of the same time in a log that is missing here",
    },
    Known {
        id: "clock.step-kernel",
        about: "the wall clock moved against the kernel's own count",
        source: "computed: a line carries both clocks",
        refuted_by: "a suspend of the machine",
    },
    Known {
        id: "config.nul-run",
        about: "NUL bytes in a configuration file",
        source: "computed: place and size of NUL runs against block edges",
        refuted_by: "a backup of the file with the same bytes from before the incident",
    },
    Known {
        id: "log.nul-run",
        about: "NUL bytes in a log",
        source: "computed: place and size of NUL runs against block edges",
        refuted_by: "a backup of the file with the same bytes from before the incident",
    },
    Known {
        id: "config.crontab-broken",
        about: "a crontab that Debian's cron refuses whole",
        source: "cron 3.0pl1 (Debian), entry.c and user.c",
        refuted_by: "a cron that is not Debian's (upstream skips only the bad entry)",
    },
    Known {
        id: "config.quorum-below-majority",
        about: "fewer copies than a majority are accepted",
        source: "computed from the storage's own line",
        refuted_by: "a witness that breaks the tie",
    },
    Known {
        id: "config.single-local-portal",
        about: "the shared disk hangs on one local portal",
        source: "computed from the portal's address",
        refuted_by: "a second session of the same disk over another host",
    },
    Known {
        id: "iscsi.initiator-shared",
        about: "two hosts have one iSCSI initiator name, so a target takes them for one",
        source: "computed from /etc/iscsi/initiatorname.iscsi of each host; RFC 7143 6.3.5, Linux drivers/target/iscsi/iscsi_target_login.c iscsi_check_for_session_reinstatement",
        refuted_by: "one host that stands in the bundle under two names",
    },
    Known {
        id: "storage.port-closed",
        about: "how long the storage port was closed",
        source: "computed from refusals and recovery of the initiator",
        refuted_by: "a login in between",
    },
    Known {
        id: "ocfs2.disk-decided",
        about: "OCFS2 reset a host for its disk: by order and time limits",
        source: "computed: Linux fs/ocfs2/cluster/heartbeat.h, tcp_internal.h: 2 x (T - 1) s and 2 x (T + 2) s",
        refuted_by: "another threshold in the o2cb settings of the host, or lines of the last minute in a log that is missing here",
    },
    Known {
        id: "ocfs2.quorum-decided",
        about: "OCFS2 reset a host for lack of quorum: by order and time limits",
        source: "computed: Linux fs/ocfs2/cluster/heartbeat.h, tcp_internal.h: 2 x (T - 1) s and 2 x (T + 2) s",
        refuted_by: "another threshold in the o2cb settings of the host, or lines of the last minute in a log that is missing here",
    },
];
