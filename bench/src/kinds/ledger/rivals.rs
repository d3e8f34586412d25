//! The obvious way: Redis decides each request, one command to take units and one to give them back. Made as well as
//! it can be: each gate has one connection, and what its thread says in one step leaves in one packet, as the
//! multiplexing clients do.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use sluicegate_sim::Arrival;
use sluicegate_testkit::redis::Redis;
use sluicegate_testkit::redis::client::{Cmd, Parser, Value, cmd};

use super::drive::{Answer, Bell, Way};
use super::gates::World;
use crate::Outcome;

/// Takes `ARGV[1]` units on the narrowest pod that has them (best fit, as the gates do). `KEYS[1]`: a sorted set of pods
/// by free units. Answers the pod, or -1.
const TAKE: &str = "local pod = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'LIMIT', 0, 1)[1]
if not pod then return -1 end
redis.call('ZINCRBY', KEYS[1], -ARGV[1], pod)
return tonumber(pod)";

/// Gives `ARGV[1]` units of pod `ARGV[2]` back.
const GIVE: &str = "redis.call('ZINCRBY', KEYS[1], ARGV[1], ARGV[2])
return 0";

const FREE: &str = "rival:free";

/// Pods that a request without a script tries before it is refused.
const TRIES: u32 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Two scripts over one sorted set.
    Scripts,
    /// A counter for each pod: `DECRBY`, and `INCRBY` when that went below zero.
    Counters,
}

/// What all gates need to know of the rival's keys.
pub(super) struct Rival {
    kind: Kind,
    pods: usize,
    take: String,
    give: String,
}

impl Rival {
    /// Fills the pods of `world` anew.
    ///
    /// # Errors
    /// Redis's.
    pub(super) fn new(redis: &Redis, kind: Kind, world: &World) -> Outcome<Rival> {
        let said = |error| format!("the rival's keys: {error}");
        redis.call::<i64>(&["DEL", FREE]).map_err(said)?;
        let units = world.units.to_string();
        for pod in 0..world.pods {
            redis.call::<()>(&["ZADD", FREE, &units, &pod.to_string()]).map_err(said)?;
            redis.call::<()>(&["SET", &counter(pod), &units]).map_err(said)?;
        }
        let load = |script: &str| redis.call::<String>(&["SCRIPT", "LOAD", script]).map_err(said);
        Ok(Rival { kind, pods: world.pods, take: load(TAKE)?, give: load(GIVE)? })
    }

    /// A connection for the calling thread.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn way(&self, redis: &Redis, seed: u64) -> Outcome<Client<'_>> {
        let connected = TcpStream::connect(redis.addr()).and_then(|stream| {
            stream.set_nodelay(true)?;
            let reads = stream.try_clone()?;
            Ok((stream, reads))
        });
        let (stream, reads) = connected.map_err(|error| format!("connect to Redis: {error}"))?;
        let bell = Bell::new();
        let rings = Arc::clone(&bell);
        let reader = std::thread::spawn(move || read(reads, &rings));
        Ok(Client {
            rival: self,
            stream,
            reader: Some(reader),
            bell,
            said: Vec::new(),
            sent: VecDeque::new(),
            heard: Vec::new(),
            state: seed,
        })
    }
}

fn counter(pod: usize) -> String {
    format!("rival:pod:{pod}")
}

/// The reading thread: rings for each answer, until the connection ends.
fn read(mut stream: TcpStream, bell: &Bell<Outcome<i64>>) {
    let mut parser = Parser::new();
    loop {
        match parser.parse_value(&mut stream) {
            Ok(Value::Int(number)) => bell.ring(Ok(number)),
            Ok(other) => bell.ring(Err(format!("Redis said {other:?}"))),
            Err(_) => return,
        }
    }
}

/// What an answer will be the answer to.
#[derive(Clone, Copy, Debug)]
enum Sent {
    Take {
        id: usize,
        weight: u32,
        /// Which pod's counter; unused by the scripts.
        pod: usize,
        /// The how manieth try.
        tries: u32,
    },
    Give,
}

/// One gate's connection.
pub(super) struct Client<'a> {
    rival: &'a Rival,
    stream: TcpStream,
    /// `None` once it was joined.
    reader: Option<JoinHandle<()>>,
    bell: Arc<Bell<Outcome<i64>>>,
    /// Commands of this step.
    said: Vec<u8>,
    /// Answers come in the order of the commands.
    sent: VecDeque<Sent>,
    heard: Vec<Outcome<i64>>,
    /// For the choice of pods.
    state: u64,
}

impl Client<'_> {
    fn say(&mut self, command: &Cmd, sent: Sent) {
        command.write_packed_command(&mut self.said);
        self.sent.push_back(sent);
    }

    fn take(&mut self, id: usize, weight: u32, tries: u32) {
        let rival = self.rival;
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pod = (self.state >> 33) as usize % rival.pods;
        let command = match rival.kind {
            Kind::Scripts => cmd("EVALSHA").arg(&rival.take).arg(1).arg(FREE).arg(weight).take(),
            Kind::Counters => cmd("DECRBY").arg(counter(pod)).arg(weight).take(),
        };
        self.say(&command, Sent::Take { id, weight, pod, tries });
    }

    fn give_back(&mut self, pod: usize, weight: u32) {
        let rival = self.rival;
        let command = match rival.kind {
            Kind::Scripts => cmd("EVALSHA").arg(&rival.give).arg(1).arg(FREE).arg(weight).arg(pod).take(),
            Kind::Counters => cmd("INCRBY").arg(counter(pod)).arg(weight).take(),
        };
        self.say(&command, Sent::Give);
    }

    fn answered(&mut self, sent: Sent, number: i64) -> Option<(usize, Answer)> {
        let Sent::Take { id, weight, pod, tries } = sent else { return None };
        match (self.rival.kind, usize::try_from(number)) {
            (Kind::Scripts, Ok(pod)) => Some((id, Answer::Runs(pod))),
            (Kind::Scripts, Err(_)) => Some((id, Answer::Refused)),
            (Kind::Counters, Ok(_)) => Some((id, Answer::Runs(pod))),
            (Kind::Counters, Err(_)) => {
                self.give_back(pod, weight);
                if tries == TRIES {
                    return Some((id, Answer::Refused));
                }
                self.take(id, weight, tries + 1);
                None
            }
        }
    }
}

impl Way for Client<'_> {
    fn ask(&mut self, id: usize, arrival: &Arrival) -> Outcome<Option<Answer>> {
        self.take(id, arrival.weight, 1);
        Ok(None)
    }

    fn hear(&mut self, answers: &mut Vec<(usize, Answer)>) -> Outcome<()> {
        let mut heard = std::mem::take(&mut self.heard);
        self.bell.take(&mut heard);
        for number in heard.drain(..) {
            let sent = self.sent.pop_front().ok_or("Redis answered what nobody asked")?;
            answers.extend(self.answered(sent, number?));
        }
        self.heard = heard;
        Ok(())
    }

    fn give(&mut self, _: usize, arrival: &Arrival, pod: usize) -> Outcome<()> {
        self.give_back(pod, arrival.weight);
        Ok(())
    }

    fn flush(&mut self) -> Outcome<()> {
        if self.said.is_empty() {
            return Ok(());
        }
        let sent = self.stream.write_all(&self.said).map_err(|error| format!("to Redis: {error}"));
        self.said.clear();
        sent
    }

    fn is_quiet(&self) -> bool {
        self.sent.is_empty()
    }
}

impl Drop for Client<'_> {
    fn drop(&mut self) {
        // Ends the reader; a connection that is gone already has ended it too.
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
