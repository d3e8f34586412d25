//! Which server holds a pool's ledger: the one that is configured, the master that Sentinels name, or the Cluster's
//! node of the pool's slot. Asked anew on each connect.

use std::sync::Arc;
use std::time::Duration;

use redis::{Value, cmd};
use rustls::ClientConfig;
use sluicegate::link::{LinkError, LinkErrorKind};

use crate::fault;
use crate::greet::{self, Pass, Server, text};
use crate::keys::Keys;
use crate::settings::{Address, Kind, Settings};
use crate::tls;
use crate::wire::Wire;

/// Makes connections.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) settings: Settings,
    /// For reaching one address, and for each of the first words.
    pub(crate) time: Duration,
}

impl Dialer {
    /// A connection to the master that holds these keys.
    pub(crate) fn dial(&self, keys: &Keys) -> Result<(Wire, Server), LinkError> {
        let tls = self.settings.tls.as_ref().map(tls::config).transpose();
        let tls = tls.map_err(|why| fault::unreachable(&"Redis by TLS", &why))?;
        let tls = tls.as_ref();
        match &self.settings.kind {
            Kind::Single => self.each("server", |address| self.master(address, tls)),
            Kind::Sentinel(name) => self.each("Sentinel", |address| {
                let master = self.ask_sentinel(address, name, tls)?;
                self.master(&master, tls)
            }),
            Kind::Cluster => self.each("node", |address| {
                let master = self.ask_node(address, keys.slot(), tls)?;
                self.master(&master, tls)
            }),
        }
        .map_err(fault::at_start)
    }

    /// What the first address that can help gives; else what each said.
    fn each<T>(&self, what: &str, reach: impl Fn(&Address) -> Result<T, LinkError>) -> Result<T, LinkError> {
        let mut errors: Vec<LinkError> = Vec::new();
        for address in &self.settings.addresses {
            match reach(address) {
                Ok(found) => return Ok(found),
                Err(error) => errors.push(error),
            }
        }
        match errors.len() {
            0 => Err(fault::unreachable(&"Redis", &"no address is configured")),
            1 => Err(errors.remove(0)),
            count => {
                // The answer of a server says more than silence elsewhere.
                let told = errors.iter().find(|error| error.kind != LinkErrorKind::Unreachable);
                let kind = told.map_or(LinkErrorKind::Unreachable, |error| error.kind);
                let each: Vec<&str> = errors.iter().map(|error| error.what.as_str()).collect();
                Err(LinkError::new(kind, format!("none of {count} {what}s helps: {}", each.join("; "))))
            }
        }
    }

