//! The ledger as the library wants it.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::{Cmd, Value};
use serde::{Deserialize, Serialize};
use sluicegate::link::{
    Document, Ear, Exchanged, GateGone, GateSeen, Ledger, LinkError, Names, RegisteredPod, Stored,
};
use sluicegate_core::shared::{GateId, Report, Timing};

use crate::codec::{self, Fields};
use crate::ear::RedisEar;
use crate::fault;
use crate::keys::Keys;
use crate::scripts::{DOCUMENT, EXCHANGE, GATES, Loaded};
use crate::settings::Settings;
use crate::topology::Dialer;
use crate::wire::Wire;

/// No call waits for less: a Redis that works off a long script is slow, not gone.
const TIME_MIN: Duration = Duration::from_millis(100);
/// Bounds of the time for reaching one address: enough for a handshake far away, and short enough that the next
/// Sentinel is asked while the gate's credit is still good.
const REACH: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// A pool's ledger in Redis, for one gate.
///
/// States: 1 made, without a connection; 2 connected by [`Ledger::connect`]; after any error of any call 1 again.
/// Calls without a connection fail, they do not make one.
#[derive(Debug)]
pub struct RedisLedger {
    dialer: Dialer,
    keys: Keys,
    label: String,
    timing: Timing,
    link: Option<Link>,
}

/// A connection and what its server knows.
#[derive(Debug)]
struct Link {
    wire: Wire,
    exchange: Loaded,
    document: Loaded,
    gates: Loaded,
}

impl RedisLedger {
    /// The ledger of `pool`. `label` is shown to those who watch, beside the gate's id. Nothing is connected yet.
    #[must_use]
    pub fn new(settings: Settings, pool: &str, label: &str, timing: Timing) -> RedisLedger {
        let time = Duration::from_micros(timing.heartbeat_us()).clamp(REACH.0, REACH.1);
        RedisLedger {
            dialer: Dialer { settings, time },
            keys: Keys::of(pool),
            label: label.to_owned(),
            timing,
            link: None,
        }
    }

    fn time(&self) -> Duration {
        Duration::from_micros(self.timing.timeout_us).max(TIME_MIN)
    }

    /// Runs a script. The connection is back in its place only when that went well.
    fn run<T>(
        &mut self,
        script: impl Fn(&Link) -> &Loaded,
        keys: &[String],
        arguments: impl FnOnce(&mut Cmd) -> Result<(), String>,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Result<T, LinkError> {
        let time = self.time();
        let Some(mut link) = self.link.take() else {
            return Err(fault::unreachable(&"Redis", &"not connected"));
        };
        let mut command = script(&link).command(keys);
        arguments(&mut command).map_err(|what| fault::protocol("the gate", &what))?;
        let loaded = script(&link).clone();
        let said = loaded.run(&mut link.wire, &command, time)?;
        let answer = read(&said).map_err(|what| fault::protocol(link.wire.place(), &what))?;
        self.link = Some(link);
        Ok(answer)
    }
}

impl Ledger for RedisLedger {
    fn connect(&mut self, _gate: GateId) -> Result<u64, LinkError> {
        self.link = None;
        let (mut wire, server) = self.dialer.dial(&self.keys)?;
        let time = self.dialer.time;
        let mut load = |script: crate::scripts::Script| script.load(&mut wire, time).map_err(fault::at_start);
        let (exchange, document, gates) = (load(EXCHANGE)?, load(DOCUMENT)?, load(GATES)?);
        self.link = Some(Link { wire, exchange, document, gates });
        Ok(server.identity)
    }

    fn exchange(&mut self, names: &Names, report: &Report) -> Result<Exchanged, LinkError> {
        let (keys, channels, label) = (self.keys.all(), self.keys.channels(), self.label.clone());
        self.run(
            |link| &link.exchange,
            &keys,
            |command| codec::report(command, &channels, &label, names, report),
            |said| codec::reply(names, report, said),
        )
    }

    fn listen(&mut self, gate: GateId) -> Result<Box<dyn Ear>, LinkError> {
        let (wire, _) = self.dialer.dial(&self.keys)?;
        let beat = Duration::from_micros(self.timing.heartbeat_us());
        let ear = RedisEar::new(wire, self.keys.channel(gate), beat, self.dialer.time);
        Ok(Box::new(ear.map_err(fault::at_start)?))
    }

    fn document(&mut self) -> Result<Document, LinkError> {
        let keys = [self.keys.document()];
        let arguments = |command: &mut Cmd| {
            command.arg("get");
            Ok(())
        };
        self.run(|link| &link.document, &keys, arguments, read_document)
    }

    fn store(&mut self, expected: u64, document: &Document) -> Result<Stored, LinkError> {
        let keys = [self.keys.document()];
        let pods = pods_text(&document.pods);
        let arguments = |command: &mut Cmd| {
            command.arg("store").arg(expected).arg(&document.patch).arg(pods).arg(document.version);
            Ok(())
        };
        self.run(
            |link| &link.document,
            &keys,
            arguments,
            |said| {
                let mut fields = Fields::of_value("the answer to `store`", said)?;
                let (is_stored, version) = (fields.flag("stored")?, fields.number("version")?);
                fields.end()?;
                Ok(if is_stored { Stored::Stored(version) } else { Stored::Conflict(version) })
            },
        )
    }

