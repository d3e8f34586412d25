//! `sluicegate check`.

use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

use sluicegate_config::{Config, LedgerSettings, PodUrl};
use sluicegate_redis::online::Severity;

use super::{Failure, Outcome, load};
use crate::args;
use crate::pool;

/// Longest time to connect to one pod.
const CONNECT_MAX: Duration = Duration::from_secs(2);

#[allow(clippy::print_stdout)] // the answer
pub(crate) fn run(args: &args::Check) -> Outcome {
    let mut config = load(&args.config)?;
    if args.online {
        config = pool::resolve(&config).map_err(Failure)?;
    }
    println!("{}", sluicegate_config::explain(&config).trim_end());
    let unreachable = if args.online { unreachable(&config) } else { Vec::new() };
    for line in &unreachable {
        eprintln!("{line}");
    }
    let fit = !args.online || ledger_fits(args, &config);
    let good = unreachable.is_empty() && fit;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what is not as it should be at the ledger's server; false if units could be lent twice, or none at all.
fn ledger_fits(args: &args::Check, config: &Config) -> bool {
    let LedgerSettings::Redis(redis) = &config.ledger else { return true };
    let findings = pool::ledger::findings(config, redis);
    for finding in &findings {
        let bad = finding.severity == Severity::Error;
        eprintln!("{}{}: ledger: {finding}", if bad { "" } else { "warning: " }, args.config.display());
    }
    findings.iter().all(|finding| finding.severity != Severity::Error)
}

/// A line for each pod that does not take a connection.
fn unreachable(config: &Config) -> Vec<String> {
    let failures = config.pods.iter().filter_map(|pod| {
        let error = connect(&pod.url).err()?;
        Some(format!(
            "pod `{}`: nothing answers at {}: {error}\n  mend: start it, or correct its url",
            pod.name, pod.url
        ))
    });
    failures.collect()
}

fn connect(url: &PodUrl) -> std::io::Result<()> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match std::net::TcpStream::connect_timeout(&address, CONNECT_MAX) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}
