//! The full report on a bundle made from the excerpts in the field notes of the incident of 2016, and on its twin without the
//! malware: what an operator reads, kept whole.

use crate::common::{put, read};
use holdfast_diagnose::model::Report;
use holdfast_diagnose::report::{Lang, terminal};

/// The product's own entries as they stood, then a hole of 64 bytes where another entry was being written.
const CRONTAB: &str = "\
# /etc/crontab: system-wide crontab
SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly
* * * * * root /opt/bin/cha_real_check_cvm.sh
* * * * * root /opt/bin/libvirtd_check.sh
1 2 * * * root /opt/bin/cas_clean_log.sh
*/10 * * * * root /opt/fusionstack/lich/sbin/lich.node --recover
1 */8 * * * root /opt/fusionstack/lich/sbin/lich.node --chunkbalance --rand
";
const MALWARE_LINE: &str = "*/3 * * * * root /etc/cron.hourly/cron.sh\n";
const MALWARE_SCRIPT: &str = "#!/bin/sh
PATH=/bin:/sbin:/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin:/usr/X11R6/bin
for i in `cat /proc/net/dev|grep :|awk -F: {'print $1'}`; do ifconfig $i up& done
cp /lib/libudev.so /lib/libudev.so.6
/lib/libudev.so.6
";
const RAISED: &str = "\
Jan  7 18:12:02 cvk1 kernel: [902112.114201] IPv6: ADDRCONF(NETDEV_CHANGE): ovs-system: link becomes ready
Jan  7 18:12:31 cvk1 kernel: [902141.300187] openvswitch: ovs-system: deferred action limit reached, drop recirc action
";

fn syslog(host: &str, source: bool, malware: bool) -> String {
    let mut out = String::new();
    if malware {
        for minute in ["06", "09", "12"] {
            out +=
                &format!("Jan  7 18:{minute}:01 {host} CRON[2104]: (root) CMD (/etc/cron.hourly/cron.sh)\n");
        }
    }
    if source {
        out += RAISED;
    }
    out += &format!(
        "Jan  7 18:14:27 {host} kernel: [902257.001021]  connection1:0: detected conn error (1020)
Jan  7 18:14:28 {host} iscsid: Kernel reported iSCSI connection 1:0 error (1020 - ISCSI_ERR_TCP_CONN_CLOSE: TCP connection closed) state (3)
Jan  7 18:14:30 {host} iscsid: connect to 127.0.0.1:3260 failed (Connection refused)
Jan  7 18:14:39  iscsid: last message repeated 3 times
Jan  7 18:15:27 {host} kernel: [902317.204110] (kworker/1:2,771,1):o2hb_write_timeout:166 ERROR: Heartbeat write timeout to device sdb after 60000 milliseconds
Jan  7 18:15:27 {host} kernel: [902317.204151] *** ocfs2 is very sorry to be fencing this system by restarting ***
Jan  7 18:19:02 {host} kernel: [    0.000000] Linux version 3.13.6 (root@build) (gcc version 4.6.3)
Jan  7 18:19:05 {host} kernel: [    3.104000] EXT4-fs (sda1): recovery complete
"
    );
    if source {
        out += &format!("Jan  7 18:20:01 {host} cron[1500]: Error: bad minute; while reading /etc/crontab\n");
    }
    out
}

fn lich(host: &str) -> String {
    let peer = if host == "cvk1" { "cvk2" } else { "cvk1" };
    format!(
        "2016-01-07 18:13:11[1452161591] /sysy/yfs/lich/net/heartbeat.c:212 __hb_check [2994] [17] WARNING: heartbeat timeout to {peer}
2016-01-07 18:13:31[1452161611] /sysy/yfs/lich/cluster/quorum.c:310 quorum_check [2994] [7] ERROR: need 3, min 2, got 1
2016-01-07 18:14:34[1452161674] /sysy/yfs/lich/main.c:500 main [7002] [1] INFO: lichd starting
"
    )
}

fn bundle(malware: bool) -> Report {
    let dir = tempfile::tempdir().expect("a folder");
    for host in ["cvk1", "cvk2", "cvk3"] {
        let source = host == "cvk1";
        let at = |path: &str| format!("cas/{host}/logdir/{path}");
        put(dir.path(), &at("var/log/syslog"), syslog(host, source, malware).as_bytes());
        put(dir.path(), &at("var/log/lich/lichd.log"), lich(host).as_bytes());
        put(dir.path(), &at("etc/hostname"), format!("{host}\n").as_bytes());
        let mut tab = CRONTAB.as_bytes().to_vec();
        if malware {
            tab.extend_from_slice(MALWARE_LINE.as_bytes());
            put(dir.path(), &at("etc/cron.hourly/cron.sh"), MALWARE_SCRIPT.as_bytes());
        }
        if source {
            tab.extend_from_slice(&[0; 64]);
            tab.push(b'\n');
        }
        put(dir.path(), &at("etc/crontab"), &tab);
    }
    read(dir.path())
}

/// Every id that a cause, an edge or a recommendation names is a fact with a line.
fn carried_by_lines(report: &Report) {
    let known: std::collections::BTreeSet<&str> = report.facts.iter().map(|f| f.id.as_str()).collect();
    for fact in &report.facts {
        assert!(fact.evidence.iter().all(|e| !e.file.is_empty() && !e.text.is_empty()), "{}", fact.rule);
        assert!(!fact.evidence.is_empty(), "{}", fact.rule);
    }
    for cause in &report.causes {
        let named =
            cause.roots.iter().chain(&cause.explains).chain(&cause.supports).chain(&cause.contradicts);
        assert!(named.clone().all(|id| known.contains(id.as_str())), "{}", cause.id);
        assert!(cause.chain.iter().all(|e| known.contains(e.from.as_str()) && known.contains(e.to.as_str())));
    }
}

#[test]
fn the_report_on_the_incident_is_the_one_that_was_read_and_found_right() {
    let report = bundle(true);
    carried_by_lines(&report);
    assert_eq!(report.causes[0].id, "malware-xorddos");
    insta::assert_snapshot!("incident-terminal", terminal::render(&report, Lang::En, false));
    insta::assert_snapshot!("incident-json", serde_json::to_string_pretty(&report).expect("json"));
}

#[test]
fn the_report_on_its_twin_accuses_no_malware() {
    let report = bundle(false);
    carried_by_lines(&report);
    assert_eq!(report.causes[0].id, "interface-raised");
    let text = terminal::render(&report, Lang::En, false);
    assert!(!text.contains("XorDDoS"), "{text}");
    insta::assert_snapshot!("twin-terminal", text);
    insta::assert_snapshot!("twin-json", serde_json::to_string_pretty(&report).expect("json"));
}
