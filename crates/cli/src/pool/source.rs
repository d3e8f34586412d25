//! Where the pods of a pool come from.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use sluicegate_config::{Config, PodSource};

/// The configuration with its pods in it, where the source is a name or a file; one that lists them stays
/// as it is.
///
/// # Errors
/// What could not be looked up, read or obeyed, in words.
pub(crate) fn resolve(config: &Config) -> Result<Config, String> {
    let loaded = match &config.source {
        PodSource::Listed | PodSource::Registered => return Ok(config.clone()),
        PodSource::Dns { scheme, host, port, capacity, .. } => {
            let found = (host.as_str(), *port).to_socket_addrs();
            let found = found.map_err(|error| format!("pods: `{host}` cannot be looked up: {error}"))?;
            let mut found: Vec<SocketAddr> = found.collect();
            found.sort_unstable();
            found.dedup();
            let pod = |address: SocketAddr| {
                sluicegate_config::dns_pod(*scheme, address.ip().to_string(), address.port(), *capacity)
            };
            config.with_pods(found.into_iter().map(pod).collect())
        }
        PodSource::File { path } => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("pods: {} cannot be read: {error}", path.display()))?;
            config.with_pod_file(&path.display().to_string(), &text, &|name| std::env::var(name).ok())
        }
    };
    loaded.map(|loaded| loaded.config).map_err(|problems| problems.to_string())
}

/// How often a source that can change is looked at; `None` for one that cannot.
pub(crate) fn every(source: &PodSource) -> Option<Duration> {
    match source {
        PodSource::Listed | PodSource::Registered => None,
        PodSource::Dns { every, .. } => Some(*every),
        PodSource::File { .. } => Some(Duration::from_secs(1)),
    }
}