    fn pass(&self) -> Pass<'_> {
        Pass { user: self.settings.user.as_deref(), password: self.settings.password.as_deref() }
    }

    fn master(
        &self,
        address: &Address,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<(Wire, Server), LinkError> {
        let mut wire = Wire::open(address, tls, self.time)?;
        let server = greet::greet(&mut wire, self.pass(), self.settings.database, self.time)?;
        if !server.is_master {
            let what = match self.settings.kind {
                Kind::Single => "it is a replica: name the master, or use `sentinel`",
                Kind::Sentinel(_) => "it is called the master, but is a replica: a fail-over is under way",
                Kind::Cluster => "it is a replica of the pool's slot: the Cluster changes its masters",
            };
            return Err(fault::unfit(wire.place(), &what));
        }
        Ok((wire, server))
    }

    fn ask_sentinel(
        &self,
        address: &Address,
        name: &str,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Address, LinkError> {
        let mut wire = Wire::open(address, tls, self.time)?;
        let own = Pass {
            user: self.settings.sentinel_user.as_deref(),
            password: self.settings.sentinel_password.as_deref(),
        };
        greet::authenticate(&mut wire, own, self.time)?;
        let question =
            |wire: &mut Wire| wire.hear(cmd("SENTINEL").arg("get-master-addr-by-name").arg(name), self.time);
        let mut answer = question(&mut wire)?;
        let is_unknown = own.user.is_none() && own.password.is_none();
        if is_unknown && answer.as_ref().is_err_and(|error| error.code() == "NOAUTH") {
            greet::authenticate(&mut wire, self.pass(), self.time)?;
            answer = question(&mut wire)?;
        }
        let place = wire.place();
        let answer = answer.map_err(|error| fault::refused(place, "to name the master", &error))?;
        match &answer {
            Value::Nil => Err(fault::unfit(
                place,
                &format!("this Sentinel knows no master named `{name}`; check `sentinel`"),
            )),
            Value::Array(parts) => match (parts.first().and_then(text), parts.get(1).and_then(text)) {
                (Some(host), Some(port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => {
                    Ok(Address::Tcp(host.to_owned(), port.parse().expect("parsed above")))
                }
                _ => Err(fault::protocol(place, &format!("the master's address is {answer:?}"))),
            },
            _ => Err(fault::protocol(place, &format!("the master's address is {answer:?}"))),
        }
    }

    fn ask_node(
        &self,
        address: &Address,
        slot: u16,
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<Address, LinkError> {
        let mut wire = Wire::open(address, tls, self.time)?;
        greet::authenticate(&mut wire, self.pass(), self.time)?;
        let slots = wire.call("the slots", cmd("CLUSTER").arg("SLOTS"), self.time)?;
        let place = wire.place();
        match master_of(&slots, slot) {
            Ok(Some((host, port))) => match (host, address) {
                // A node that does not know its own address leaves it out: it is the one that was asked.
                (None, Address::Tcp(asked, _)) => Ok(Address::Tcp(asked.clone(), port)),
                (None, Address::Unix(_)) => Ok(address.clone()),
                (Some(host), _) => Ok(Address::Tcp(host, port)),
            },
            Ok(None) => {
                let what = format!("no node has slot {slot}, the pool's: see `CLUSTER INFO`");
                Err(fault::unfit(place, &what))
            }
            Err(what) => Err(fault::protocol(place, &what)),
        }
    }
}

/// Host (`None`: the asked node itself) and port of a slot's master, from an answer to `CLUSTER SLOTS`.
fn master_of(slots: &Value, slot: u16) -> Result<Option<(Option<String>, u16)>, String> {
    let bad = || format!("`CLUSTER SLOTS` answered {slots:?}");
    let Value::Array(ranges) = slots else { return Err(bad()) };
    for range in ranges {
        let Value::Array(range) = range else { return Err(bad()) };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
            return Err(bad());
        };
        if !(*first..=*last).contains(&i64::from(slot)) {
            continue;
        }
        let [host, Value::Int(port), ..] = &master[..] else { return Err(bad()) };
        let port = u16::try_from(*port).ok().filter(|port| *port > 0).ok_or_else(bad)?;
        let host = text(host).filter(|host| !host.is_empty() && *host != "?");
        return Ok(Some((host.map(str::to_owned), port)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_master_of_a_slot() {
        let answer = |host: &str| {
            let bytes = format!(
                "*2\r\n*3\r\n:0\r\n:99\r\n*4\r\n$1\r\na\r\n:7000\r\n$1\r\nx\r\n*0\r\n\
                 *4\r\n:100\r\n:16383\r\n*3\r\n{host}:7001\r\n$1\r\ny\r\n*3\r\n$1\r\nc\r\n:7002\r\n$1\r\nz\r\n"
            );
            redis::parse_redis_value(bytes.as_bytes()).expect("RESP")
        };
        assert_eq!(master_of(&answer("$1\r\nb\r\n"), 99), Ok(Some((Some("a".into()), 7000))));
        assert_eq!(master_of(&answer("$1\r\nb\r\n"), 100), Ok(Some((Some("b".into()), 7001))));
        assert_eq!(master_of(&answer("$-1\r\n"), 100), Ok(Some((None, 7001))));
        assert_eq!(master_of(&answer("$0\r\n\r\n"), 16383), Ok(Some((None, 7001))));
        assert_eq!(master_of(&Value::Array(vec![]), 5), Ok(None));
        assert!(master_of(&Value::Okay, 5).is_err());
        assert!(master_of(&answer(":1\r\n"), 100).is_ok(), "a host that is no text counts as left out");
    }
}
