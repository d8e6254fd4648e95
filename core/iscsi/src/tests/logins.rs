//! Logins: what is agreed, and what is refused.

use super::*;
use alloc::format;
use holdfast_types::ChapSecret;

/// What a single login request of those flags and that text comes to.
fn outcome(flags: u8, text: &str) -> String {
    let mut client = Client::connect(exports());
    client.login(flags, text);
    let response = client.hear();
    let (status, flags) = (response.header.u16(36), response.header.flags());
    let text = String::from_utf8(response.text()).expect("text").replace('\0', " ");
    format!("status {status:04x} flags {flags:02x} closed {:?}: {text}", client.closed)
}

#[test]
fn the_matrix_of_logins_is_as_recorded() {
    let base = [INITIATOR, TARGET].concat();
    let cases: [(&str, u8, String); 17] = [
        ("nothing said", NORMAL, String::new()),
        ("no target", NORMAL, INITIATOR.into()),
        ("no initiator", NORMAL, TARGET.into()),
        ("no such target", NORMAL, format!("{INITIATOR}TargetName=iqn.2026-11.io.holdfast:none\0")),
        ("foreign target", NORMAL, format!("{INITIATOR}TargetName=demo\0")),
        ("discovery", NORMAL, format!("{INITIATOR}SessionType=Discovery\0InitialR2T=Yes\0")),
        ("odd session type", NORMAL, format!("{base}SessionType=Odd\0")),
        ("plain", NORMAL, base.clone()),
        ("from security", FINAL | 1, format!("{base}AuthMethod=CHAP,None\0")),
        ("from security to the end", FINAL | 3, format!("{base}AuthMethod=None\0")),
        ("chap only, none is set", FINAL | 1, format!("{base}AuthMethod=CHAP\0")),
        (
            "all keys",
            NORMAL,
            format!(
                "{base}HeaderDigest=None,CRC32C\0DataDigest=CRC32C\0InitialR2T=No\0ImmediateData=Yes\0\
                 MaxBurstLength=16776192\0FirstBurstLength=4096\0MaxOutstandingR2T=4\0MaxConnections=8\0\
                 DefaultTime2Wait=0\0DefaultTime2Retain=20\0ErrorRecoveryLevel=2\0DataPDUInOrder=No\0\
                 DataSequenceInOrder=No\0MaxRecvDataSegmentLength=262144\0IFMarker=Yes\0OFMarkInt=1~2\0\
                 TaskReporting=FastAbort,RFC3720\0iSCSIProtocolLevel=2\0X-unknown=1\0"
            ),
        ),
        ("values out of bounds", NORMAL, format!("{base}MaxBurstLength=1\0InitialR2T=Maybe\0")),
        ("a length that breaks the rule", NORMAL, format!("{base}MaxRecvDataSegmentLength=1\0")),
        ("a key twice", NORMAL, format!("{base}ImmediateData=No\0ImmediateData=No\0")),
        ("not a pair", NORMAL, format!("{base}nonsense\0")),
        ("backwards", FINAL | (1 << 2), base),
    ];
    let lines: Vec<String> =
        cases.iter().map(|(name, flags, text)| format!("{name}\n    {}", outcome(*flags, text))).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_node_that_never_joined_is_out_of_service_and_not_without_the_target() {
    for text in [[INITIATOR, TARGET].concat(), format!("{INITIATOR}SessionType=Discovery\0")] {
        let mut client = Client::connect(Exports { not_joined: true, ..Exports::default() });
        client.login(NORMAL, &text);
        assert_eq!(client.hear().header.u16(36), 0x0301, "service unavailable");
        assert_eq!(client.closed, Some(CloseReason::NotReady));
    }
}

#[test]
fn the_nexus_is_the_initiator_and_its_isid() {
    let client = Client::logged_in("");
    let login = client.login.expect("logged in");
    assert_eq!(login.initiator, "iqn.2026-11.test:a");
    assert_eq!(login.nexus, "iqn.2026-11.test:a,i,0x800102030405");
    assert_eq!(login.volume, Some(VolumeId(7)));
}

#[test]
fn text_over_several_pdus_is_read_as_one_and_bounded() {
    let mut client = Client::connect(exports());
    client.login(0x40 | (1 << 2), "InitiatorName=iqn.2026-11.te");
    assert_eq!(client.heard_text(), "");
    client.login(NORMAL, &["st:a\0", TARGET].concat());
    assert_eq!(client.hear().header.u16(36), 0);
    assert_eq!(client.login.map(|l| l.initiator), Some("iqn.2026-11.test:a".into()));

    let mut endless = Client::connect(exports());
    for _ in 0..9 {
        endless.login(0x40 | (1 << 2), &"a".repeat(8000));
    }
    assert!(matches!(endless.closed, Some(CloseReason::Protocol(_))), "{:?}", endless.closed);
}

fn secret() -> ChapSecret {
    ChapSecret { user: "alice".into(), secret: "correct-horse-1".into() }
}

fn guarded() -> Client {
    let mut exports = exports();
    exports.chap = Some(secret());
    Client::connect(exports)
}

#[test]
fn with_a_secret_no_login_passes_without_chap() {
    let base = [INITIATOR, TARGET].concat();
    for (flags, text) in [
        (NORMAL, base.clone()),
        (NORMAL, format!("{INITIATOR}SessionType=Discovery\0")),
        (FINAL | 1, format!("{base}AuthMethod=None\0")),
    ] {
        let mut client = guarded();
        client.login(flags, &text);
        assert_eq!(client.hear().header.u16(36), 0x0201);
        assert_eq!(client.closed, Some(CloseReason::AuthenticationFailed));
    }
    // Asking for the next stage without a method is not refused, but the stage is not left.
    let mut client = guarded();
    client.login(FINAL | 3, &base);
    assert_eq!(client.hear().header.flags() & FINAL, 0);
    assert_eq!(client.login, None);
}

#[test]
fn a_portal_that_other_hosts_reach_lets_nobody_in_while_no_secret_is_set() {
    let base = [INITIATOR, TARGET].concat();
    for text in [base.clone(), format!("{INITIATOR}SessionType=Discovery\0")] {
        let mut client = Client::connect_to(true, exports());
        client.login(NORMAL, &text);
        assert_eq!(client.hear().header.u16(36), 0x0202);
        assert_eq!(client.closed, Some(CloseReason::NoSecret));
    }
    let mut client = Client::connect_to(true, Exports { chap: Some(secret()), ..exports() });
    client.login(0, &format!("{base}AuthMethod=CHAP\0"));
    assert_eq!(client.heard_text(), "TargetPortalGroupTag=1 AuthMethod=CHAP ");
}

#[test]
fn chap_is_answered_in_its_order_only() {
    let base = [INITIATOR, TARGET].concat();
    let mut client = guarded();
    client.login(0, &format!("{base}AuthMethod=CHAP,None\0"));
    assert_eq!(client.heard_text(), "TargetPortalGroupTag=1 AuthMethod=CHAP ");
    client.login(0, "CHAP_A=5\0");
    let text = client.heard_text();
    assert!(text.starts_with("CHAP_A=5 CHAP_I=9 CHAP_C=0x"), "{text}");
    client.login(FINAL | 1, "CHAP_N=alice\0CHAP_R=0x00000000000000000000000000000000\0");
    assert_eq!(client.hear().header.u16(36), 0x0201);

    let mut early = guarded();
    early.login(0, &format!("{base}AuthMethod=CHAP\0CHAP_N=alice\0CHAP_R=0x00\0"));
    assert_eq!(early.hear().header.u16(36), 0x0201);
    let mut mutual = guarded();
    mutual.login(0, &format!("{base}AuthMethod=CHAP\0CHAP_I=1\0CHAP_C=0x00\0"));
    assert_eq!(mutual.hear().header.u16(36), 0x0201);
}

#[test]
fn a_login_that_is_not_finished_in_time_ends() {
    let mut client = Client::connect(exports());
    assert_eq!(client.session.next_timer(), Some(Time(0) + crate::session::LOGIN_TIMEOUT));
    client.after(Duration::from_secs(14));
    assert_eq!(client.closed, None);
    client.after(Duration::from_secs(1));
    assert_eq!(client.closed, Some(CloseReason::Timeout));
}

#[test]
fn discovery_names_every_target_and_its_portal() {
    let mut client = Client::connect(exports());
    client.login(NORMAL, &format!("{INITIATOR}SessionType=Discovery\0"));
    client.hear();
    let ask = |client: &mut Client, text: &str| {
        client.numbered(request::TEXT, 5, |_| {}, text.as_bytes());
        client.heard_text()
    };
    let demo = "TargetName=iqn.2026-11.io.holdfast:demo TargetAddress=127.0.0.1:3260,1 ";
    assert_eq!(ask(&mut client, "SendTargets=All\0"), demo);
    assert_eq!(ask(&mut client, "SendTargets=iqn.2026-11.io.holdfast:demo\0"), demo);
    assert_eq!(ask(&mut client, "SendTargets=iqn.2026-11.io.holdfast:none\0"), "");
    assert_eq!(ask(&mut client, "Unheard=1\0"), "Unheard=NotUnderstood ");
    client.command(6, &[0; 6], 0, 0, &[]);
    assert_eq!(client.hear().header.opcode(), crate::pdu::response::REJECT);
}

#[test]
fn a_long_list_of_targets_comes_in_as_many_parts_as_the_initiator_takes() {
    let mut client = Client::connect(exports());
    for n in 0..400 {
        let export = Export { volume: VolumeId(100 + n), size: 1 << 20, unique_id: n };
        client.exports.volumes.insert(format!("volume-{n:03}"), export);
    }
    client.login(NORMAL, &format!("{INITIATOR}SessionType=Discovery\0"));
    client.hear();
    client.numbered(request::TEXT, 5, |_| {}, b"SendTargets=All\0");
    let mut text = Vec::new();
    loop {
        let part = client.hear();
        assert!(part.header.data_bytes() <= 8192);
        text.extend(part.text());
        if part.header.is_final() {
            break;
        }
        let tag = part.header.transfer_tag();
        client.numbered(request::TEXT, 5, |h| h.set_u32(20, tag), b"");
    }
    assert_eq!(String::from_utf8(text).expect("text").matches("TargetName=").count(), 401);
}
