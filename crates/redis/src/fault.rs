//! Errors in words: where, what, why, and what to do about it.

use std::fmt::Display;
use std::io;

use redis::ServerError;
use sluicegate::link::{LinkError, LinkErrorKind};

pub(crate) fn unreachable(place: &dyn Display, why: &dyn Display) -> LinkError {
    LinkError::new(LinkErrorKind::Unreachable, format!("{place}: {why}"))
}

pub(crate) fn lost(place: &str, why: &io::Error) -> LinkError {
    let why = match why.kind() {
        // Both are what a socket's time-out looks like.
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
        io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        _ => why.to_string(),
    };
    LinkError::new(LinkErrorKind::Lost, format!("{place}: {why}"))
}

pub(crate) fn protocol(place: &str, what: &dyn Display) -> LinkError {
    LinkError::new(LinkErrorKind::Protocol, format!("{place}: {what}"))
}

pub(crate) fn unfit(place: &str, what: &dyn Display) -> LinkError {
    LinkError::new(LinkErrorKind::Refused, format!("{place}: {what}"))
}

/// The server's own error. A script that broke is a matter of the protocol: nobody can mend it by settings.
pub(crate) fn refused(place: &str, doing: &str, error: &ServerError) -> LinkError {
    let details = error.details().unwrap_or_default();
    let code = code_of(error);
    let kind = match code {
        "ERR" if details.contains("user_script") || details.contains("user_function") => {
            LinkErrorKind::Protocol
        }
        _ => LinkErrorKind::Refused,
    };
    let details = details.strip_prefix(code).unwrap_or(details).trim();
    LinkError::new(kind, format!("{place}: {doing}: {code} {details}{}", mend(code)))
}

/// The code of an error. One from within a script may have it in its text only.
fn code_of(error: &ServerError) -> &str {
    let details = error.details().unwrap_or_default();
    match error.code() {
        "ERR" if is_missing_right(details) => "NOPERM",
        "ERR" => details.split_whitespace().next().filter(|word| !mend(word).is_empty()).unwrap_or("ERR"),
        code => code,
    }
}

/// Whether these words of a server mean that its access list forbids something. 7.0 and 7.2 say it differently.
pub(crate) fn is_missing_right(said: &str) -> bool {
    said.starts_with("NOPERM")
        || said.contains("The user executing the script can't")
        || said.contains("ACL failure")
}

/// What helps against an error of this code; begins with `; `.
fn mend(code: &str) -> &'static str {
    match code {
        "NOAUTH" => "; give `password` (and `user`) for this Redis",
        "WRONGPASS" => "; check `user` and `password`",
        "NOPERM" => "; give the user the rights listed in docs/redis.md",
        "READONLY" => "; this is a replica: name the master, or use `sentinel`",
        "NOREPLICAS" => "; too few of its replicas are there (`min-replicas-to-write`): mend them",
        "MOVED" | "ASK" | "TRYAGAIN" => {
            "; the slot moves to another node: the next connection reads where to"
        }
        "CLUSTERDOWN" => "; the Cluster has slots without a master: see `CLUSTER INFO`",
        "MASTERDOWN" => "; this replica has lost its master",
        "LOADING" => "; it still reads its data: wait",
        "OOM" => "; it has no memory left: raise `maxmemory`",
        "MISCONF" => "; it cannot write its snapshot: see its log",
        "BUSY" => "; another script runs for too long: see `SCRIPT KILL` and `FUNCTION KILL`",
        "NOSCRIPT" => "; it forgot its scripts at once: does something flush them?",
        _ => "",
    }
}

/// The same error when the connection was still in the making: then nothing that counts was on its way.
pub(crate) fn at_start(error: LinkError) -> LinkError {
    match error.kind {
        LinkErrorKind::Lost => LinkError { kind: LinkErrorKind::Unreachable, ..error },
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> LinkError {
        let value = redis::parse_redis_value(line.as_bytes()).expect("an error line");
        let redis::Value::ServerError(error) = value else { panic!("not an error: {value:?}") };
        refused("here", "a report", &error)
    }

    #[test]
    fn codes_are_told_apart_and_say_what_helps() {
        let error = said("-NOREPLICAS Not enough good replicas to write.\r\n");
        assert_eq!(error.kind, LinkErrorKind::Refused);
        assert_eq!(
            error.what,
            "here: a report: NOREPLICAS Not enough good replicas to write.; too few of its replicas are there \
             (`min-replicas-to-write`): mend them"
        );
        assert_eq!(said("-MOVED 3999 127.0.0.1:6381\r\n").kind, LinkErrorKind::Refused);
        assert_eq!(said("-ERR unknown command\r\n").kind, LinkErrorKind::Refused);
        let broken =
            said("-ERR user_script:3: attempt to index a nil value script: 1f, on @user_script:3.\r\n");
        assert_eq!(broken.kind, LinkErrorKind::Protocol);
        for forbidden in [
            "-ERR The user executing the script can't run this command or subcommand script: 94, on @user_script:3.\r\n",
            "-NOPERM ACL failure in script: User a has no permissions to run the 'zadd' command\r\n",
        ] {
            let error = said(forbidden);
            assert_eq!(error.kind, LinkErrorKind::Refused, "{error}");
            assert!(error.what.contains(": NOPERM ") && error.what.ends_with("docs/redis.md"), "{error}");
        }
    }
}
