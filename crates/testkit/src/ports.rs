//! Ports for servers that must be told theirs, and keep it over a restart.

use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// Below the ports that the kernel gives to outgoing connections, so that none of those takes the port while its
/// server is down.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port of loopback that nobody listens on at this moment, drawn at random.
///
/// Another process may take it before its server does; a server that finds it taken must be started with another.
/// What can listen on port 0 should.
///
/// # Panics
/// If no port is free in a thousand draws.
#[must_use]
pub fn free_port() -> u16 {
    let draw = || {
        // The standard library's source of random keys: it needs no crate and no seed.
        let random = std::hash::RandomState::new().build_hasher().finish();
        FIRST + u16::try_from(random % u64::from(COUNT)).expect("less than COUNT")
    };
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(draw).take(1000).find(is_free).expect("one of a thousand ports is free")
}

/// `127.0.0.1` with this port.
#[must_use]
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
