//! The bad network.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use sluicegate_testkit::proxy::TcpProxy;
use sluicegate_testkit::wait::{SOON, until_blocking};

/// A connection through a proxy: the client's end, the server's end.
fn through(listener: &TcpListener, proxy: &TcpProxy) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.addr()).unwrap();
    let (server, _) = listener.accept().unwrap();
    for end in [&client, &server] {
        end.set_read_timeout(Some(SOON)).unwrap();
    }
    (client, server)
}

fn start() -> (TcpListener, TcpProxy) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = TcpProxy::start(listener.local_addr().unwrap());
    (listener, proxy)
}

fn heard(end: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut heard = vec![0; bytes];
    end.read_exact(&mut heard).unwrap();
    heard
}

/// Nothing can be read from a socket now, and it is not closed.
fn is_silent(end: &mut TcpStream) -> bool {
    end.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let read = end.read(&mut [0]);
    end.set_read_timeout(Some(SOON)).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn it_forwards_both_ways_and_each_end() {
    let (listener, proxy) = start();
    let (mut client, mut server) = through(&listener, &proxy);
    client.write_all(b"ask").unwrap();
    assert_eq!(heard(&mut server, 3), b"ask");
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "the end is heard, and the other way stays open");
    server.write_all(&[7; 300_000]).unwrap();
    drop(server);
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), 300_000);
    until_blocking("the proxy forgets the connection", SOON, || proxy.connections() == 0);
}

#[test]
fn a_blackhole_closes_nothing_and_what_it_held_arrives_late() {
    let (listener, proxy) = start();
    let (mut client, mut server) = through(&listener, &proxy);
    proxy.blackhole();
    client.write_all(b"lost?").unwrap();
    assert!(is_silent(&mut server) && is_silent(&mut client));
    // Not even the end of a peer is heard.
    drop(client);
    let mut newcomer = TcpStream::connect(proxy.addr()).unwrap();
    newcomer.write_all(b"hello").unwrap();
    assert!(is_silent(&mut server));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "the newcomer gets nowhere");
    listener.set_nonblocking(false).unwrap();
    proxy.heal();
    assert_eq!(heard(&mut server, 5), b"lost?");
    assert_eq!(server.read(&mut [0]).unwrap(), 0, "then its end");
    let (mut second, _) = listener.accept().unwrap();
    assert_eq!(heard(&mut second, 5), b"hello");
}

#[test]
fn a_cut_resets_both_ends_and_the_next_connection_passes() {
    let (listener, proxy) = start();
    let (mut client, mut server) = through(&listener, &proxy);
    proxy.cut();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    let (mut client, mut server) = through(&listener, &proxy);
    server.write_all(b"well").unwrap();
    assert_eq!(heard(&mut client, 4), b"well");
    drop(proxy);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_cut_works_in_a_blackhole_too() {
    let (listener, proxy) = start();
    let (mut client, mut server) = through(&listener, &proxy);
    proxy.blackhole();
    client.write_all(b"never").unwrap();
    proxy.cut();
    assert_eq!(server.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_delay_holds_each_way() {
    let (listener, proxy) = start();
    let (mut client, mut server) = through(&listener, &proxy);
    let delay = Duration::from_millis(60);
    proxy.delay(delay);
    let start = Instant::now();
    client.write_all(b"a").unwrap();
    assert_eq!(heard(&mut server, 1), b"a");
    server.write_all(b"b").unwrap();
    assert_eq!(heard(&mut client, 1), b"b");
    assert!(start.elapsed() >= 2 * delay, "a timer is never early: {:?}", start.elapsed());
    proxy.heal();
    client.write_all(b"c").unwrap();
    assert_eq!(heard(&mut server, 1), b"c");
}

#[tokio::test]
async fn it_can_be_started_and_dropped_within_a_runtime() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = TcpProxy::start(listener.local_addr().unwrap());
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    assert!(listener.accept().is_ok());
    drop(proxy);
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn a_target_that_refuses_resets_the_client() {
    let (listener, proxy) = start();
    drop(listener);
    let mut client = TcpStream::connect(proxy.addr()).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
