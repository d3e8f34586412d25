//! Jobs that wait for room, kept in Redis for many gates.

use std::time::Duration;

use bytes::Bytes;
use redis::{Cmd, Value};
use sluicegate::jobs::record::{Meta, answer_to_bytes, work_of, work_to_bytes};
use sluicegate::jobs::{JobId, JobState, Op, Put, Said, Seen, Store, StoreError, Taken};
use sluicegate::link::LinkError;

use crate::fault;
use crate::keys::Keys;
use crate::scripts::{JOBS, Loaded};
use crate::settings::Settings;
use crate::topology::Dialer;
use crate::wire::Wire;

/// For reaching the server, and for each batch.
const TIME: Duration = Duration::from_secs(5);
/// Fields of a taken job.
const TAKEN_FIELDS: usize = 4;
/// Redis' own values of the states of an open job.
const RUNNING: &[u8] = b"r";

/// A [`Store`] in Redis. Jobs are as durable as the server is: with `appendonly yes` and `appendfsync always` what was
/// answered survives it, with `everysec` all but the last second does.
///
/// A connection is made with the first batch, and anew after an error.
#[derive(Debug)]
pub struct RedisJobs {
    dialer: Dialer,
    keys: Keys,
    link: Option<(Wire, Loaded)>,
}

impl RedisJobs {
    /// The jobs of `pool`. Nothing is connected yet.
    #[must_use]
    pub fn new(settings: Settings, pool: &str) -> RedisJobs {
        RedisJobs { dialer: Dialer { settings, time: TIME }, keys: Keys::of(pool), link: None }
    }

    fn run(&mut self, ops: &[Op], now_ms: u64) -> Result<Vec<Value>, LinkError> {
        let (mut wire, script) = match self.link.take() {
            Some(link) => link,
            None => {
                let (mut wire, _) = self.dialer.dial(&self.keys)?;
                let script = JOBS.load(&mut wire, TIME)?;
                (wire, script)
            }
        };
        let mut command = script.command(&["jobs", "taken", "later"].map(|name| self.keys.named(name)));
        command.arg(self.keys.named(""));
        ops.iter().for_each(|op| write(&mut command, op, now_ms));
        let said = script.run(&mut wire, &command, TIME)?;
        match said {
            Value::Array(said) if said.len() == ops.len() => {
                self.link = Some((wire, script));
                Ok(said)
            }
            other => Err(fault::protocol(wire.place(), &format!("the jobs' script answered {other:?}"))),
        }
    }
}

impl Store for RedisJobs {
    fn apply(&mut self, now_ms: u64, ops: &[Op]) -> Result<Vec<Said>, StoreError> {
        let said = self.run(ops, now_ms).map_err(|error| StoreError(error.to_string()))?;
        ops.iter().zip(said).map(|(op, said)| read(op, &said, now_ms)).collect()
    }

    fn is_shared(&self) -> bool {
        true
    }
}

fn write(command: &mut Cmd, op: &Op, now_ms: u64) {
    match op {
        Op::Put { id, job, print, most } => {
            let meta = Meta::new(job, *print, 0, now_ms).write();
            let key = job.key.as_deref().unwrap_or_default();
            command.arg("put").arg(id.to_string()).arg(key).arg(print.to_string()).arg(*most);
            command.arg(meta).arg(work_to_bytes(&job.work));
        }
        Op::Find(key) => {
            command.arg("find").arg(key);
        }
        Op::Look(id) => {
            command.arg("look").arg(id.to_string());
        }
        Op::Take { most, until_ms } => {
            command.arg("take").arg(*most).arg(until_ms.saturating_sub(now_ms));
        }
        Op::Renew(ids, until_ms) => {
            command.arg("renew").arg(until_ms.saturating_sub(now_ms)).arg(ids.len());
            ids.iter().for_each(|id| {
                command.arg(id.to_string());
            });
        }
        Op::Begin(id) => {
            command.arg("begin").arg(id.to_string());
        }
        Op::Finish { id, result, ends_ms } => {
            command.arg("finish").arg(id.to_string()).arg(ends_ms.saturating_sub(now_ms)).arg(*ends_ms);
            match result {
                Ok(outcome) => {
                    command.arg(outcome.status.as_u16()).arg(u8::from(outcome.truncated)).arg("");
                    command.arg(answer_to_bytes(outcome));
                }
                Err(why) => {
                    command.arg("").arg(0).arg(why).arg("");
                }
            }
        }
        Op::Back { id, from_ms, failed } => {
            command.arg("back").arg(id.to_string()).arg(from_ms.saturating_sub(now_ms));
            command.arg(failed.as_deref().unwrap_or_default());
        }
        Op::Cancel(id) => {
            command.arg("cancel").arg(id.to_string());
        }
        Op::Count => {
            command.arg("count");
        }
    }
}

