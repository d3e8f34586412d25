//! One request through a door, well-behaved or not.

use std::net::SocketAddr;
use std::time::Duration;

use sluicegate_testkit::client::Raw;
use tokio::sync::watch;
use tokio::time::timeout;

/// What a visitor does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Reads the whole answer.
    Reads(String),
    /// Leaves without a word when told to, unless it was answered before.
    LeavesWhenTold(String),
    /// Leaves after the first chunk of the answer.
    LeavesStreaming(String),
}

/// What it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A whole answer.
    Answer {
        status: u16,
        /// It bears the refusal's reason: it is the program's own.
        refused: bool,
    },
    /// The connection or the answer broke off.
    Broke,
    /// It left.
    Left,
}

/// Longest that a request may take: a door that forgets one must not hang the test.
const LONGEST: Duration = Duration::from_secs(60);

/// Runs an errand. `go` turns true when those who wait shall leave.
pub(crate) async fn visit(door: SocketAddr, errand: Errand, go: watch::Receiver<bool>) -> Seen {
    timeout(LONGEST, go_there(door, errand, go)).await.unwrap_or(Seen::Broke)
}

async fn go_there(door: SocketAddr, errand: Errand, mut go: watch::Receiver<bool>) -> Seen {
    let (Errand::Reads(path) | Errand::LeavesWhenTold(path) | Errand::LeavesStreaming(path)) = &errand;
    let Ok(mut client) = Raw::connect(door).await else { return Seen::Broke };
    if client.request("GET", path, &["connection: close"]).await.is_err() {
        return Seen::Broke;
    }
    match errand {
        Errand::Reads(_) => answer(&mut client).await,
        Errand::LeavesWhenTold(_) => tokio::select! {
            seen = answer(&mut client) => seen,
            _ = go.wait_for(|go| *go) => Seen::Left,
        },
        Errand::LeavesStreaming(_) => match client.head().await {
            Ok(head) if head.status == 200 => {
                // A reset, as of a client that crashed; some doors see a plain close only when they write.
                let seen = client.chunk().await.is_ok_and(|chunk| chunk.is_some());
                let _ = client.abort();
                if seen { Seen::Left } else { Seen::Broke }
            }
            Ok(head) => {
                Seen::Answer { status: head.status, refused: !head.header("x-sluicegate-reason").is_empty() }
            }
            Err(_) => Seen::Broke,
        },
    }
}

async fn answer(client: &mut Raw) -> Seen {
    match client.answer().await {
        Ok(answer) => Seen::Answer {
            status: answer.head.status,
            refused: !answer.head.header("x-sluicegate-reason").is_empty(),
        },
        Err(_) => Seen::Broke,
    }
}
