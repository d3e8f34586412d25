//! A connection that hears the pushes to one gate.

use std::time::{Duration, Instant};

use redis::{Value, cmd};
use sluicegate::link::{Ear, LinkError, Names};
use sluicegate_core::shared::Push;

use crate::codec;
use crate::fault;
use crate::greet::text;
use crate::wire::Wire;

/// Subscribed to a gate's channel. In a Cluster too by plain `SUBSCRIBE`: the script publishes on the same node.
#[derive(Debug)]
pub(crate) struct RedisEar {
    wire: Wire,
    channel: String,
    /// After so long without a word it asks whether the server is still there, and after so long again it is not.
    beat: Duration,
    heard: Instant,
    /// When it asked, until it hears anything.
    asked: Option<Instant>,
}

impl RedisEar {
    pub(crate) fn new(
        mut wire: Wire,
        channel: String,
        beat: Duration,
        time: Duration,
    ) -> Result<RedisEar, LinkError> {
        let said = wire.call("SUBSCRIBE", cmd("SUBSCRIBE").arg(&channel), time)?;
        if !matches!(&said, Value::Array(parts) if parts.first().and_then(text) == Some("subscribe")) {
            return Err(fault::protocol(wire.place(), &format!("`SUBSCRIBE` answered {said:?}")));
        }
        Ok(RedisEar { wire, channel, beat, heard: Instant::now(), asked: None })
    }

    /// Asks whether the server still listens to this connection, and hears the answer.
    pub(crate) fn ping(&mut self, time: Duration) -> Result<(), LinkError> {
        let said = self.wire.call("PING", &cmd("PING"), time)?;
        self.payload(&said).map(drop)
    }

    /// Nothing came: a connection that is silent for long may be dead, and nobody else would notice.
    fn see_whether_it_lives(&mut self) -> Result<(), LinkError> {
        match self.asked {
            Some(asked) if asked.elapsed() >= self.beat => {
                Err(fault::lost(self.wire.place(), &std::io::ErrorKind::TimedOut.into()))
            }
            None if self.heard.elapsed() >= self.beat => {
                self.asked = Some(Instant::now());
                // The answer is heard like any word.
                self.wire.send(&cmd("PING"), self.beat)
            }
            _ => Ok(()),
        }
    }

    /// The payload of a message, if the value is one of ours.
    fn payload<'a>(&self, value: &'a Value) -> Result<Option<&'a str>, LinkError> {
        let odd = || fault::protocol(self.wire.place(), &format!("on a subscription came {value:?}"));
        if let Value::ServerError(error) = value {
            return Err(fault::refused(self.wire.place(), "to go on with the subscription", error));
        }
        let Value::Array(parts) = value else { return Err(odd()) };
        match &parts[..] {
            [kind, channel, payload] if text(kind) == Some("message") => {
                let is_ours = text(channel) == Some(&self.channel);
                if is_ours { text(payload).map(Some).ok_or_else(odd) } else { Err(odd()) }
            }
            [kind, _] if text(kind) == Some("pong") => Ok(None),
            _ => Err(odd()),
        }
    }
}

impl Ear for RedisEar {
    fn next(&mut self, names: &Names, patience: Duration) -> Result<Option<Push>, LinkError> {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // What has come is read before the silence is judged: this process may have been stopped meanwhile.
            let Some(value) = self.wire.wait(left.min(self.beat))? else {
                self.see_whether_it_lives()?;
                continue;
            };
            self.heard = Instant::now();
            self.asked = None;
            let Some(payload) = self.payload(&value)? else { continue };
            let push =
                codec::push(names, payload).map_err(|what| fault::protocol(self.wire.place(), &what))?;
            if push.is_some() {
                return Ok(push);
            }
        }
    }
}
