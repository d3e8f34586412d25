//! Where a Redis is and how to get in.

use std::fmt;
use std::path::PathBuf;

/// A Redis to hold a ledger.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// What stands at `addresses`.
    pub kind: Kind,
    /// One server; or Sentinels, or nodes of a Cluster, asked in this order.
    pub addresses: Vec<Address>,
    /// Number of the database; 0 in a Cluster.
    pub database: u32,
    /// User of the access list; `None`: `default`.
    pub user: Option<String>,
    /// Password. Not shown by `Debug`.
    pub password: Option<String>,
    /// TLS to every address, Sentinels included.
    pub tls: Option<Tls>,
    /// User at the Sentinels.
    pub sentinel_user: Option<String>,
    /// Password at the Sentinels. While neither this nor a user is given, a Sentinel that asks for a password is
    /// told the servers'. Not shown by `Debug`.
    pub sentinel_password: Option<String>,
}

/// What stands at the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One server.
    Single,
    /// Sentinels that know the master by this name.
    Sentinel(String),
    /// Nodes of a Redis Cluster.
    Cluster,
}

/// One address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Host (an IPv6 address without brackets) and port.
    Tcp(String, u16),
    /// Path of a socket.
    Unix(PathBuf),
}

/// Certificates, as PEM files. They are read on each connect, so renewed ones need no restart.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tls {
    /// Whom to trust; `None`: the system's list.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Settings {
    /// One server, without user, password or TLS.
    #[must_use]
    pub fn single(address: Address) -> Settings {
        Settings::of(Kind::Single, vec![address])
    }

    /// Servers of a kind, without user, password or TLS.
    #[must_use]
    pub fn of(kind: Kind, addresses: Vec<Address>) -> Settings {
        Settings {
            kind,
            addresses,
            database: 0,
            user: None,
            password: None,
            tls: None,
            sentinel_user: None,
            sentinel_password: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("kind", &self.kind)
            .field("addresses", &self.addresses)
            .field("database", &self.database)
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("tls", &self.tls)
            .field("sentinel_user", &self.sentinel_user)
            .field("sentinel_password", &self.sentinel_password.as_ref().map(|_| "…"))
            .finish()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Address::Tcp(host, port) => write!(f, "{host}:{port}"),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_password() {
        let mut settings = Settings::single(Address::Tcp("::1".into(), 6379));
        settings.password = Some("secret".into());
        settings.sentinel_password = Some("secret".into());
        assert!(!format!("{settings:?}").contains("secret"));
        assert_eq!(settings.addresses[0].to_string(), "[::1]:6379");
    }
}
