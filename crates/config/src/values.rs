//! The values that are written as text: durations, amounts, rates, sizes, addresses, patterns.
//!
//! Each type has one parser, which says what is wrong and what to write, and one schema.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use sluicegate_core::policy::{Amount, UNITS_MAX, WHOLE};

use crate::problem::{Fault, quoted};

/// Longest duration: a year. Longer is a slip of the unit.
const HOURS_MAX: u64 = 8_760;
/// Largest size: 1 GiB.
const BYTES_MAX: u64 = 1 << 30;
/// Longest path of a Unix socket; the kernel takes 108 bytes with the final zero.
const SOCKET_PATH_MAX: usize = 107;
/// Longest name; names stand in metrics, headers and paths.
const NAME_MAX: usize = 100;

/// `50ms`, `1.5s`, `2m`, `1h`, `500us`, or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(pub(crate) Duration);

/// `12` (units) or `5%` (of the pool).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AmountText(pub(crate) Amount);

/// `110%`; thousandths of a per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u32);

/// `20/s`; units per 1000 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate(pub(crate) u64);

/// `64KiB`; bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) usize);

/// A name of a pool, pod or api.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

/// `127.0.0.1:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listen(pub(crate) SocketAddr);

/// Where the decision service listens: `127.0.0.1:8090`, or `unix:/run/sluicegate.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

/// `10.1.2.3:8090`, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort(pub(crate) String);

/// A token that callers must show.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) String);

/// The name of a request header, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeaderName(pub(crate) String);

/// How the pod is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PodScheme {
    /// `http://`: HTTP/1.1.
    Http,
    /// `h2c://`: HTTP/2 in clear text, from the first byte.
    H2c,
}

/// Where a pod is: `http://HOST:PORT` (HTTP/1.1) or `h2c://HOST:PORT` (HTTP/2 in clear text).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodUrl {
    /// How it is spoken to.
    pub scheme: PodScheme,
    /// A host name or an address; an IPv6 address stands without its brackets.
    pub host: String,
    /// The port, never 0.
    pub port: u16,
}

impl PodUrl {
    /// `host:port`, an IPv6 address in brackets: what stands in a `Host` header.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for PodUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.scheme {
            PodScheme::Http => "http",
            PodScheme::H2c => "h2c",
        };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Reads a type from text: serde and the schema by the same words.
macro_rules! from_text {
    ($type:ident, $expected:literal, $schema:tt) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(TextVisitor { expected: $expected, parse: <$type>::from_str })
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}
pub(crate) use from_text;

pub(crate) struct TextVisitor<T> {
    pub(crate) expected: &'static str,
    pub(crate) parse: fn(&str) -> Result<T, Fault>,
}

impl<T> de::Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        // The line break parts what from mend, see the error type in `de`.
        (self.parse)(text).map_err(|fault| E::custom(format!("{}\n{}", fault.what, fault.mend)))
    }
}

from_text!(Span, "a duration such as `50ms`, `1s`, `2m` or `1h`", {
    "description": "A duration: 50ms, 1.5s, 2m, 1h, or 0.",
    "type": ["string", "integer"], "pattern": "^(0|[0-9]+(\\.[0-9]+)?(us|ms|s|m|h))$", "maximum": 0, "minimum": 0
});
from_text!(AmountText, "units (`12`) or per cent of the pool (`5%`)", {
    "description": "Units (12), or per cent of the pool (5%).",
    "type": ["string", "integer"], "pattern": "^([0-9]+|[0-9]+(\\.[0-9]{1,3})?%)$", "minimum": 0
});
from_text!(Percent, "per cent such as `110%`", {
    "description": "Per cent: 110%.", "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,3})?%$"
});
from_text!(Rate, "units per time such as `20/s`", {
    "description": "Units per second, minute or hour: 20/s.",
    "type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?/(s|m|h)$"
});
from_text!(Size, "a size such as `64KiB`", {
    "description": "Bytes: 64KiB, 1MiB, 512B, or 0.",
    "type": ["string", "integer"], "pattern": "^(0|[0-9]+(B|KiB|MiB|GiB))$", "maximum": 0, "minimum": 0
});
from_text!(Name, "a name", {
    "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]*$", "maxLength": 100
});
from_text!(Listen, "an address and port such as `127.0.0.1:8080`", {
    "description": "An IP address and a port: 127.0.0.1:8080, [::1]:8080.", "type": "string"
});
from_text!(DoorAddress, "an address and port such as `127.0.0.1:8090`, or `unix:/run/sluicegate.sock`", {
    "description": "An IP address and a port: 127.0.0.1:8090, [::1]:8090; or unix: and a socket's whole path: unix:/run/sluicegate.sock.",
    "type": "string"
});
from_text!(HostPort, "a host and port such as `10.1.2.3:8090`", {
    "description": "A host and a port: 10.1.2.3:8090, gate-1.shop:8090.", "type": "string"
});
from_text!(Token, "a token", { "type": "string", "minLength": 8, "pattern": "^[!-~]+$" });
from_text!(HeaderName, "the name of a header", {
    "type": "string", "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
});
from_text!(PodUrl, "a URL such as `http://127.0.0.1:9001`", {
    "description": "http://HOST:PORT (HTTP/1.1) or h2c://HOST:PORT (HTTP/2 in clear text).",
    "type": "string", "pattern": "^(http|h2c)://[^/@]+:[0-9]+$"
});

