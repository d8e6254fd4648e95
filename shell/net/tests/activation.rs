//! Sockets handed over by systemd: the test runs itself again under systemd-socket-activate, which listens
//! first and starts the process at the first connection.

use holdfast_net::activation::Activated;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const INSIDE: &str = "HOLDFAST_TEST_ACTIVATION";

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the started process does: answers one connection on the second socket, picked by name.
fn inside(address: SocketAddr) {
    let mut sockets = Activated::take();
    let other: SocketAddr = "127.0.0.1:1".parse().unwrap();
    assert!(sockets.pick("", other).is_none());
    let by_name = sockets.pick("second", other).expect("picked by name");
    let by_address = sockets.pick("none of this name", address).expect("picked by address");
    assert_eq!(by_address.local_addr().unwrap(), address);
    assert!(sockets.left_over().is_empty());
    by_name.set_nonblocking(false).unwrap();
    by_name.accept().unwrap().0.write_all(b"taken over").unwrap();
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn sockets_of_systemd_are_taken_over_by_name_and_by_address() {
    if let Ok(address) = std::env::var(INSIDE) {
        return inside(address.parse().unwrap());
    }
    let (first, second) = (free_address(), free_address());
    let me = std::env::current_exe().unwrap();
    let child = Command::new("systemd-socket-activate")
        .args(["-l", &first.to_string(), "-l", &second.to_string(), "--fdname=first:second"])
        .args(["-E", &format!("{INSIDE}={first}")])
        .arg(me)
        .args(["--exact", "sockets_of_systemd_are_taken_over_by_name_and_by_address", "--test-threads=1"])
        .stdout(Stdio::null())
        .spawn()
        .expect("systemd-socket-activate is part of the package systemd");
    let _child = Killed(child);
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut stream = loop {
        match TcpStream::connect(second) {
            Ok(stream) => break stream,
            Err(e) => assert!(Instant::now() < deadline, "systemd-socket-activate does not listen: {e}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "taken over");
}

#[tokio::test]
async fn without_systemd_a_socket_is_made() {
    let address = free_address();
    let listener = Activated::default().listen("iscsi", address).unwrap();
    assert_eq!(listener.local_addr().unwrap(), address);
}
