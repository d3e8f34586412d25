//! The ways to stand before a pool, each set up as those who know it well would: what is chosen and why stands in
//! [`Way::how`], and from there in the page.

use std::any::Any;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluicegate_testkit::redis::{Redis, RedisOptions};

use crate::Outcome;
use crate::rivals::{self, Nginx, Server};
use crate::world::{
    Gateway, POD_UNITS, PODS, PROXY_CORE, confine, folder, free_ports, loopback, pinned, weights,
};

/// How long a request may wait, wherever there is a queue.
pub(super) const WAIT: &str = "1s";
/// Requests that the pool bears at its lightest weight.
const REQUESTS: u32 = POD_UNITS * PODS as u32;
/// What Envoy lets through at one time.
const BREAKER: u32 = 130;
/// Gates of the shared pool.
const GATES: usize = 4;

/// One way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    RoundRobin,
    LeastConnections,
    QueueMean,
    QueueSafe,
    LimitConn,
    Breakers,
    Adaptive,
    TwoCommands,
    NoWait,
    Memory,
    Shared,
}

impl Way {
    pub(super) const ALL: [Way; 11] = [
        Way::RoundRobin,
        Way::LeastConnections,
        Way::QueueMean,
        Way::QueueSafe,
        Way::LimitConn,
        Way::Breakers,
        Way::Adaptive,
        Way::TwoCommands,
        Way::NoWait,
        Way::Memory,
        Way::Shared,
    ];

    /// Letter, name, and how it is set up.
    const fn words(self) -> [&'static str; 3] {
        match self {
            Way::RoundRobin => [
                "a1",
                "pods alone, round robin",
                "HAProxy `balance roundrobin`; each pod's own lock is the only limit",
            ],
            Way::LeastConnections => [
                "a2",
                "pods alone, least connections",
                "HAProxy `balance leastconn`; each pod's own lock is the only limit",
            ],
            Way::QueueMean => [
                "b1",
                "HAProxy queue, tuned",
                "HAProxy `leastconn`, `maxconn 9` for each pod (chosen from 7, 8 and 9 in a tuning run), `timeout queue 1s`, \
                 and our offset by weight as `set-priority-offset`. HAProxy 2.6 cannot send a pod's 429 to another pod",
            ],
            Way::QueueSafe => [
                "b2",
                "HAProxy queue, safe",
                "the same with `maxconn 6` (capacity over heaviest weight): no pod can be exceeded",
            ],
            Way::LimitConn => [
                "c",
                "nginx limit_conn",
                "nginx `limit_conn` of 200 for the pool (capacity over lightest weight; 100 and 120 refuse more), `least_conn`, and a \
                 pod's 429 is tried on all other pods (`proxy_next_upstream http_429`)",
            ],
            Way::Breakers => [
                "d1",
                "Envoy circuit breakers",
                "Envoy `max_requests` of 130 for the pool (100 refuses twice as much, 200 retries itself to a standstill), least request with a full scan, a pod's 429 is tried on 3 others with \
                 Envoy's own back-off (25 ms and more)",
            ],
            Way::Adaptive => [
                "d2",
                "Envoy adaptive concurrency",
                "Envoy's gradient controller in place of the breaker, first measurement at 50 requests, the same balancing and \
                 retries. It looks for answers that grow slower; these pods refuse instead",
            ],
            Way::TwoCommands => [
                "e",
                "nginx Lua, two Redis commands",
                "nginx Lua: one script takes units on the narrowest pod that has them, one gives them back; nobody waits",
            ],
            Way::NoWait => ["f0", "Sluicegate, no waiting", "one gateway, `wait: 0`"],
            Way::Memory => ["f", "Sluicegate, one gate", "one gateway, `wait: 1s`, defaults"],
            Way::Shared => [
                "g",
                "Sluicegate, 4 gates over Redis",
                "four gateways over one Redis, `wait: 1s`, defaults; requests go to the gates in turn, the first ones when the ledger \
                 has ended its first seconds, in which it only listens",
            ],
        }
    }

