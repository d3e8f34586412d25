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
        "ERR" if details.contains("user_script") => LinkErrorKind::Protocol,
        _ => LinkErrorKind::Refused,
    };
    let said = if details.is_empty() { code.to_owned() } else { format!("{code} {details}") };
    LinkError::new(kind, format!("{place}: {doing}: {}{}", said.trim_end(), mend(code)))
}

/// The code of an error. Errors out of a script have it in their text.
fn code_of(error: &ServerError) -> &str {
    let in_text = error.details().and_then(|text| text.split_whitespace().next());
    match (error.code(), in_text) {
        ("ERR", Some(word)) if !mend(word).is_empty() => word,
        (code, _) => code,
    }
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
        "BUSY" => "; another script runs for too long: see `SCRIPT KILL`",
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
    }
}
