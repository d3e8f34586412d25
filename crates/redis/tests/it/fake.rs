//! A server that says what a test wants, for what no real one does on demand.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;

use sluicegate_testkit::redis::client::{Parser, Value};

/// Serves one connection. It ends with the client's.
pub(crate) struct Fake {
    pub(crate) addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// What a master of version 7.2.4 answers to the first words.
pub(crate) fn greeting(command: &str) -> Option<String> {
    let info = "redis_version:7.2.4\r\nrun_id:00000000000000ff0123456789abcdef01234567\r\n";
    Some(match command {
        "CLIENT" => "+OK\r\n".to_owned(),
        "INFO" => format!("${}\r\n{info}\r\n", info.len()),
        "ROLE" => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_owned(),
        "FUNCTION" => "$4\r\nname\r\n".to_owned(),
        "SCRIPT" => format!("$40\r\n{}\r\n", "0".repeat(40)),
        _ => return None,
    })
}

impl Fake {
    /// Answers each command, of which `answer` gets the first word.
    pub(crate) fn start(mut answer: impl FnMut(&str, &mut TcpStream) + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let serve = move || {
            let (mut stream, _) = listener.accept().expect("the test connects");
            let mut parser = Parser::new();
            while let Ok(Value::Array(words)) = parser.parse_value(&mut stream) {
                let Some(Value::BulkString(name)) = words.first() else { panic!("no command: {words:?}") };
                let name = String::from_utf8(name.clone()).expect("a command's name");
                answer(&name, &mut stream);
            }
        };
        Fake { addr, thread: Some(std::thread::spawn(serve)) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // Its panic is the test's; a second one while the first unwinds would hide it.
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the fake server panicked");
        }
    }
}

/// Says it, unless the client has gone.
pub(crate) fn say(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}
