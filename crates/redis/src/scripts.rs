//! The scripts, and the rights that they need.

use std::time::Duration;

use redis::{Cmd, ServerError, Value, cmd};
use sluicegate::link::LinkError;

use crate::fault;
use crate::greet::text;
use crate::wire::Wire;

/// Least rights of a Redis user that holds a ledger, as `ACL SETUSER` takes them after the password. In a Cluster
/// add `+cluster|slots`, with a database other than 0 `+select`.
pub const ACCESS: &str = "~sluicegate:* &sluicegate:* +client|setname +del +evalsha +exists +fcall +function|load \
                          +hdel +hget +hmget +hset +info +ping +publish +role +script|load +subscribe +time +zadd \
                          +zcard +zrange +zrangebyscore +zrem +zrevrangebyscore +zscore";

/// What the user needs beside it to keep jobs of the overflow.
pub const JOBS_ACCESS: &str = "+pexpire";

/// In the text of a library stands this where its name belongs.
const NAME: &str = "@NAME@";

/// A script as its file has it. One that begins with `#!lua` is a library of one function: the server makes its
/// functions when it is loaded, not with each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Script {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
}

/// One library in parts, each with its own matter; `head.lua` has the contract.
pub(crate) const EXCHANGE: Script = Script {
    name: "exchange.lua",
    text: concat!(
        include_str!("scripts/exchange/head.lua"),
        include_str!("scripts/exchange/state.lua"),
        include_str!("scripts/exchange/balances.lua"),
        include_str!("scripts/exchange/terms.lua"),
        include_str!("scripts/exchange/lives.lua"),
        include_str!("scripts/exchange/hear.lua"),
        include_str!("scripts/exchange/serve.lua"),
        include_str!("scripts/exchange/answer.lua"),
    ),
};
pub(crate) const DOCUMENT: Script =
    Script { name: "document.lua", text: include_str!("scripts/document.lua") };
pub(crate) const JOBS: Script = Script { name: "jobs.lua", text: include_str!("scripts/jobs.lua") };
pub(crate) const GATES: Script = Script { name: "gates.lua", text: include_str!("scripts/gates.lua") };
pub(crate) const PROBE: Script = Script { name: "probe.lua", text: include_str!("scripts/probe.lua") };

/// A script that a server knows.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    script: Script,
    /// Its digest, or the name of its library and function.
    known_as: String,
}

impl Script {
    fn is_library(self) -> bool {
        self.text.starts_with("#!lua")
    }

    /// A library's name: of its own for each text, so that gates of two versions can share a server, and none changes
    /// what another calls.
    pub(crate) fn library(self) -> String {
        // FNV-1a.
        let digest = self.text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        let stem = self.name.split('.').next().unwrap_or(self.name);
        format!("sluicegate_{stem}_{digest:016x}")
    }

    /// A library as it is loaded.
    pub(crate) fn named(self, name: &str) -> String {
        self.text.replace(NAME, name)
    }

    /// Makes it known to the server.
    pub(crate) fn load(self, wire: &mut Wire, time: Duration) -> Result<Loaded, LinkError> {
        if self.is_library() {
            let name = self.library();
            let command = cmd("FUNCTION").arg("LOAD").arg(self.named(&name)).take();
            return match wire.hear(&command, time)? {
                Err(error) if !is_loaded_already(&error) => {
                    Err(fault::refused(wire.place(), self.name, &error))
                }
                Ok(_) | Err(_) => Ok(Loaded { script: self, known_as: name }),
            };
        }
        let said = wire.call(self.name, cmd("SCRIPT").arg("LOAD").arg(self.text), time)?;
        match text(&said) {
            Some(digest) => Ok(Loaded { script: self, known_as: digest.to_owned() }),
            None => Err(fault::protocol(wire.place(), &format!("`SCRIPT LOAD` answered {said:?}"))),
        }
    }
}

impl Loaded {
    /// A call with these keys; the arguments are for the caller to append.
    pub(crate) fn command(&self, keys: &[String]) -> Cmd {
        let mut command = cmd(if self.script.is_library() { "FCALL" } else { "EVALSHA" });
        command.arg(&self.known_as).arg(keys.len()).arg(keys);
        command
    }

    /// Runs a [`Loaded::command`]. A server that has forgotten the script (`SCRIPT FLUSH`, `FUNCTION FLUSH`) is told it
    /// once more.
    pub(crate) fn run(&self, wire: &mut Wire, command: &Cmd, time: Duration) -> Result<Value, LinkError> {
        let mut said = wire.hear(command, time)?;
        if said.as_ref().is_err_and(is_forgotten) {
            self.script.load(wire, time)?;
            said = wire.hear(command, time)?;
        }
        said.map_err(|error| fault::refused(wire.place(), self.script.name, &error))
    }
}

/// Another gate loaded the same text.
fn is_loaded_already(error: &ServerError) -> bool {
    error.details().is_some_and(|words| words.contains("already exists"))
}

fn is_forgotten(error: &ServerError) -> bool {
    error.code() == "NOSCRIPT" || error.details().is_some_and(|words| words.contains("Function not found"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Commands that this crate sends itself. `SCRIPT LOAD`, `FUNCTION LOAD` and `CLIENT SETNAME` are written as the access
    /// list has them.
    const SENT: [&str; 9] = [
        "client|setname",
        "evalsha",
        "fcall",
        "function|load",
        "info",
        "ping",
        "role",
        "script|load",
        "subscribe",
    ];

    /// Options of commands, which stand in quotes too.
    const OPTIONS: [&str; 2] = ["limit", "withscores"];

    fn commands_of(script: Script) -> BTreeSet<String> {
        let code = script.text.lines().filter(|line| !line.trim_start().starts_with("--"));
        let quoted = code.flat_map(|line| line.split('\'').skip(1).step_by(2));
        let is_command = |word: &&str| word.len() > 2 && word.bytes().all(|b| b.is_ascii_uppercase());
        let words = quoted.filter(is_command).map(str::to_ascii_lowercase);
        words.filter(|word| !OPTIONS.contains(&word.as_str())).collect()
    }

    /// Neither a right too few nor one too many, and what `check --online` tries is what the ledger uses.
    #[test]
    fn the_access_list_is_what_the_scripts_use() {
        let used: BTreeSet<String> = [EXCHANGE, DOCUMENT, GATES].into_iter().flat_map(commands_of).collect();
        assert!(used.contains("zadd") && used.contains("hget"), "{used:?}");
        assert_eq!(commands_of(PROBE), used);
        let needed: BTreeSet<String> = used.into_iter().chain(SENT.map(str::to_owned)).collect();
        let given = ACCESS.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned);
        assert_eq!(given.collect::<BTreeSet<_>>(), needed);
    }

    #[test]
    fn jobs_need_little_more() {
        let given: BTreeSet<String> =
            ACCESS.split(' ').filter_map(|word| word.strip_prefix('+')).map(str::to_owned).collect();
        let more: Vec<String> = commands_of(JOBS).difference(&given).map(|word| format!("+{word}")).collect();
        assert_eq!(more.join(" "), JOBS_ACCESS);
        assert!(include_str!("../../../docs/overflow.md").contains(JOBS_ACCESS));
    }

    #[test]
    fn the_page_has_the_same_list() {
        let page = include_str!("../../../docs/redis.md");
        assert!(page.contains(ACCESS), "docs/redis.md must give, on one line: {ACCESS}");
    }
}
