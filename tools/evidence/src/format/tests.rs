//! Lines as the programs print them, and what must be read from each.

use super::*;

fn shown(line: &[u8]) -> String {
    let Some(r) = parse_line(line) else { return "none".into() };
    let s = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    let when = r.stamp.map_or("-".into(), |s| s.civil.display(false));
    format!("{when}|{}|{}|{:?}|{:?}|{}", s(r.host), s(r.program), r.pid, r.uptime, s(r.message))
}

#[test]
fn rfc_3164_lines_with_all_their_quirks_are_read() {
    for (line, expected) in [
        (
            "Jan  7 18:14:30 cvk1 iscsid: connect to 127.0.0.1:3260 failed",
            "0000-01-07 18:14:30|cvk1|iscsid|None|None|connect to 127.0.0.1:3260 failed",
        ),
        (
            "Jan  7 18:14:30  iscsid: last message repeated 3 times",
            "0000-01-07 18:14:30||iscsid|None|None|last message repeated 3 times",
        ),
        (
            "Jan  7 18:14:30 last message repeated 3 times",
            "0000-01-07 18:14:30|||None|None|last message repeated 3 times",
        ),
        (
            "Jan  7 18:14:30 cvk1 kernel: [ 1234.567890] o2net: x",
            "0000-01-07 18:14:30|cvk1|kernel|None|Some(1234567890)|o2net: x",
        ),
        (
            "<30>Jan  7 18:14:30 cvk1 CRON[77]: (root) CMD (x)",
            "0000-01-07 18:14:30|cvk1|CRON|Some(77)|None|(root) CMD (x)",
        ),
        (
            "Jan 07 18:13:11 [1234] cvk1 corosync notice  [TOTEM ] A new membership",
            "0000-01-07 18:13:11|cvk1|corosync|Some(1234)|None|notice  [TOTEM ] A new membership",
        ),
        (
            "Jan 07 18:13:11 cvk1 pacemaker-controld  [99] (crm_timer) notice: x",
            "0000-01-07 18:13:11|cvk1|pacemaker-controld|Some(99)|None|(crm_timer) notice: x",
        ),
        ("\0\0\0Jan  7 18:14:30 a b: c", "0000-01-07 18:14:30|a|b|None|None|c"),
    ] {
        assert_eq!(shown(line.as_bytes()), expected);
    }
}

#[test]
fn every_way_in_which_journalctl_and_dmesg_print_a_line_is_read() {
    for (line, expected) in [
        ("Tue 2026-03-03 10:00:00 CET n1 kernel: eno1: x", "2026-03-03 10:00:00|n1|kernel|None|None|eno1: x"),
        ("1772532000.123456 n1 sshd[7]: x", "2026-03-03 10:00:00|n1|sshd|Some(7)|None|x"),
        ("[ 8123.000001] n1 sshd[7]: x", "-|n1|sshd|Some(7)|Some(8123000001)|x"),
        ("[ 8123.000001] n1 kernel: eno1: x", "-|n1|kernel|None|Some(8123000001)|eno1: x"),
        ("[ 8123.000001] sd 0:0:0:0: [sdb] x", "-||kernel|None|Some(8123000001)|sd 0:0:0:0: [sdb] x"),
        ("kern  :err   : [ 8123.000001] eno1: x", "-||kernel|None|Some(8123000001)|eno1: x"),
        (
            "kern  :warn  : [Tue Mar  3 10:00:00 2026] eno1: x",
            "2026-03-03 10:00:00||kernel|None|None|eno1: x",
        ),
        ("Mar  3 10:00:00 2026 n1 kernel: x", "2026-03-03 10:00:00|n1|kernel|None|None|x"),
        ("2026-03-03T10:00:32.5Z qemu-kvm: x y", "2026-03-03 10:00:32||qemu-kvm|None|None|x y"),
        (
            "debug 2026-03-03T10:00:00.5+0000 7f0b4c7f8700 -1 osd.3 12 x",
            "2026-03-03 10:00:00||ceph|None|None|osd.3 12 x",
        ),
    ] {
        assert_eq!(shown(line.as_bytes()), expected);
    }
    let zone = |line: &[u8]| parse_line(line).and_then(|r| r.stamp).and_then(|s| s.offset).map(|o| o.0);
    assert_eq!(zone(b"Tue 2026-03-03 10:00:00 UTC n1 a: b"), Some(0));
    assert_eq!(zone(b"Tue 2026-03-03 10:00:00 +0330 n1 a: b"), Some(12_600));
    assert_eq!(zone(b"Tue 2026-03-03 10:00:00 CST n1 a: b"), None, "China, Cuba or Chicago");
}