    fn gates(&mut self) -> Result<Vec<GateSeen>, LinkError> {
        let [state, _, _, seen, ..] = self.keys.all();
        self.run(|link| &link.gates, &[state, seen], |_| Ok(()), read_gates)
    }

    fn gone(&mut self) -> Result<Vec<GateGone>, LinkError> {
        let [state, _, _, seen, ..] = self.keys.all();
        let arguments = |command: &mut Cmd| {
            command.arg("gone");
            Ok(())
        };
        self.run(|link| &link.gates, &[state, seen], arguments, read_gone)
    }
}

/// A registered pod as the document has it.
#[derive(Serialize, Deserialize)]
struct PodText {
    url: String,
    capacity: u32,
    until_ms: u64,
}

fn pods_text(pods: &BTreeMap<String, RegisteredPod>) -> String {
    let text = |pod: &RegisteredPod| PodText {
        url: pod.url.clone(),
        capacity: pod.capacity,
        until_ms: pod.until_ms,
    };
    let pods: BTreeMap<&str, PodText> = pods.iter().map(|(name, pod)| (name.as_str(), text(pod))).collect();
    serde_json::to_string(&pods).expect("strings and integers are always JSON")
}

fn read_document(said: &Value) -> Result<Document, String> {
    let mut fields = Fields::of_value("the document", said)?;
    let version = fields.number("version")?;
    let patch = fields.text("patch")?.to_owned();
    let pods: BTreeMap<String, PodText> = serde_json::from_str(fields.text("pods")?)
        .map_err(|error| format!("the registered pods in the document cannot be read: {error}"))?;
    let now_ms = fields.number("server time")?;
    fields.end()?;
    let pod = |pod: PodText| RegisteredPod { url: pod.url, capacity: pod.capacity, until_ms: pod.until_ms };
    let pods = pods.into_iter().map(|(name, text)| (name, pod(text))).collect();
    Ok(Document { version, patch, pods, now_ms })
}

fn read_gates(said: &Value) -> Result<Vec<GateSeen>, String> {
    /// Fields of one gate.
    const WIDTH: usize = 8;
    let mut fields = Fields::of_value("the list of gates", said)?;
    let count = match said {
        Value::Array(fields) => fields.len() / WIDTH,
        _ => 0,
    };
    let mut gates = Vec::with_capacity(count);
    for _ in 0..count {
        gates.push(GateSeen {
            id: gate_id(fields.text("gate")?)?,
            label: fields.text("label")?.to_owned(),
            in_use: fields.number("units in use")?,
            credit: fields.number("credit")?,
            waiting: fields.number("asks waiting")?,
            last_seen_ms: fields.number("last seen")?,
            version: fields.number("version")?,
            digest: fields.number("digest")?,
        });
    }
    fields.end()?;
    Ok(gates)
}

fn read_gone(said: &Value) -> Result<Vec<GateGone>, String> {
    let mut fields = Fields::of_value("the list of gates that are gone", said)?;
    let count = match said {
        Value::Array(fields) => fields.len() / 2,
        _ => 0,
    };
    let mut gone = Vec::with_capacity(count);
    for _ in 0..count {
        let id = gate_id(fields.text("gate")?)?;
        gone.push(GateGone { id, back_ms: fields.number("milliseconds until its units come back")? });
    }
    fields.end()?;
    Ok(gone)
}

fn gate_id(text: &str) -> Result<GateId, String> {
    u128::from_str_radix(text, 16).map(GateId).map_err(|_| format!("`{text}` is no gate's id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect())
    }

    #[test]
    fn gates_are_read_whole_or_not_at_all() {
        let one = ["000000000000000000000000000000ff", "west", "3", "4", "5", "6", "7", "8"];
        let gates = read_gates(&said(&one)).expect("well formed");
        let expected = GateSeen {
            id: GateId(255),
            label: "west".into(),
            in_use: 3,
            credit: 4,
            waiting: 5,
            last_seen_ms: 6,
            version: 7,
            digest: 8,
        };
        assert_eq!(gates, [expected]);
        assert_eq!(read_gates(&said(&[])), Ok(vec![]));
        assert!(read_gates(&said(&one[..7])).is_err_and(|why| why.contains("7 fields too many")));
        let gone = read_gone(&said(&["000000000000000000000000000000ff", "9"]));
        assert_eq!(gone, Ok(vec![GateGone { id: GateId(255), back_ms: 9 }]));
        assert!(read_gone(&said(&["g", "9"])).is_err_and(|why| why.contains("no gate's id")));
    }

    #[test]
    fn a_document_that_was_broken_by_hand_is_named() {
        let error = read_document(&said(&["1", "", "{\"a\":1}", "5"])).expect_err("no pod");
        assert!(error.starts_with("the registered pods in the document cannot be read:"), "{error}");
    }
}