    pub(super) fn letter(self) -> &'static str {
        self.words()[0]
    }

    pub(super) fn name(self) -> &'static str {
        self.words()[1]
    }

    pub(super) fn how(self) -> &'static str {
        self.words()[2]
    }

    pub(super) fn is_ours(self) -> bool {
        matches!(self, Way::NoWait | Way::Memory | Way::Shared)
    }

    /// Starts it before these pods.
    ///
    /// # Errors
    /// A part is missing or does not start.
    pub(super) fn start(self, bin: &Path, pods: &[SocketAddr]) -> Outcome<Running> {
        match self {
            Way::RoundRobin => haproxy("  balance roundrobin\n", "", pods),
            Way::LeastConnections => haproxy("  balance leastconn\n", "", pods),
            Way::QueueMean => queue(9, pods),
            Way::QueueSafe => queue(6, pods),
            Way::LimitConn => limit_conn(pods),
            Way::Breakers => envoy(false, pods),
            Way::Adaptive => envoy(true, pods),
            Way::TwoCommands => two_commands(pods),
            Way::NoWait => memory(bin, "0", pods),
            Way::Memory => memory(bin, WAIT, pods),
            Way::Shared => shared(bin, pods),
        }
    }
}

/// A way that runs.
pub(super) struct Running {
    /// Where requests go, in turn.
    pub(super) targets: Vec<SocketAddr>,
    /// Whose CPU is counted.
    pub(super) proxies: Vec<u32>,
    /// The same of their store.
    pub(super) stores: Vec<u32>,
    /// Ends with this.
    _keep: Box<dyn Any>,
}

impl Running {
    fn of(server: Server) -> Running {
        let (targets, proxies) = (server.addrs.clone(), vec![server.process.id()]);
        Running { targets, proxies, stores: Vec::new(), _keep: Box::new(server) }
    }
}

fn haproxy(backend: &str, server: &str, pods: &[SocketAddr]) -> Outcome<Running> {
    let line = |(number, pod): (usize, &SocketAddr)| format!("  server p{number} {pod} {server}\n");
    let servers: String = pods.iter().enumerate().map(line).collect();
    rivals::haproxy_with(&format!("  default_backend pods\nbackend pods\n{backend}{servers}"))
        .map(Running::of)
}

/// `light-first` has offsets of 0.9 x wait x x² x (1 - y): x from the lightest to the heaviest, y the weight's part of the
/// largest pod; of 1 s in milliseconds.
fn queue(maxconn: u32, pods: &[SocketAddr]) -> Outcome<Running> {
    let backend = format!(
        "  balance leastconn\n  timeout queue {WAIT}\n  \
         http-request set-priority-offset int(203) if {{ path_beg /w/2 }}\n  \
         http-request set-priority-offset int(765) if {{ path_beg /w/3 }}\n"
    );
    haproxy(&backend, &format!("maxconn {maxconn}"), pods)
}

fn limit_conn(pods: &[SocketAddr]) -> Outcome<Running> {
    let listen = loopback(free_ports(1)?[0]);
    let servers: String = pods.iter().map(|pod| format!("server {pod} max_fails=0; ")).collect();
    let http = format!(
        "limit_conn_zone $server_name zone=pool:1m; limit_conn_status 429; \
         upstream pods {{ least_conn; {servers} keepalive 256; keepalive_requests 1000000000; }} \
         server {{ listen {listen}; server_name pool; location / {{ limit_conn pool {REQUESTS}; proxy_pass http://pods; \
         proxy_http_version 1.1; proxy_set_header Connection \"\"; \
         proxy_next_upstream error timeout http_429; }} }}"
    );
    Nginx { http: &http, ..Nginx::on(PROXY_CORE) }.start(vec![listen]).map(Running::of)
}