#[test]
fn rfc_5424_lines_are_read_past_their_structured_data() {
    assert_eq!(
        shown(b"<165>1 2026-10-11T22:14:15.003Z web evntslog 12 ID47 [a@1 b=\"c \\\"] d\"][e] text"),
        "2026-10-11 22:14:15|web|evntslog|Some(12)|None|text"
    );
    assert_eq!(shown(b"<165>1 2026-10-11T22:14:15Z - - - - - text"), "2026-10-11 22:14:15|||None|None|text");
}

#[test]
fn the_files_of_daemons_are_read() {
    for (line, expected) in [
        (
            "2016-01-07 18:13:11[1452161591] /lich/x.c:88 net_hb [2994] [12] WARNING: text",
            "2016-01-07 18:13:11||lich|Some(2994)|None|/lich/x.c:88 net_hb [2994] [12] WARNING: text",
        ),
        (
            "2016-01-07T10:13:11.123Z|00012|bridge|INFO|bridge br0: added",
            "2016-01-07 10:13:11||ovs|None|None|bridge|INFO|bridge br0: added",
        ),
        (
            "2016-01-07 10:13:11.123+0000: 1234: error : virNet:56 : End of file",
            "2016-01-07 10:13:11||libvirt|Some(1234)|None|error : virNet:56 : End of file",
        ),
        (
            "2016-01-07 10:13:11.123+0000: shutting down, reason=crashed",
            "2016-01-07 10:13:11||qemu|None|None|shutting down, reason=crashed",
        ),
        (
            "2016-01-07 10:13:11.123456 7f0b4c7f8700 -1 osd.3 12 heartbeat_check: no reply",
            "2016-01-07 10:13:11||ceph|None|None|osd.3 12 heartbeat_check: no reply",
        ),
        (
            "2026-01-07T10:13:11.123456+08:00 pve1 corosync[12]:   [KNET  ] link: host: 2 link: 0 is down",
            "2026-01-07 10:13:11|pve1|corosync|Some(12)|None|[KNET  ] link: host: 2 link: 0 is down",
        ),
        ("[   12.345678] Linux version 3.13", "-||kernel|None|Some(12345678)|Linux version 3.13"),
        (
            "[Thu Jan  7 18:13:11 2016] Linux version 3.13",
            "2016-01-07 18:13:11||kernel|None|None|Linux version 3.13",
        ),
        (
            r#"9a583239 {"seq":1,"time_ms":1452161591523,"node":1,"level":"info","kind":"node-started"}"#,
            r#"2016-01-07 10:13:11||holdfast|None|None|{"seq":1,"time_ms":1452161591523,"node":1,"level":"info","kind":"node-started"}"#,
        ),
        (
            r#"{"timestamp":"2016-01-07T10:13:11.5Z","level":"WARN","fields":{"message":"x"},"target":"holdfast_node::run"}"#,
            r#"2016-01-07 10:13:11||holdfast|None|None|{"timestamp":"2016-01-07T10:13:11.5Z","level":"WARN","fields":{"message":"x"},"target":"holdfast_node::run"}"#,
        ),
        (
            r#"{"timestamp":"2016-01-07T10:13:11.5Z","level":"INFO","fields":{"message":"x \"target\":\"holdfast"},"target":"openraft::engine"}"#,
            r#"2016-01-07 10:13:11||openraft|None|None|{"timestamp":"2016-01-07T10:13:11.5Z","level":"INFO","fields":{"message":"x \"target\":\"holdfast"},"target":"openraft::engine"}"#,
        ),
        (
            "2016-01-07T10:13:11.515428Z  INFO holdfast_node::control: started node=1 incarnation=1",
            "2016-01-07 10:13:11||holdfast|None|None|INFO holdfast_node::control: started node=1 incarnation=1",
        ),
        (
            " 9月 16 19:31:41 cl4 chronyd[2153]: System clock wrong by 4.0 seconds",
            "0000-09-16 19:31:41|cl4|chronyd|Some(2153)|None|System clock wrong by 4.0 seconds",
        ),
        ("9 月 16 日 19:31:41 cl4 systemd[1]: x", "0000-09-16 19:31:41|cl4|systemd|Some(1)|None|x"),
        (
            "type=SYSTEM_BOOT msg=audit(1452161591.123:45): pid=1",
            "2016-01-07 10:13:11||audit|None|None|type=SYSTEM_BOOT msg=audit(1452161591.123:45): pid=1",
        ),
    ] {
        assert_eq!(shown(line.as_bytes()), expected);
    }
}

