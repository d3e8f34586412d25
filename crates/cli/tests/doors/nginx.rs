//! The real nginx, with the configuration that is shipped, or with a plugin on a shim of its gateway.

use std::fmt::Write;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sluicegate_testkit::ports::{free_port, loopback};
use sluicegate_testkit::process::Process;

use crate::ground::{Asks, Door, SOON};
use crate::matrix;

/// Whose rules run in nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `plugins/nginx/nginx.conf` itself.
    Nginx,
    /// The Kong plugin, on `shims/kong_shim.lua`.
    Kong,
    /// The APISIX plugin, on `shims/apisix_shim.lua`.
    Apisix,
}

/// What a user would write into the configuration.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) kind: Kind,
    /// `http://…` or `unix:/…`.
    pub(crate) decisions: String,
    pub(crate) fail_open: bool,
    /// The pods stop when their client goes.
    pub(crate) stops: bool,
    /// Of every lease; else the api's.
    pub(crate) hold_ms: Option<u32>,
    pub(crate) wait_ms: Option<u32>,
    /// Longer than any wait of a test, if it does not matter.
    pub(crate) answer_ms: u32,
    pub(crate) workers: u32,
    /// Servers of the upstream, for requests that have no lease.
    pub(crate) pods: Vec<SocketAddr>,
    /// Where the plugin's files are, if not in the source.
    pub(crate) installed: Option<PathBuf>,
    /// In place of the `error_page` of the example.
    pub(crate) error_pages: Option<&'static str>,
    /// Further lines of the http block.
    pub(crate) http: &'static str,
    /// Further lines of the server block.
    pub(crate) server: String,
}

impl Setup {
    pub(crate) fn new(kind: Kind, decisions: SocketAddr) -> Setup {
        Setup {
            kind,
            decisions: format!("http://{decisions}"),
            fail_open: false,
            stops: true,
            hold_ms: None,
            wait_ms: None,
            answer_ms: 90_000,
            workers: 2,
            pods: Vec::new(),
            installed: None,
            error_pages: None,
            http: "",
            server: String::new(),
        }
    }

    /// Starts nginx in this folder.
    pub(crate) async fn start(&self, dir: &Path) -> Nginx {
        let listen = loopback(free_port());
        std::fs::write(dir.join("nginx.conf"), self.text(listen)).unwrap();
        let mut process = Process::spawn_group(nginx(dir));
        process.port(listen, SOON).await;
        Nginx { process, listen, dir: dir.to_owned() }
    }

    fn text(&self, listen: SocketAddr) -> String {
        let conf = self.settings();
        let text = match self.kind {
            Kind::Nginx => {
                let shipped = std::fs::read_to_string(plugins().join("nginx/nginx.conf")).unwrap();
                let (head, rest) = shipped.split_once("sluicegate.setup {").expect("it is set up");
                let (_, tail) = rest.split_once('}').expect("the settings end");
                format!("{head}sluicegate.setup {conf}{tail}")
            }
            Kind::Kong => change(&change(&on_shim(), "SHIM", "kong_shim"), "CONF", &conf),
            Kind::Apisix => change(&change(&on_shim(), "SHIM", "apisix_shim"), "CONF", &conf),
        };
        self.on_this_machine(&text, listen)
    }

    /// The plugin's settings, as a table of Lua; all doors have the same.
    fn settings(&self) -> String {
        let mut conf = format!("{{ decisions = \"{}\", ", self.decisions);
        for (name, value) in [("hold_ms", self.hold_ms), ("wait_ms", self.wait_ms)] {
            if let Some(value) = value {
                write!(conf, "{name} = {value}, ").unwrap();
            }
        }
        let on_loss = if self.fail_open { "fail-open" } else { "fail-closed" };
        let on_disconnect = if self.stops { "stops" } else { "continues" };
        let on = format!("on_loss = \"{on_loss}\", on_disconnect = \"{on_disconnect}\"");
        write!(conf, "answer_ms = {}, {on} }}", self.answer_ms).unwrap();
        conf
    }

