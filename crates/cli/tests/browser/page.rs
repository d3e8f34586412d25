//! A real browser, spoken to over its debugging pipe: one page, asked for what it shows.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A browser may need long to start on a busy machine; nothing waits this long when all is well.
const DEADLINE: Duration = Duration::from_secs(60);

/// Between two looks at the page.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Its pipe wants the descriptors 3 and 4, which the standard library cannot set up.
const PIPED: &str = r#"exec chromium "$@" 3<&0 4>&1 </dev/null >/dev/null 2>&1"#;

/// No window, no sandbox (containers forbid it), and nothing of its own over the network.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
    "about:blank",
];

/// One page of one browser with a profile of its own. Dropping it ends the browser.
pub(crate) struct Page {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: String,
    calls: u64,
    /// Every address that the page asked for, its own first.
    pub(crate) requests: Vec<String>,
    /// What went wrong in its script, or was forbidden by its policy.
    pub(crate) complaints: Vec<String>,
    _profile: TempDir,
}

impl Page {
    /// Opens `url` for a reader of `language`.
    pub(crate) fn open(url: &str, language: &str) -> Page {
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", PIPED, "sh"])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args([format!("--lang={language}"), format!("--accept-lang={language}")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, from) = channel();
        let out = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            for message in BufReader::new(out).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        let to = child.stdin.take().unwrap();
        let (requests, complaints) = (Vec::new(), Vec::new());
        let session = String::new();
        let mut page = Page { child, to, from, session, calls: 0, requests, complaints, _profile: profile };
        let target = page.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        page.session = page.call("Target.attachToTarget", attach)["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        page.call("Page.navigate", json!({"url": url}));
        page
    }

    /// What an expression gives in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true}));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression holds; one that fails does not hold yet.
    pub(crate) fn until(&mut self, expression: &str) {
        let start = Instant::now();
        let safe =
            format!("(() => {{ try {{ return Boolean({expression}); }} catch {{ return false; }} }})()");
        while self.eval(&safe) != true {
            if start.elapsed() > DEADLINE {
                let text = self.eval("document.body.innerText");
                panic!("not so: {expression}\n{}\n{:?}", text.as_str().unwrap_or_default(), self.complaints);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut message = json!({"id": self.calls, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = Value::from(self.session.as_str());
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("chromium runs (scripts/install-parts)");
        loop {
            let message = self.from.recv_timeout(DEADLINE);
            let message = message.unwrap_or_else(|error| {
                panic!("chromium (scripts/install-parts) says nothing to {method}: {error}")
            });
            if message["id"] == self.calls {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                self.requests.push(params["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            "Runtime.exceptionThrown" => self.complaints.push(params["exceptionDetails"].to_string()),
            "Log.entryAdded" => self.complaints.push(params["entry"]["text"].to_string()),
            _ => {}
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Both fail only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
