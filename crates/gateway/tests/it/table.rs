//! The table of endings: every ending, over both protocols, for pods that work on after a
//! disconnect and pods that stop. It stands in `docs/endings.md`; to write it anew:
//! `SLUICEGATE_WRITE_TABLES=1 cargo test -p sluicegate-gateway --test it table`.

use std::fmt::Write;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;

use sluicegate_trial::pod::OnDisconnect;

use crate::endings::{self, Ended, Setting};
use crate::visitor::Protocol;

type Case = fn(Setting) -> Pin<Box<dyn Future<Output = Ended> + Send>>;

/// Names the cases; each function's name is its row's.
macro_rules! cases {
    ($($words:literal => $name:ident,)*) => {
        [$(($words, (|setting| Box::pin(endings::$name(setting))) as Case),)*]
    };
}

const PROTOCOLS: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
const PODS: [OnDisconnect; 2] = [OnDisconnect::Continues, OnDisconnect::Stops];

#[tokio::test]
async fn every_ending_ends_the_lease_once() {
    let cases = cases! {
        "the client leaves while it waits" => leaves_while_waiting,
        "the client leaves while it waits, its body partly sent" => leaves_while_waiting_with_its_body_partly_sent,
        "the client leaves while the pod works, its body partly sent" => leaves_with_its_body_partly_sent,
        "the client leaves while the pod works" => leaves_while_the_pod_works,
        "the client leaves while the answer streams" => leaves_while_it_streams,
        "the client leaves an idle stream" => leaves_an_idle_stream,
        "the pod resets before its headers" => pod_resets_before_its_headers,
        "the pod resets within its body" => pod_resets_within_its_body,
        "the pod answers after `max_hold`" => pod_answers_after_max_hold,
        "the pod never answers" => pod_never_answers,
        "the answer outlives `max_stream`" => stream_outlives_max_stream,
        "the pod frees its units late" => pod_frees_late,
        "the pod's own lock refuses to the end" => pod_refuses,
        "the request's task is dropped (panic, kill)" => task_is_dropped,
        "the gateway drains" => gateway_drains,
    };
    let mut table = String::from(HEAD);
    for (words, case) in cases {
        // All cells of a row at once, the rows one by one: few enough threads for two cores.
        let mut running = Vec::new();
        for client in PROTOCOLS {
            for on_disconnect in PODS {
                for h2c in [false, true] {
                    let setting = Setting { client, on_disconnect, h2c };
                    running.push((setting, tokio::spawn(case(setting))));
                }
            }
        }
        let mut cells: Vec<(Setting, Ended)> = Vec::new();
        for (setting, cell) in running {
            let ended = cell.await.unwrap_or_else(|error| panic!("{words}, {setting:?}: {error}"));
            cells.push((setting, ended));
        }
        for pair in cells.chunks(2) {
            assert_eq!(pair[0].1, pair[1].1, "{words}: the pod's protocol makes a difference");
        }
        write_row(&mut table, words, cells.iter().step_by(2));
    }
    compare_or_write(&table);
}

const HEAD: &str = "\
# How a request ends

Written by the test `every_ending_ends_the_lease_once`, which plays each ending against a real pod of one unit, over
HTTP/1.1 and HTTP/2 on either side, and fails if a lease ends twice, not at all, or at another moment than this. \"At the
pod's end\" is its last byte or its reset. `continues` and `stops` are the pod's `on_disconnect`. An HTTP/2 client
leaves by resetting its stream, an HTTP/1.1 client by closing its connection.

| ending | client | lease ends: `continues` | lease ends: `stops` | the client sees |
|---|---|---|---|---|
";

fn write_row<'a>(table: &mut String, words: &str, cells: impl Iterator<Item = &'a (Setting, Ended)>) {
    let cells: Vec<_> = cells.collect();
    for of_client in cells.chunks(PODS.len()) {
        let [(setting, (continues, saw)), (_, (stops, saw_too))] = of_client else {
            panic!("one cell for each kind of pod");
        };
        assert_eq!(saw, saw_too, "{words}: what the client sees does not depend on the pod's kind");
        let client = if setting.client == Protocol::Http1 { "HTTP/1.1" } else { "HTTP/2" };
        writeln!(table, "| {words} | {client} | {continues} | {stops} | {saw} |").unwrap();
    }
}

fn compare_or_write(table: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/endings.md");
    if std::env::var_os("SLUICEGATE_WRITE_TABLES").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, table).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        written, table,
        "docs/endings.md is not what happens; SLUICEGATE_WRITE_TABLES=1 writes it anew"
    );
}