/// A decimal number times `scale`, when that is whole.
fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits =
        |part: &str| !part.is_empty() && part.len() <= 15 && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let parts = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = fraction.parse::<u128>().ok()? * u128::from(scale);
    let whole = whole.parse::<u128>().ok()? * u128::from(scale);
    (fraction % parts == 0).then(|| u64::try_from(whole + fraction / parts).ok())?
}

/// Parts `1.5ms` into `1.5` and `ms`.
fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

impl FromStr for Span {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Span, Fault> {
        let (number, unit) = number_and_unit(text);
        let scale = match unit {
            "" if text == "0" => return Ok(Span(Duration::ZERO)),
            "" if decimal(number, 1_000_000).is_some() => {
                let what = format!("{} has no unit of time", quoted(text));
                return Err(Fault::new(what, format!("write `{text}ms` or `{text}s`")));
            }
            "us" => 1,
            "ms" => 1_000,
            "s" => 1_000_000,
            "m" => 60_000_000,
            "h" => 3_600_000_000,
            _ => 0,
        };
        let mend = "write a duration such as `50ms`, `1.5s`, `2m` or `1h`";
        match decimal(number, scale) {
            Some(micros) if scale > 0 && micros <= HOURS_MAX * 3_600_000_000 => {
                Ok(Span(Duration::from_micros(micros)))
            }
            Some(_) if scale > 0 => Err(Fault::new(format!("{} is more than a year", quoted(text)), mend)),
            _ => Err(Fault::new(format!("{} is no duration", quoted(text)), mend)),
        }
    }
}

impl FromStr for AmountText {
    type Err = Fault;

    fn from_str(text: &str) -> Result<AmountText, Fault> {
        if text.ends_with('%') {
            let Percent(share) = text.parse()?;
            if share > WHOLE {
                let what = format!("{} is more than the whole pool", quoted(text));
                return Err(Fault::new(what, "write at most `100%`"));
            }
            return Ok(AmountText(Amount::Share(share)));
        }
        match decimal(text, 1) {
            Some(units) if units <= u64::from(UNITS_MAX) && !text.contains('.') => {
                Ok(AmountText(Amount::Units(u32::try_from(units).expect("at most UNITS_MAX"))))
            }
            Some(units) if units > u64::from(UNITS_MAX) => {
                Err(Fault::new(format!("{} is above {UNITS_MAX} units", quoted(text)), "use a larger unit"))
            }
            _ => {
                let what = format!("{} is neither units nor per cent", quoted(text));
                Err(Fault::new(what, "write whole units (`12`) or per cent of the pool (`5%`)"))
            }
        }
    }
}

impl FromStr for Percent {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Percent, Fault> {
        let share = text.strip_suffix('%').and_then(|number| decimal(number, u64::from(WHOLE / 100)));
        match share.and_then(|share| u32::try_from(share).ok()) {
            Some(share) => Ok(Percent(share)),
            None => {
                let what = format!("{} is no percentage", quoted(text));
                Err(Fault::new(
                    what,
                    "write a number and `%`, such as `5%` or `2.5%` (at most three decimals)",
                ))
            }
        }
    }
}

impl FromStr for Rate {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Rate, Fault> {
        let mend = "write units per second, such as `20/s` (or `/m`, `/h`)";
        let no_rate = || Fault::new(format!("{} is no rate", quoted(text)), mend);
        let (number, unit) = text.split_once('/').ok_or_else(no_rate)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(no_rate()),
        };
        let per_1000_s = decimal(number, 1_000).ok_or_else(no_rate)? / seconds;
        if per_1000_s == 0 {
            return Err(Fault::new(format!("{} never lets anything in", quoted(text)), mend));
        }
        if per_1000_s > u64::from(UNITS_MAX) * 1_000 {
            return Err(Fault::new(format!("{} is too fast to mean anything", quoted(text)), mend));
        }
        Ok(Rate(per_1000_s))
    }
}