fn envoy(adaptive: bool, pods: &[SocketAddr]) -> Outcome<Running> {
    let folder = folder()?;
    let listen = loopback(free_ports(1)?[0]);
    let config = folder.path().join("envoy.json");
    let text = envoy_config(adaptive, listen, pods).to_string();
    std::fs::write(&config, text).map_err(|error| format!("{}: {error}", config.display()))?;
    let mut command = pinned(PROXY_CORE, rivals::envoy()?);
    command.arg("-c").arg(config).args(["--concurrency", "1", "-l", "error", "--disable-hot-restart"]);
    Ok(Running::of(Server::start(command, folder, vec![listen])))
}

fn envoy_address(addr: SocketAddr) -> Value {
    json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}})
}

fn envoy_config(adaptive: bool, listen: SocketAddr, pods: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> =
        pods.iter().map(|pod| json!({"endpoint": {"address": envoy_address(*pod)}})).collect();
    let ours = "type.googleapis.com/envoy.extensions.filters";
    let router =
        json!({"name": "router", "typed_config": {"@type": format!("{ours}.http.router.v3.Router")}});
    let gradient = json!({"name": "adaptive", "typed_config": {
        "@type": format!("{ours}.http.adaptive_concurrency.v3.AdaptiveConcurrency"),
        "concurrency_limit_exceeded_status": {"code": 429},
        "gradient_controller_config": {
            "sample_aggregate_percentile": {"value": 50},
            "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
            "min_rtt_calc_params": {"interval": "30s", "request_count": 50, "min_concurrency": 50,
                "jitter": {"value": 10}, "buffer": {"value": 25}}},
        "enabled": {"default_value": true, "runtime_key": "adaptive_concurrency.enabled"}}});
    let filters = if adaptive { vec![gradient, router] } else { vec![router] };
    let retry = json!({
        "retry_on": "retriable-status-codes", "retriable_status_codes": [429], "num_retries": 3,
        "retry_host_predicate": [{"name": "previous", "typed_config": {"@type":
            "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}],
        "host_selection_retry_max_attempts": 5});
    let route = json!({"match": {"prefix": "/"}, "route": {"cluster": "pods", "retry_policy": retry, "timeout": "60s"}});
    let manager = json!({
        "@type": format!("{ours}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "in", "generate_request_id": false,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": filters});
    let many = 100_000;
    let most = if adaptive { many } else { BREAKER };
    json!({"static_resources": {
        "listeners": [{"name": "in", "address": envoy_address(listen),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}],
        "clusters": [{"name": "pods", "type": "STATIC", "connect_timeout": "5s",
            "load_balancing_policy": {"policies": [{"typed_extension_config": {"name": "least", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
                "selection_method": "FULL_SCAN"}}}]},
            "circuit_breakers": {"thresholds": [{"max_requests": most, "max_connections": many,
                "max_pending_requests": many, "max_retries": BREAKER}]},
            "load_assignment": {"cluster_name": "pods", "endpoints": [{"lb_endpoints": endpoints}]}}]}})
}

/// Takes `ARGV[1]` units on the narrowest pod that has them. `KEYS[1]`: a sorted set of pods by free units.
const TAKE: &str = "local pod = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[1], '+inf', 'LIMIT', 0, 1)[1]
if not pod then return -1 end
redis.call('ZINCRBY', KEYS[1], -ARGV[1], pod)
return tonumber(pod)";

/// Gives `ARGV[1]` units of pod `ARGV[2]` back.
const GIVE: &str = "redis.call('ZINCRBY', KEYS[1], ARGV[1], ARGV[2])
return 0";

fn redis() -> Outcome<Redis> {
    let redis = Redis::with(RedisOptions::tcp());
    confine(redis.process().id(), PROXY_CORE)?;
    Ok(redis)
}

fn two_commands(pods: &[SocketAddr]) -> Outcome<Running> {
    let redis = redis()?;
    let said = |error| format!("the scripts' keys: {error}");
    for pod in 0..pods.len() {
        redis.call::<()>(&["ZADD", "free", &POD_UNITS.to_string(), &pod.to_string()]).map_err(said)?;
    }
    let load = |script: &str| redis.call::<String>(&["SCRIPT", "LOAD", script]).map_err(said);
    let (take, give) = (load(TAKE)?, load(GIVE)?);
    let ports: Vec<String> = pods.iter().map(|pod| pod.port().to_string()).collect();
    let listen = loopback(free_ports(1)?[0]);
    let http = format!(
        "lua_package_path \"$prefix/?.lua;/usr/share/lua/5.1/?.lua;;\"; lua_max_pending_timers 65536; \
         lua_max_running_timers 16384; init_by_lua_block {{ require \"resty.core\"; \
         way = require(\"two_commands\")({}, \"{take}\", \"{give}\", {{ {} }}) }} \
         upstream pods {{ server 0.0.0.1; balancer_by_lua_block {{ way.balance() }} keepalive 256; \
         keepalive_requests 1000000000; }} \
         server {{ listen {listen}; location / {{ access_by_lua_block {{ way.access() }} \
         log_by_lua_block {{ way.log() }} proxy_pass http://pods; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }}",
        redis.addr().port(),
        ports.join(", "),
    );
    let modules = "load_module /usr/lib/nginx/modules/ndk_http_module.so; \
                   load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;";
    let files = [("two_commands.lua", include_str!("two_commands.lua"))];
    let nginx = Nginx { main: modules, http: &http, files: &files, ..Nginx::on(PROXY_CORE) };
    let running = Running::of(nginx.start(vec![listen])?);
    Ok(Running { stores: vec![redis.process().id()], _keep: Box::new((running._keep, redis)), ..running })
}

fn memory(bin: &Path, wait: &str, pods: &[SocketAddr]) -> Outcome<Running> {
    let rules = weights(pods, &format!("{{wait: {wait}}}"));
    let gateway = Gateway::start(bin, &rules, Some(1), &["taskset", "-c", PROXY_CORE])?;
    let (targets, proxies) = (vec![gateway.listen], vec![gateway.pid()]);
    Ok(Running { targets, proxies, stores: Vec::new(), _keep: Box::new(gateway) })
}

fn shared(bin: &Path, pods: &[SocketAddr]) -> Outcome<Running> {
    let redis = redis()?;
    let rules = format!(
        "{}ledger: {{redis: \"redis://{}\"}}\n",
        weights(pods, &format!("{{wait: {WAIT}}}")),
        redis.addr()
    );
    let start = || Gateway::start(bin, &rules, Some(1), &["taskset", "-c", PROXY_CORE]);
    let gateways = (0..GATES).map(|_| start()).collect::<Outcome<Vec<Gateway>>>()?;
    let begin = Instant::now();
    while !gateways.iter().map(Gateway::state).collect::<Outcome<Vec<_>>>()?.iter().all(knows_all) {
        if begin.elapsed() > Duration::from_secs(60) {
            return Err("the gates do not know each other after a minute".to_owned());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let targets = gateways.iter().map(|gateway| gateway.listen).collect();
    let proxies = gateways.iter().map(Gateway::pid).collect();
    Ok(Running { targets, proxies, stores: vec![redis.process().id()], _keep: Box::new((gateways, redis)) })
}

/// The ledger is up, has heard of all gates, and counts: an empty Redis may be one that has lost its state, so for the first
/// seconds it only listens.
fn knows_all(state: &Value) -> bool {
    let ledger = &state["ledger"];
    let all = state["gates"].as_array().is_some_and(|gates| gates.len() == GATES);
    ledger["up"] == true && ledger["recovering"] == false && all
}

#[cfg(test)]
mod tests {
    use super::Way;

    #[test]
    fn letters_are_unique_and_ways_are_told() {
        let mut letters = Way::ALL.map(Way::letter);
        letters.sort_unstable();
        assert!(letters.windows(2).all(|pair| pair[0] != pair[1]), "{letters:?}");
        assert!(Way::ALL.iter().all(|way| !way.name().is_empty() && !way.how().is_empty()));
    }
}
