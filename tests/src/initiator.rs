//! One connection to the volume over either protocol: what a test wants to do over both, it does over this. Over
//! iSCSI it is libiscsi without its own reconnect, so that a lost connection is seen as it is over NBD.

use crate::cluster::VOLUME;
use crate::hosts;
use crate::libiscsi::Session;
use crate::nbd::Client;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// How to speak to the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// NBD, by a client of this tree.
    Nbd,
    /// iSCSI, by libiscsi.
    Iscsi,
}

/// A connection.
pub enum Initiator {
    /// Over NBD.
    Nbd(Client),
    /// Over iSCSI, with how long an answer may take.
    Iscsi(Session, Duration),
}

/// Sessions of one initiator differ by their ISID. Tests that choose their own take small ones.
static NEXT_ISID: AtomicU32 = AtomicU32::new(0x1000);

impl Initiator {
    /// Connects to the volume. An answer that takes longer than `limit` is an error.
    pub fn connect(protocol: Protocol, address: &str, limit: Duration) -> io::Result<Initiator> {
        match protocol {
            Protocol::Nbd => Client::connect(address, VOLUME, limit).map(Initiator::Nbd),
            Protocol::Iscsi => {
                let target = format!("iqn.2026-11.io.holdfast:{VOLUME}");
                let isid = NEXT_ISID.fetch_add(1, Ordering::Relaxed);
                let session = Session::login_as(&format!("{}:3260", hosts::enter(address)), &target, isid);
                session.map(|s| Initiator::Iscsi(s, limit)).map_err(io::Error::other)
            }
        }
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Initiator::Nbd(client) => client.read(offset, len),
            Initiator::Iscsi(session, limit) => session.read(offset, len, *limit).map_err(io::Error::other),
        }
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        match self {
            Initiator::Nbd(client) => client.write(offset, data),
            Initiator::Iscsi(session, limit) => session.write(offset, data, *limit).map_err(io::Error::other),
        }
    }
}
