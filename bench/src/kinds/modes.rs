//! What admission costs a request: `enforce` beside `off`.

use std::time::Duration;

use sluicegate_testkit::client::Raw;

use crate::page::Section;
use crate::stats::Spread;
use crate::world::{Gateway, PROXY_CORE, block_on, example, sluicegate};
use crate::{Outcome, Settings, cpu, machine, rivals};

const PATH: &str = "/quotes/1";
const MODES: [&str; 2] = ["enforce", "off"];

/// Requests of the short and of the long count of instructions; their difference leaves out the start.
const SHORT: u32 = 1000;
const LONG: u32 = 5000;

/// Counts are the same to a few instructions; three show that.
const COUNTS: u32 = 3;

/// # Errors
/// A program is missing, a request was not answered 200, or the page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let bin = sluicegate(settings)?;
    let mut section = Section::begin("modes");
    let pods = rivals::tiny_pods()?;
    let rules = example(&pods.addrs);
    let mut counted = [Vec::new(), Vec::new()];
    for _ in 0..COUNTS {
        for (mode, counted) in MODES.iter().zip(&mut counted) {
            let short = instructions(&bin, &rules, mode, SHORT)?;
            let long = instructions(&bin, &rules, mode, LONG)?;
            counted.push(long.saturating_sub(short) as f64 / f64::from(LONG - SHORT));
        }
    }
    let gateway = Gateway::start(&bin, &rules, Some(1), &["taskset", "-c", PROXY_CORE])?;
    rivals::wrk(gateway.listen, PATH, 1.0)?;
    let mut used = [Vec::new(), Vec::new()];
    for _ in 0..settings.runs {
        for (mode, used) in MODES.iter().zip(&mut used) {
            set_mode(&gateway, mode)?;
            let before = cpu::cpu_ns(gateway.pid())?;
            let done = rivals::wrk(gateway.listen, PATH, settings.seconds.unwrap_or(2.0))?;
            let ns = cpu::cpu_ns(gateway.pid())? - before;
            used.push(ns as f64 / done.requests as f64 / 1000.0);
        }
    }
    section.table(&[
        "per proxied request",
        "`enforce`",
        "`off`",
        "ratio run by run, median",
        "min..max",
        "bar",
    ]);
    for (what, [enforce, off], decimals, bar) in [
        ("instructions (callgrind, user space)", &counted, 0, "1.03"),
        ("CPU µs (32 connections)", &used, 2, ""),
    ] {
        let medians = [enforce, off].map(|figures| format!("{:.*}", decimals, Spread::of(figures).median));
        let ratio = Spread::of_ratios(enforce, off);
        section.row(format!("{what} | {} | {} | {bar}", medians.join(" | "), ratio.cells(4)));
    }
    // `off` counts use and chooses pods as `enforce` does, so the ratio alone would flatter.
    let acquire = super::acquire::instructions()?;
    let share = acquire / Spread::of(&counted[0]).median * 100.0;
    section.row(format!(
        "all of `Gate::acquire` and drop, instructions | {acquire:.0} | | {share:.1} % of a request | | "
    ));
    section.note(format!(
        "Instructions: {COUNTS} counts, requests one after the other on one connection, {LONG} less {SHORT}. CPU: {} \
         alternating runs of {:.0} s in one process. The design's example in force.",
        settings.runs,
        settings.seconds.unwrap_or(2.0)
    ));
    section.end(settings)
}

/// Sets the mode, and makes sure that it is in force.
fn set_mode(gateway: &Gateway, mode: &str) -> Outcome<()> {
    gateway.patch(&format!("{{\"admission\": {{\"mode\": \"{mode}\"}}}}"))?;
    let said = gateway.state()?;
    if said["mode"] == mode { Ok(()) } else { Err(format!("the mode is {}, not {mode}", said["mode"])) }
}

/// Instructions of a gateway from its start to its end, with so many requests in between.
fn instructions(bin: &std::path::Path, rules: &str, mode: &str, requests: u32) -> Outcome<u64> {
    let mut gateway = Gateway::start(bin, rules, Some(1), &machine::CALLGRIND)?;
    set_mode(&gateway, mode)?;
    let listen = gateway.listen;
    block_on(async {
        let mut client = Raw::connect(listen).await.map_err(|error| error.to_string())?;
        for _ in 0..requests {
            let answer = client.get(PATH).await.map_err(|error| error.to_string())?;
            if answer.head.status != 200 {
                return Err(format!("answered {}: {}", answer.head.status, answer.text()));
            }
        }
        Ok(())
    })?;
    gateway.process.terminate();
    gateway.process.exit(Duration::from_secs(60));
    // The exit is seen before the last lines are read.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if let Some(count) = machine::collected(&gateway.process.output()) {
            return Ok(count);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("callgrind said nothing: {}", gateway.process.output()))
}
