//! `sluicegate pod`: one sample pod, where the configuration says it is.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sluicegate_config::{Config, OnDisconnect};
use sluicegate_trial::pod::{OnDisconnect as PodOnDisconnect, Pod, PodOptions, Weigh};
use tokio::net::TcpListener;

use super::{Failure, Outcome, load};
use crate::args;
use crate::cmd::run::until_told_to_stop;

pub(crate) fn run(args: &args::Pod) -> Outcome {
    let config = load(&args.config)?;
    let index = config.pods.iter().position(|pod| pod.name == args.name).ok_or_else(|| {
        let names: Vec<&str> = config.pods.iter().map(|pod| pod.name.as_str()).collect();
        Failure(format!(
            "{}: no pod is named `{}`; it lists {}",
            args.config.display(),
            args.name,
            names.join(", ")
        ))
    })?;
    let settings = &config.pods[index];
    let mut options = PodOptions::new(&settings.name, config.policy.pods[index].capacity);
    options.count_only = args.count_only;
    options.late = Duration::from_millis(args.late);
    options.on_disconnect = match settings.on_disconnect {
        OnDisconnect::Continues => PodOnDisconnect::Continues,
        OnDisconnect::Stops => PodOnDisconnect::Stops,
    };
    options.weigh = weigh(&config);
    let address = (settings.url.host.clone(), settings.url.port);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of("no runtime", &error))?;
    runtime.block_on(async {
        let place = format!("pod `{}` cannot listen on {}:{}", args.name, address.0, address.1);
        let listener = TcpListener::bind(address).await.map_err(|error| Failure::of(&place, &error))?;
        let pod = Pod::start(options, listener).map_err(|error| Failure::of(&place, &error))?;
        tracing::info!(pod = pod.name(), url = pod.url(), "listening");
        until_told_to_stop().await?;
        pod.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// The weights of the configuration's apis; an exempt api weighs nothing.
fn weigh(config: &Config) -> Weigh {
    let routes = config.routes.clone();
    let weights: Vec<u32> =
        config.policy.apis.iter().map(|api| if api.exempt { 0 } else { api.weight }).collect();
    Arc::new(move |method, path| weights[routes.find(method.as_str(), path)])
}
