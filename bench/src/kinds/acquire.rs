//! `Gate::acquire` and drop, beside tokio's semaphore.

use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Barrier;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use sluicegate::{ApiId, Ask, Gate, Lease};
use tokio::sync::Semaphore;

use crate::page::Section;
use crate::stats::Spread;
use crate::world::{self, POD_UNITS, PODS, loopback};
use crate::{Outcome, Settings, cpu, machine};

/// Operations of one run: the scheduler accounts CPU time in steps of some milliseconds, so a run takes a hundred
/// and more.
const OPERATIONS: u64 = 1_000_000;

/// One thing that is measured: its name and its figure for one run.
type Case<'a> = (&'static str, Box<dyn Fn() -> Took + 'a>);

/// Nanoseconds of one operation.
#[derive(Clone, Copy)]
struct Took {
    /// Of the thread's CPU time: what others run on the core meanwhile is not in it.
    cpu: f64,
    /// By the clock.
    wall: f64,
}

/// # Errors
/// The page cannot be written.
pub(crate) fn run(settings: &Settings) -> Outcome<()> {
    let mut section = Section::begin("acquire");
    let (free, busy) = (gate()?, gate()?);
    let _held = held(&busy)?;
    let semaphore = Semaphore::new(PODS * POD_UNITS as usize);
    let cases: Vec<Case<'_>> = vec![
        ("`Gate::acquire` + drop, `quote` (weight 1)", Box::new(|| one(&free, "quote"))),
        ("the same, `order` (2, `min`, `protected`)", Box::new(|| one(&free, "order"))),
        ("the same, `report` (3, `max`)", Box::new(|| one(&free, "report"))),
        ("`quote` with 150 of the 200 units in use", Box::new(|| one(&busy, "quote"))),
        ("tokio `Semaphore::acquire` + drop", Box::new(|| one_permit(&semaphore))),
        ("two threads on one gate, `quote`", Box::new(|| two(|| one(&free, "quote")))),
        ("two threads on one `Semaphore`", Box::new(|| two(|| one_permit(&semaphore)))),
    ];
    let mut figures = vec![Vec::new(); cases.len()];
    for turn in 0..=settings.runs {
        for (case, figures) in cases.iter().zip(&mut figures) {
            let figure = (case.1)();
            // The first turn only warms up.
            if turn > 0 {
                figures.push(figure);
            }
        }
    }
    section.table(&["what", "CPU ns, median", "min..max", "wall ns, median", "min..max", "bar"]);
    let spread =
        |figures: &[Took], of: fn(&Took) -> f64| Spread::of(&figures.iter().map(of).collect::<Vec<_>>());
    for ((name, _), figures) in cases.iter().zip(&figures) {
        let bar = if name.contains("emaphore") || name.contains("threads") { "" } else { "300, goal 100" };
        let cpu = spread(figures, |took| took.cpu).cells(1);
        section.row(format!("{name} | {cpu} | {} | {bar}", spread(figures, |took| took.wall).cells(1)));
    }
    let cpu = |case: usize| figures[case].iter().map(|took| took.cpu).collect::<Vec<_>>();
    let ratio = Spread::of_ratios(&cpu(0), &cpu(4));
    section.row(format!("ratio, `quote` over `Semaphore`, run by run | {} | | | ", ratio.cells(2)));
    match instructions() {
        Ok(count) => section.row(format!("instructions, `quote` (callgrind) | {count:.0} | | | | ")),
        Err(why) => section.note(format!("Instructions were not counted: {why}.")),
    }
    section.note(format!(
        "{} alternating runs of {OPERATIONS} operations, one thread, each future polled once; ten pods of twenty \
         units under the example of the design (`min`, `protected`, `max`, `reserve: 5%`, `trickle`), metrics as \
         always. Two threads: the wall clock is the time of one operation as its thread sees it.",
        settings.runs
    ));
    section.end(settings)
}

/// The design's example over ten pods that nobody calls.
fn gate() -> Outcome<Gate> {
    let pods: Vec<SocketAddr> = (0..PODS).map(|number| loopback(9001 + number as u16)).collect();
    let loaded = sluicegate_config::parse("example", &world::example(&pods), &|_| None);
    let policy = loaded.map_err(|error| error.to_string())?.config.policy;
    Gate::new(policy).map_err(|error| error.to_string())
}

/// 150 units of `quote`.
fn held(gate: &Gate) -> Outcome<Vec<Lease>> {
    let api = api(gate, "quote");
    (0..150).map(|_| gate.try_acquire(Ask::new(api)).map_err(|refusal| format!("{refusal:?}"))).collect()
}

fn api(gate: &Gate, name: &str) -> ApiId {
    gate.api_id(name).expect("the example has this api")
}

/// Nanoseconds of one acquisition with its drop.
fn one(gate: &Gate, name: &str) -> Took {
    let api = api(gate, name);
    timed(|| {
        let mut acquire = gate.acquire(Ask::new(api));
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(&mut acquire).poll(&mut context) {
            Poll::Ready(Ok(lease)) => drop(black_box(lease)),
            other => panic!("there is room, and yet {:?}", other.map(|answer| answer.map(|_| ()))),
        }
    })
}

fn one_permit(semaphore: &Semaphore) -> Took {
    timed(|| {
        let mut context = Context::from_waker(Waker::noop());
        match pin!(semaphore.acquire()).poll(&mut context) {
            Poll::Ready(Ok(permit)) => drop(black_box(permit)),
            other => panic!("there is a permit, and yet {other:?}"),
        }
    })
}

fn timed(mut operation: impl FnMut()) -> Took {
    let used = || cpu::own_thread_ns().expect("the kernel keeps account of this thread");
    let (start, before) = (Instant::now(), used());
    for _ in 0..OPERATIONS {
        operation();
    }
    let wall = start.elapsed().as_nanos() as f64 / OPERATIONS as f64;
    Took { cpu: (used() - before) as f64 / OPERATIONS as f64, wall }
}

/// The mean of two threads that do the same at the same time.
fn two(one: impl Fn() -> Took + Sync) -> Took {
    let start = Barrier::new(2);
    let begun = || {
        start.wait();
        one()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(begun);
        let mine = begun();
        let other = other.join().expect("the other thread measures only");
        Took { cpu: f64::midpoint(mine.cpu, other.cpu), wall: f64::midpoint(mine.wall, other.wall) }
    })
}

/// For the counting of instructions: see [`instructions`].
///
/// # Errors
/// The example is not a policy.
pub(crate) fn repeat(count: u64) -> Outcome<()> {
    let gate = gate()?;
    let api = api(&gate, "quote");
    for _ in 0..count {
        let mut acquire = gate.acquire(Ask::new(api));
        let ready = Pin::new(&mut acquire).poll(&mut Context::from_waker(Waker::noop()));
        drop(black_box(ready));
    }
    Ok(())
}

/// Instructions of one operation: the difference of two lengths, so that the start falls out.
///
/// # Errors
/// valgrind is not there.
pub(crate) fn instructions() -> Outcome<f64> {
    let count = |operations: u64| {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let program = program.to_string_lossy();
        let operations = operations.to_string();
        machine::instructions(&[&program, "acquire-loop", &operations])
    };
    let (short, long) = (10_000, 60_000);
    Ok((count(long)?.saturating_sub(count(short)?)) as f64 / (long - short) as f64)
}