/// The fields and ends that an export holds, fed in pieces of a size.
fn parts(export: &[u8], size: usize) -> Vec<(String, Vec<u8>, u64, u64)> {
    let mut out = Vec::new();
    let mut reader = JournalExport::default();
    let (mut offset, mut line) = (0, 1);
    // Pieces end where lines do, as blocks do, but within a binary field also there.
    for piece in export.chunk_by(|a, _| *a != b'\n').collect::<Vec<_>>().chunks(size) {
        let piece = piece.concat();
        reader.feed(&piece, offset, line, |part| {
            out.push(match part {
                JournalPart::Field { name, value, line, offset } => {
                    (String::from_utf8_lossy(name).into_owned(), value.to_vec(), line, offset)
                }
                JournalPart::End => Default::default(),
            });
        });
        offset += piece.len() as u64;
        line += piece.iter().filter(|b| **b == b'\n').count() as u64;
    }
    out
}

#[test]
fn an_export_is_read_with_binary_fields_wherever_a_piece_ends() {
    // Ten bytes: the length itself holds a newline.
    let mut export = b"__CURSOR=a\nMESSAGE\n\x0a\0\0\0\0\0\0\0one\n\ntwo=3\n_PID=7\n\n".to_vec();
    export.extend_from_slice(b"__CURSOR=b\nMESSAGE=x=y\n\n");
    let text = |name: &str, value: &[u8], line, offset| (name.to_owned(), value.to_vec(), line, offset);
    let end = (String::new(), Vec::new(), 0, 0);
    let expected = [
        text("__CURSOR", b"a", 1, 0),
        text("MESSAGE", b"one\n\ntwo=3", 2, 11),
        text("_PID", b"7", 7, 38),
        end.clone(),
        text("__CURSOR", b"b", 9, 46),
        text("MESSAGE", b"x=y", 10, 57),
        end,
    ];
    for size in 1..12 {
        assert_eq!(parts(&export, size), expected, "{size}");
    }
}

#[test]
fn an_entry_reads_the_same_from_json_with_escapes_bytes_and_repeated_fields() {
    let shown = |json: &str| {
        JournalEntry::from_json(json.as_bytes()).map(|e| String::from_utf8(e.line()).expect("text"))
    };
    let head = r#"{"_HOSTNAME":"n1","__REALTIME_TIMESTAMP":"1452161591000000","_PID":"9","#;
    for (rest, expected) in [
        (r#""MESSAGE":"a \"b\" \u5b58\t\\","SYSLOG_IDENTIFIER":"sshd"}"#, "n1 sshd[9]: a \"b\" 存\t\\"),
        (r#""MESSAGE":[27,91,109,104,105],"_COMM":"x"}"#, "n1 x[9]: \u{1b}[mhi"),
        (r#""MESSAGE":"two\nlines","_COMM":["x","y"]}"#, "n1 x[9]: two lines"),
        (
            r#""MESSAGE":"up","SYSLOG_IDENTIFIER":"kernel","_SOURCE_MONOTONIC_TIMESTAMP":"8000001"}"#,
            "n1 kernel[9]: [    8.000001] up",
        ),
    ] {
        assert_eq!(shown(&format!("{head}{rest}")).as_deref(), Some(expected));
    }
    let entry = JournalEntry::from_json(format!("{head}\"MESSAGE\":null}}").as_bytes()).expect("an entry");
    assert!(entry.record().is_none(), "journalctl leaves long messages out");
    assert!(JournalEntry::from_json(br#"{"time":"x"}"#).is_none());
    assert!(JournalEntry::from_json(format!("{head}\"MESS").as_bytes()).is_none());
}

#[test]
fn repeats_are_counted_in_both_wordings() {
    assert_eq!(repeat_count(b"last message repeated 3 times"), Some(3));
    assert_eq!(repeat_count(b"message repeated 12 times: [ x]"), Some(12));
    assert_eq!(repeat_count(b"the message repeated itself"), None);
}

#[test]
fn no_prefix_of_any_line_panics() {
    let lines: [&[u8]; 7] = [
        b"<165>1 2026-10-11T22:14:15.003Z web evntslog 12 ID47 [a@1 b=\"c\\\"] text",
        b"2016-01-07 18:13:11[1452161591] /lich/x.c:88 net_hb [2994] WARNING",
        b"Jan  7 18:14:30 cvk1 kernel: [ 1234.567890] o2net: x",
        b"[Thu Jan  7 18:13:11 CST 2016] Linux",
        "9 月 16 日 19:31:41 cl4 a: b".as_bytes(),
        b"9a583239 {\"seq\":1,\"time_ms\":1795559988523,\"node\":1}",
        b"type=SYSTEM_BOOT msg=audit(1452161591.123:45): pid=1",
    ];
    for line in lines {
        for cut in 0..=line.len() {
            let _ = parse_line(&line[..cut]);
        }
    }
}
