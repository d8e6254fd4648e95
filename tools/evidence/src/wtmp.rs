//! Login records (`wtmp`): boots, shutdowns and logins in the 384-byte layout of Linux on 64-bit machines.
//!
//! Promise: reads whole records only, ignores a torn last one, never trusts a length. It does not read the 32-bit-time
//! variants of other systems. Source: utmp(5), bits/utmp.h of glibc.

/// Length of one record.
pub const RECORD_LEN: usize = 384;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WtmpKind {
    /// The machine booted (`BOOT_TIME`).
    Boot,
    /// The machine was shut down in order (`RUN_LVL` with the user `shutdown`).
    Shutdown,
    /// Somebody logged in (`USER_PROCESS`).
    Login,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WtmpRecord {
    /// What happened.
    pub kind: WtmpKind,
    /// Seconds since 1970 UTC, as the machine's clock had it.
    pub seconds: i64,
    /// User name.
    pub user: String,
    /// Terminal.
    pub line: String,
    /// Remote host, if the login came from one.
    pub host: String,
}

/// Parses one record; `None` for kinds that say nothing here or that are damaged.
pub fn parse_record(bytes: &[u8]) -> Option<WtmpRecord> {
    if bytes.len() < RECORD_LEN {
        return None;
    }
    let word = |at: usize| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let text = |from: usize, len: usize| {
        let field = &bytes[from..from + len];
        let end = memchr::memchr(0, field).unwrap_or(len);
        crate::text::printable(&field[..end], len)
    };
    let user = text(44, 32);
    let kind = match word(0) & 0xffff {
        2 => WtmpKind::Boot,
        1 if user == "shutdown" => WtmpKind::Shutdown,
        7 => WtmpKind::Login,
        _ => return None,
    };
    let seconds = i64::from(word(340));
    (seconds > 0).then(|| WtmpRecord { kind, seconds, user, line: text(8, 32), host: text(76, 256) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_record_is_read_and_a_torn_one_is_not() {
        let mut raw = vec![0u8; RECORD_LEN];
        raw[0] = 2;
        raw[44..50].copy_from_slice(b"reboot");
        raw[340..344].copy_from_slice(&1_452_161_591i32.to_le_bytes());
        let record = parse_record(&raw).expect("a whole record");
        assert_eq!((record.kind, record.seconds), (WtmpKind::Boot, 1_452_161_591));
        assert_eq!(parse_record(&raw[..100]), None);
        raw[0] = 99;
        assert_eq!(parse_record(&raw), None);
    }
}