fn read(op: &Op, said: &Value, now_ms: u64) -> Result<Said, StoreError> {
    let broken = || StoreError(format!("the jobs' script answered {said:?}"));
    let Value::Array(fields) = said else { return Err(broken()) };
    let first = fields.first();
    Ok(match op {
        Op::Put { id, job, print, .. } => Said::Put(Box::new(match first.and_then(bytes_of) {
            Some(b"stored") => {
                Put::Stored(Meta::new(job, *print, 0, now_ms).seen(*id, JobState::Queued, None))
            }
            Some(b"same") => Put::Same(seen(&fields[1..])?.ok_or_else(broken)?),
            Some(b"differs") => Put::Differs,
            Some(b"full") => Put::Full,
            _ => return Err(broken()),
        })),
        Op::Find(_) | Op::Look(_) => Said::Job(seen(fields)?.map(Box::new)),
        Op::Take { .. } => {
            let taken = fields.chunks_exact(TAKEN_FIELDS).map(taken);
            Said::Taken(taken.collect::<Result<_, _>>()?)
        }
        Op::Count => Said::Count(first.and_then(number_of).ok_or_else(broken)?),
        _ => Said::Known(first.and_then(number_of).ok_or_else(broken)? == 1),
    })
}

fn seen(fields: &[Value]) -> Result<Option<Seen>, StoreError> {
    if fields.is_empty() {
        return Ok(None);
    }
    let broken = || StoreError("a job in Redis cannot be read".to_owned());
    let fields: Vec<&[u8]> = fields.iter().map(|field| bytes_of(field).unwrap_or_default()).collect();
    let [id, meta, state, tries, error, ends, status, cut, answer] = fields[..] else { return Err(broken()) };
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
    let mut meta = Meta::read(meta)?;
    meta.tries = number(tries).and_then(|tries| u32::try_from(tries).ok()).unwrap_or(0);
    meta.error = Some(String::from_utf8_lossy(error).into_owned()).filter(|error| !error.is_empty());
    meta.ends_ms = number(ends);
    meta.status = number(status).and_then(|status| u16::try_from(status).ok());
    meta.truncated = cut == b"1";
    let open = if state == RUNNING { JobState::Running } else { JobState::Queued };
    let answer = meta.status.map(|_| answer.to_vec());
    Ok(Some(meta.seen(id_of(id)?, open, answer)))
}

fn taken(fields: &[Value]) -> Result<Taken, StoreError> {
    let fields: Vec<&[u8]> = fields.iter().map(|field| bytes_of(field).unwrap_or_default()).collect();
    let meta = Meta::read(fields[1])?;
    let work = work_of(&meta, &Bytes::copy_from_slice(fields[3]))?;
    let tries = std::str::from_utf8(fields[2]).ok().and_then(|tries| tries.parse().ok()).unwrap_or(0);
    Ok(Taken { id: id_of(fields[0])?, tries, work })
}

fn id_of(bytes: &[u8]) -> Result<JobId, StoreError> {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    text.parse().map_err(|_| StoreError(format!("`{text}` in Redis is no job's id")))
}

fn bytes_of(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}

fn number_of(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}