impl FromStr for Size {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Size, Fault> {
        let mend = "write a size such as `64KiB` or `1MiB` (B, KiB, MiB, GiB), at most 1GiB";
        let (number, unit) = number_and_unit(text);
        let scale = match unit {
            "" if text == "0" => 1,
            "" if decimal(number, 1).is_some() => {
                let what = format!("{} has no unit of size", quoted(text));
                return Err(Fault::new(what, format!("write `{text}B` or `{text}KiB`")));
            }
            "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => 0,
        };
        match decimal(number, scale).filter(|bytes| scale > 0 && *bytes <= BYTES_MAX) {
            Some(bytes) => Ok(Size(usize::try_from(bytes).expect("at most 1 GiB"))),
            None => Err(Fault::new(format!("{} is no size up to 1GiB", quoted(text)), mend)),
        }
    }
}

impl FromStr for Name {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Name, Fault> {
        let mend = format!(
            "use letters, digits and `.`, `_`, `:`, `-`; begin with a letter or digit; at most {NAME_MAX}"
        );
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
        if text.is_empty() {
            return Err(Fault::new("the name is empty", mend));
        }
        let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !first || !text.chars().all(good) || text.len() > NAME_MAX {
            let what =
                format!("{} cannot be a name, which stands in metrics, headers and paths", quoted(text));
            return Err(Fault::new(what, mend));
        }
        Ok(Name(text.to_owned()))
    }
}

impl FromStr for Listen {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Listen, Fault> {
        if let Ok(address) = text.parse() {
            return Ok(Listen(address));
        }
        let port = text.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok()).unwrap_or("8080");
        let mend = format!("write `127.0.0.1:{port}` for this machine only, or `0.0.0.0:{port}` for all");
        Err(Fault::new(format!("{} is no IP address and port to listen on", quoted(text)), mend))
    }
}

impl FromStr for DoorAddress {
    type Err = Fault;

    fn from_str(text: &str) -> Result<DoorAddress, Fault> {
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(|Listen(address)| DoorAddress::Tcp(address));
        };
        // The kernel's limit is 107 bytes; a relative path would depend on where the program was started.
        if !path.starts_with('/') || path.len() > SOCKET_PATH_MAX {
            let what = format!("{} is no socket", quoted(text));
            let mend =
                format!("write the whole path, at most {SOCKET_PATH_MAX} bytes: `unix:/run/sluicegate.sock`");
            return Err(Fault::new(what, mend));
        }
        Ok(DoorAddress::Unix(path.into()))
    }
}

impl fmt::Display for DoorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DoorAddress::Tcp(address) => address.fmt(f),
            DoorAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for HostPort {
    type Err = Fault;

    fn from_str(text: &str) -> Result<HostPort, Fault> {
        match host_and_port(text) {
            Ok(_) => Ok(HostPort(text.to_owned())),
            Err(why) => Err(Fault::new(
                format!("{}: {why}", quoted(text)),
                "write what others can call: `10.1.2.3:8090`",
            )),
        }
    }
}

impl FromStr for Token {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Token, Fault> {
        let mend = "take a long random word from the environment: `\"${SLUICEGATE_TOKEN}\"`";
        if text.len() < 8 {
            return Err(Fault::new("the token has fewer than 8 characters, so it can be guessed", mend));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Fault::new("the token has spaces or characters that no header can carry", mend));
        }
        Ok(Token(text.to_owned()))
    }
}

impl FromStr for HeaderName {
    type Err = Fault;

    fn from_str(text: &str) -> Result<HeaderName, Fault> {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if text.is_empty() || !text.bytes().all(token) {
            let what = format!("{} is no name of a header", quoted(text));
            return Err(Fault::new(what, "write a name such as `x-caller`"));
        }
        Ok(HeaderName(text.to_ascii_lowercase()))
    }
}

impl FromStr for PodUrl {
    type Err = Fault;

