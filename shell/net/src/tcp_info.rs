//! What the kernel counts of a TCP connection: tcp(7), TCP_INFO.
#![allow(unsafe_code)]

use holdfast_types::Packets;
use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::AsRawFd;
use tokio::net::TcpStream;

/// The packets with data that were sent over a connection since it was made. Those that had to be sent again count as lost,
/// but for those of which the other end said that they had arrived.
pub(crate) fn packets(socket: &TcpStream) -> io::Result<Packets> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    // SAFETY: `info` has room for `len` bytes, and the kernel writes no more; both outlive the call.
    let result = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &mut len)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain integers, zeroed first; an older kernel fills in fewer.
    let info = unsafe { info.assume_init() };
    let lost = info.tcpi_total_retrans.saturating_sub(info.tcpi_dsack_dups);
    Ok(Packets { sent: info.tcpi_data_segs_out, lost })
}