    /// Addresses and folders of this test in place of those of a user's machine.
    fn on_this_machine(&self, text: &str, listen: SocketAddr) -> String {
        let (plugins, shims) = (plugins(), Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/doors/shims"));
        let files = match &self.installed {
            Some(tree) => format!("{}/?.lua", tree.display()),
            None => format!("{0}/nginx/?.lua;{0}/kong/?.lua;{0}/apisix/?.lua", plugins.display()),
        };
        let lua = format!("{files};{}/?.lua", shims.display());
        let mut text = change(text, "/etc/nginx/sluicegate/?.lua", &lua);
        text = change(&text, "listen 127.0.0.1:8080;", &format!("listen {listen}; {}", self.server));
        text = for_a_test(&text, self.workers);
        text = change(&text, "http {\n", &format!("http {{\n    {}\n", self.http));
        if let Some(pages) = self.error_pages {
            text = change(&text, "error_page 429 502 = @again;", pages);
        }
        if self.stops {
            text = change(&text, "proxy_ignore_client_abort on;", "proxy_ignore_client_abort off;");
        }
        if !self.stops && self.kind != Kind::Nginx {
            // As docs/kong.md and docs/apisix.md say for pods that work on.
            text = change(&text, "lua_check_client_abort on;", "lua_check_client_abort off;");
        }
        if !self.pods.is_empty() {
            let servers: String = self.pods.iter().map(|pod| format!("server {pod}; ")).collect();
            text = change(&text, "server 0.0.0.1;", &servers);
        }
        with_late_paths(&text)
    }
}

/// A running nginx: master and workers, one process group.
pub(crate) struct Nginx {
    pub(crate) process: Process,
    pub(crate) listen: SocketAddr,
    dir: PathBuf,
}

impl Nginx {
    /// The workers' process ids.
    pub(crate) fn workers(&self) -> Vec<u32> {
        let master = self.process.id();
        let children =
            std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// `nginx -s WHAT`.
    pub(crate) fn signal(&self, what: &str) {
        let status = nginx(&self.dir).args(["-s", what]).status().unwrap();
        assert!(status.success(), "nginx -s {what}");
    }
}

/// A configuration that needs nothing of the machine but its folder.
pub(crate) fn for_a_test(text: &str, workers: u32) -> String {
    let text = change(text, "worker_processes auto;", &format!("worker_processes {workers};"));
    let text = change(&text, "error_log stderr warn;", &format!("error_log stderr info; {}", user()));
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|what| format!("{what}_temp_path {what}_temp; "))
        .concat();
    change(&text, "http {\n", &format!("http {{\n    access_log off; {temp}\n"))
}

/// nginx on the configuration in this folder.
pub(crate) fn nginx(dir: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).args([
        "-e",
        "stderr",
        "-g",
        "daemon off;",
    ]);
    command
}

pub(crate) fn plugins() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins").canonicalize().unwrap()
}

/// Replaces a text that must be there: an example that changed must not silently be another test.
pub(crate) fn change(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the configuration has no `{from}` any more");
    text.replace(from, to)
}

/// Workers of a master that root started are somebody else, who may not enter the test's folder.
fn user() -> &'static str {
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 { "user root;" } else { "" }
}

/// The blocks of `location /` and `location @pods` once more, for paths whose pods are given one second.
fn with_late_paths(text: &str) -> String {
    let begin = text.find("        location / {").expect("the server has a `location /`");
    let end = text.rfind("    }\n}").expect("the server is the last block");
    let blocks = &text[begin..end];
    let late = blocks
        .replace("location / {", "location ~ /late$ {")
        .replace("@pods", "@late")
        .replace("@again", "@again_late");
    let late = change(&late, "proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_read_timeout 1s;");
    format!("{}{late}{}", &text[..begin], &text[begin..])
}

/// nginx as the gateways set it up, as far as it matters to a plugin: an error page of their own, and the three lines that
/// docs/kong.md and docs/apisix.md ask users to add.
fn on_shim() -> String {
    let example = std::fs::read_to_string(plugins().join("nginx/nginx.conf")).unwrap();
    let begin = example.find("    init_by_lua_block").unwrap();
    let head = &example[..begin];
    format!(
        "{head}{}",
        r#"    init_by_lua_block {
        require "resty.core"
        shim = require "SHIM"
        shim.install()
        shim.load("sluicegate", CONF)
        -- Another plugin that answers the request itself, after ours: ours must still give back.
        shim.add({ PRIORITY = -1, priority = -1, access = function(conf, ctx)
            if ngx.var.arg_exit == "later" then
                if ctx and ctx.matched_route then return 418, "teapot" end
                return kong.response.exit(418, "teapot")
            end
        end }, {})
    }
    log_by_lua_block { shim.log() }

    upstream pods {
        server 0.0.0.1;
        balancer_by_lua_block { shim.balancer() }
        keepalive 60;
    }

    server {
        listen 127.0.0.1:8080;
        error_page 500 502 503 504 /gateway_error_handler;
        location = /gateway_error_handler {
            internal;
            content_by_lua_block { ngx.print("error") }
        }

        location / {
            lua_check_client_abort on;
            access_by_lua_block { shim.access() }
            proxy_pass http://pods;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ignore_client_abort on;
            proxy_next_upstream off;
        }
    }
}
"#
    )
}

async fn through_the_matrix(name: &str, kind: Kind) {
    matrix::run(name, Asks::Http, async |ground| {
        let nginx = Setup::new(kind, ground.decisions).start(ground.dir()).await;
        Door { listen: nginx.listen, admin: None, processes: vec![nginx.process] }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_takes_and_gives_back_exactly_once() {
    through_the_matrix("nginx", Kind::Nginx).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kong_plugin_takes_and_gives_back_exactly_once() {
    through_the_matrix("Kong plugin on its shim", Kind::Kong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apisix_plugin_takes_and_gives_back_exactly_once() {
    through_the_matrix("APISIX plugin on its shim", Kind::Apisix).await;
}