    fn from_str(text: &str) -> Result<PodUrl, Fault> {
        let mend = "write `http://HOST:PORT`, or `h2c://HOST:PORT` for HTTP/2 in clear text";
        let fault = |why: &str| Fault::new(format!("{}: {why}", quoted(text)), mend);
        let (scheme, rest) = text.split_once("://").ok_or_else(|| fault("no scheme"))?;
        let scheme = match scheme {
            "http" => PodScheme::Http,
            "h2c" => PodScheme::H2c,
            "https" => return Err(fault("pods are reached in clear text; TLS to pods is not there yet")),
            _ => return Err(fault("the scheme is neither http nor h2c")),
        };
        if rest.contains(['/', '?', '#']) {
            return Err(fault("a pod's URL has no path: the request's own path is used"));
        }
        if rest.contains('@') {
            return Err(fault("a pod's URL holds no user or password"));
        }
        let (host, port) = host_and_port(rest).map_err(|why| fault(&why))?;
        Ok(PodUrl { scheme, host, port })
    }
}

/// Parts `host:port` or `[v6]:port`.
pub(crate) fn host_and_port(text: &str) -> Result<(String, u16), String> {
    let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
    let port: u16 = port.parse().map_err(|_| format!("{} is no port", quoted(port)))?;
    if port == 0 {
        return Err("port 0 cannot be connected to".to_owned());
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return match inner.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok((inner.to_owned(), port)),
            Err(_) => Err(format!("{} is no IPv6 address", quoted(inner))),
        };
    }
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(good) {
        return Err(format!("{} is no host name or address (IPv6 needs brackets)", quoted(host)));
    }
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(text: &str) -> Result<u128, String> {
        text.parse::<Span>().map(|Span(duration)| duration.as_micros()).map_err(|fault| fault.what)
    }

    #[test]
    fn durations() {
        assert_eq!(span("50ms"), Ok(50_000));
        assert_eq!(span("1.5s"), Ok(1_500_000));
        assert_eq!(span("2m"), Ok(120_000_000));
        assert_eq!(span("1h"), Ok(3_600_000_000));
        assert_eq!(span("0"), Ok(0));
        assert_eq!(span("8760h"), Ok(31_536_000_000_000));
        for bad in ["50", "-1s", "1d", "s", "", "1.s", "1..2s", "1s ", "8761h", "0.1us", "999999999999999h"] {
            assert!(span(bad).is_err(), "{bad}");
        }
        let fault = "50".parse::<Span>().expect_err("no unit");
        assert!(fault.mend.contains("50ms"), "{fault:?}");
    }

    #[test]
    fn amounts_rates_and_sizes() {
        assert_eq!("12".parse(), Ok(AmountText(Amount::Units(12))));
        assert_eq!("5%".parse(), Ok(AmountText(Amount::Share(5_000))));
        assert_eq!("2.125%".parse(), Ok(AmountText(Amount::Share(2_125))));
        for bad in ["101%", "1.5", "-1", "%", "2.1234%", "1000000001", "five"] {
            assert!(bad.parse::<AmountText>().is_err(), "{bad}");
        }
        assert_eq!("20/s".parse(), Ok(Rate(20_000)));
        assert_eq!("0.5/s".parse(), Ok(Rate(500)));
        assert_eq!("30/m".parse(), Ok(Rate(500)));
        assert_eq!("1/h".parse::<Rate>().expect_err("rounds to 0").what, "`1/h` never lets anything in");
        for bad in ["20", "0/s", "20/d", "/s", "9999999999/s"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        assert_eq!("64KiB".parse(), Ok(Size(65_536)));
        assert_eq!("0".parse(), Ok(Size(0)));
        for bad in ["64", "64KB", "2GiB", "KiB", "-1B"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn pod_urls() {
        let url: PodUrl = "h2c://[::1]:9001".parse().expect("good");
        assert_eq!((url.scheme, url.host.as_str(), url.port), (PodScheme::H2c, "::1", 9001));
        assert_eq!((url.to_string().as_str(), url.authority().as_str()), ("h2c://[::1]:9001", "[::1]:9001"));
        for bad in [
            "127.0.0.1:9001",
            "https://a:1",
            "http://a",
            "http://a:0",
            "http://a:1/",
            "http://u@a:1",
            "http://:1",
            "http://::1:1",
            "http://a:99999",
        ] {
            assert!(bad.parse::<PodUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_headers_and_tokens() {
        assert!("10.0.0.1:9000".parse::<Name>().is_ok());
        for bad in ["", "a/b", "-a", "a b", "ä"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert_eq!("X-Caller".parse(), Ok(HeaderName("x-caller".into())));
        assert!("x caller".parse::<HeaderName>().is_err());
        assert!("short".parse::<Token>().is_err());
    }
}
