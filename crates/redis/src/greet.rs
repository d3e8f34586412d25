//! The first words on a new connection: who we are, and who answers.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use redis::{Value, cmd};
use sluicegate::link::LinkError;

use crate::fault;
use crate::wire::Wire;

/// Scripts use what came with this version.
pub(crate) const OLDEST: Version = Version(7, 0, 0);

/// What a connection is known by at the server (`CLIENT LIST`).
const CLIENT_NAME: &str = "sluicegate";

/// A server that answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// First 16 hexadecimal digits of its `run_id`: another after each start.
    pub(crate) identity: u64,
    pub(crate) version: Version,
    pub(crate) is_master: bool,
}

/// Credentials of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
}

/// A server's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Version, String> {
        let mut parts = text.trim().splitn(3, '.').map(|part| {
            let digits = part.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            digits.parse().map_err(|_| format!("`{text}` is not a version"))
        });
        let mut next = || parts.next().unwrap_or(Ok(0));
        Ok(Version(next()?, next()?, next()?))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// Shows the password, if there is one.
pub(crate) fn authenticate(wire: &mut Wire, pass: Pass<'_>, time: Duration) -> Result<(), LinkError> {
    let mut command = cmd("AUTH");
    match (pass.user, pass.password) {
        (None, None) => return Ok(()),
        (None, Some(password)) => command.arg(password),
        // A user without a password is one of `nopass`, which takes any.
        (Some(user), password) => command.arg(user).arg(password.unwrap_or_default()),
    };
    wire.call("the password", &command, time).map(drop)
}

/// Authenticates, chooses the database and asks who answers.
pub(crate) fn greet(
    wire: &mut Wire,
    pass: Pass<'_>,
    database: u32,
    time: Duration,
) -> Result<Server, LinkError> {
    authenticate(wire, pass, time)?;
    if database != 0 {
        wire.call("the database", cmd("SELECT").arg(database), time)?;
    }
    // Only for those who look at `CLIENT LIST`, so a server that forbids it is as good.
    let _ = wire.hear(cmd("CLIENT").arg("SETNAME").arg(CLIENT_NAME), time)?;
    let info = wire.call("INFO", cmd("INFO").arg("server"), time)?;
    let role = wire.call("ROLE", &cmd("ROLE"), time)?;
    let place = wire.place();
    let (identity, version) = identity(&info).map_err(|what| fault::protocol(place, &what))?;
    if version < OLDEST {
        let what = format!("it is Redis {version}, too old: {OLDEST} or later is needed");
        return Err(fault::unfit(place, &what));
    }
    let is_master = match &role {
        Value::Array(parts) => parts.first().and_then(text) == Some("master"),
        _ => return Err(fault::protocol(place, &format!("`ROLE` answered {role:?}"))),
    };
    Ok(Server { identity, version, is_master })
}

/// The line `KEY:value` of an `INFO` answer.
pub(crate) fn line_of<'a>(info: &'a str, key: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim_end)
}

/// The text of a string value.
pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Okay => Some("OK"),
        // `INFO` as RESP3 has it.
        Value::VerbatimString { text, .. } => Some(text),
        _ => None,
    }
}

fn identity(info: &Value) -> Result<(u64, Version), String> {
    let info = text(info).ok_or("`INFO server` is no text")?;
    let find = |key: &str| line_of(info, key).ok_or(format!("`INFO server` has no `{key}`"));
    let run_id = find("run_id")?;
    let identity = run_id.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok());
    let identity = identity.ok_or(format!("`run_id` is `{run_id}`, not hexadecimal digits"))?;
    Ok((identity, find("redis_version")?.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let version = |text: &str| text.parse::<Version>();
        assert_eq!(version("7.0.15"), Ok(Version(7, 0, 15)));
        assert_eq!(version("8.2-rc1"), Ok(Version(8, 2, 0)));
        assert_eq!(version("255.255.255"), Ok(Version(255, 255, 255)));
        assert!(version("6.2.16").is_ok_and(|old| old < OLDEST));
        assert!(version("7.0.0").is_ok_and(|new| new >= OLDEST));
        assert_eq!(version("new"), Err("`new` is not a version".to_owned()));
    }

    #[test]
    fn the_identity_is_the_run_id() {
        let of = |text: &str| identity(&Value::BulkString(text.as_bytes().to_vec()));
        assert_eq!(
            of("# Server\r\nredis_version:7.2.4\r\nrun_id:00000000000000ff0123\r\n"),
            Ok((255, Version(7, 2, 4)))
        );
        assert!(of("redis_version:7.2.4\r\n").is_err_and(|why| why.contains("no `run_id`")));
        assert!(of("redis_version:7.2.4\r\nrun_id:xyz\r\n").is_err());
    }
}
