//! The kit's own parts, where a fault would make other tests pass or fail for the wrong reason.

use std::io;
use std::time::Duration;

use sluicegate_testkit::client::Raw;
use sluicegate_testkit::process::Process;
use sluicegate_testkit::redis::Redis;
use sluicegate_testkit::wait::SOON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that reads once, answers `bytes` and closes.
async fn answering(bytes: &'static [u8]) -> Raw {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(bytes).await.unwrap();
    });
    Raw::connect(addr).await.unwrap()
}

#[tokio::test]
async fn chunks_and_trailers_are_read() {
    let mut client = answering(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nA: 1\r\na: 2\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nEnd: yes\r\n\r\n",
    )
    .await;
    let answer = client.get("/").await.unwrap();
    assert_eq!((answer.text().as_str(), answer.head.header("a")), ("abcde", "1, 2"));
    assert_eq!(answer.trailers["end"], "yes");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_an_error() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"[..],
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc"[..],
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"[..],
    ] {
        let error = answering(bytes).await.get("/").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[tokio::test]
async fn abort_is_a_reset_and_half_close_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let mut polite = Raw::connect(addr).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    polite.half_close().await.unwrap();
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    stream.write_all(b"still heard").await.unwrap();
    assert_eq!(polite.exactly(11).await.unwrap(), b"still heard");

    let rude = Raw::connect(addr).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    rude.abort().unwrap();
    let error = stream.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_process_is_heard_and_ended() {
    let mut child = Process::start("sh", &["-c", "echo port 7; echo oops >&2; exec sleep 600"]);
    let port: u16 = child.line(SOON, |line| line.strip_prefix("port ")?.parse().ok());
    assert_eq!(port, 7);
    child.line(SOON, |line| (line == "oops").then_some(()));
    child.terminate();
    assert_eq!(child.exit(SOON).code(), None, "ended by the signal, not by itself");
}

#[test]
#[should_panic(expected = "it printed:\ncannot")]
fn a_process_that_ends_early_says_what_it_printed() {
    // The line is never found; the end of the process must be, long before the deadline.
    let mut child = Process::start("sh", &["-c", "echo cannot; exit 3"]);
    child.line(Duration::from_secs(60), |line| (line == "ready").then_some(()));
}

#[test]
fn a_restarted_redis_is_empty() {
    let mut server = Redis::start();
    redis::cmd("SET").arg("a").arg(1).exec(&mut server.connect().unwrap()).unwrap();
    server.restart();
    let keys: u64 = redis::cmd("DBSIZE").query(&mut server.connect().unwrap()).unwrap();
    assert_eq!(keys, 0);
    server.kill();
    assert!(server.connect().is_err());
}
