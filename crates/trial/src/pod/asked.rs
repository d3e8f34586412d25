//! What a request asks of the pod, read from its query and its header `x-trial`.

use std::time::Duration;

use http::StatusCode;
use http::request::Parts;

/// Where the connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    Head,
    Body,
}

/// The behaviour asked for; the keys are in the [module's table](super).
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) work: Duration,
    pub(super) bytes: Option<u64>,
    /// None: one part with a known length.
    pub(super) chunks: Option<u32>,
    pub(super) every: Duration,
    pub(super) status: StatusCode,
    pub(super) reset: Option<Reset>,
    pub(super) hang: bool,
    pub(super) refuse: bool,
    pub(super) in_use: Option<u32>,
    pub(super) echo: bool,
    pub(super) trailers: bool,
}

impl Asked {
    /// # Errors
    /// What is wrong with which key, for the body of a 400.
    pub(super) fn read(head: &Parts) -> Result<Self, String> {
        let mut asked = Self {
            work: Duration::ZERO,
            bytes: None,
            chunks: None,
            every: Duration::ZERO,
            status: StatusCode::OK,
            reset: None,
            hang: false,
            refuse: false,
            in_use: None,
            echo: false,
            trailers: false,
        };
        for (key, value) in pairs(head.uri.query().unwrap_or("")) {
            asked.set(key, value)?;
        }
        if let Some(header) = head.headers.get("x-trial") {
            let header = header.to_str().map_err(|_| "x-trial: not ASCII".to_owned())?;
            for (key, value) in pairs(header) {
                if !asked.set(key, value)? {
                    return Err(format!("x-trial: unknown key `{key}`"));
                }
            }
        }
        Ok(asked)
    }

    /// False when the key is not one of ours.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "ms" => self.work = millis(key, value)?,
            "bytes" => self.bytes = Some(number(key, value)?),
            "chunks" => self.chunks = Some(number::<u32>(key, value)?.max(1)),
            "every" => self.every = millis(key, value)?,
            "status" => {
                self.status =
                    value.parse().map_err(|_| format!("{key}={value}: must be a status from 200 to 999"))?;
                if self.status.is_informational() {
                    return Err(format!("{key}={value}: an answer cannot end with a 1xx status"));
                }
            }
            "reset" => {
                self.reset = Some(match value {
                    "head" => Reset::Head,
                    "body" => Reset::Body,
                    _ => return Err(format!("{key}={value}: must be `head` or `body`")),
                });
            }
            "hang" => self.hang = true,
            "refuse" => self.refuse = true,
            "in_use" => self.in_use = Some(number(key, value)?),
            "echo" => self.echo = true,
            "trailers" => self.trailers = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// How long the work takes when nobody slows it down: to the headers, and the pauses in the body.
    pub(super) fn duration(&self) -> Duration {
        self.work + self.every * (self.chunks.unwrap_or(1) - 1)
    }
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = text.split('&').map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

fn number<N: std::str::FromStr>(key: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{key}={value}: must be a whole number that is not negative"))
}

fn millis(key: &str, value: &str) -> Result<Duration, String> {
    // A day is more than any trial needs, and it keeps the sums of durations far from overflow.
    match value.parse::<f64>() {
        Ok(ms) if (0.0..=86_400_000.0).contains(&ms) => Ok(Duration::from_secs_f64(ms / 1000.0)),
        _ => Err(format!("{key}={value}: must be milliseconds from 0 to 86400000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(uri: &str, header: Option<&str>) -> Result<Asked, String> {
        let mut request = http::Request::get(uri);
        if let Some(header) = header {
            request = request.header("x-trial", header);
        }
        Asked::read(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn header_wins_over_query_and_strangers_in_the_query_are_ignored() {
        let asked = read("/a?ms=1.5&user=7&echo", Some("ms=20 & chunks=3&every=10")).unwrap();
        assert_eq!(asked.work, Duration::from_millis(20));
        assert_eq!(asked.duration(), Duration::from_millis(40));
        assert!(asked.echo);
    }

    #[test]
    fn a_bad_value_is_named() {
        for (uri, header, want) in [
            ("/?ms=-1", None, "ms=-1"),
            ("/?bytes=x", None, "bytes=x"),
            ("/?status=101", None, "status=101"),
            ("/?reset=tail", None, "reset=tail"),
            ("/", Some("millis=1"), "unknown key `millis`"),
        ] {
            let error = read(uri, header).unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }
}
