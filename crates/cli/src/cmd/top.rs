//! `sluicegate top`: what a running gate does now, as a table that is drawn anew every second.

mod ask;
mod screen;
mod table;

use std::io::{self, IsTerminal, Write};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::run::until_told_to_stop;
use super::{Failure, Outcome};
use crate::args;
use ask::{Admin, State};
use screen::{Key, Screen};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// The variable that holds the token when the command line does not.
const TOKEN: &str = "SLUICEGATE_ADMIN_TOKEN";

pub(crate) fn run(args: &args::Top) -> Outcome {
    let token = args.token.clone().or_else(|| std::env::var(TOKEN).ok());
    let admin = Admin::new(args.admin.clone(), token)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::of("no runtime", &error))?;
    let outcome = runtime.block_on(async {
        // The first look decides: a wrong address or token is said as words, not as an empty screen.
        let first = admin.state().await?;
        if args.once {
            return print(&table::lines(&first, None)).map(|_| ());
        }
        tokio::select! {
            stopped = until_told_to_stop() => stopped,
            shown = show(&admin, first) => shown,
        }
    });
    // A thread may still wait for a key; nobody has to wait for it.
    runtime.shutdown_background();
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn show(admin: &Admin, first: State) -> Result<(), Failure> {
    if io::stdout().is_terminal() { on_screen(admin, first).await } else { in_lines(admin, first).await }
}

/// For a pipe or a file: a plain table a second, until nobody reads.
async fn in_lines(admin: &Admin, first: State) -> Result<(), Failure> {
    let mut ticks = ticks().await;
    let mut before: Option<State> = None;
    let mut now = first;
    loop {
        if !print(&table::lines(&now, before.as_ref()))? {
            return Ok(());
        }
        ticks.tick().await;
        before = Some(std::mem::replace(&mut now, admin.state().await?));
    }
}

/// The terminal is restored when the screen is dropped, on every way out.
async fn on_screen(admin: &Admin, first: State) -> Result<(), Failure> {
    let mut screen = Screen::enter().map_err(|error| Failure::of("the terminal cannot be used", &error))?;
    let mut ticks = ticks().await;
    let mut before: Option<State> = None;
    let mut now = first;
    let mut trouble = None;
    loop {
        let lines = table::lines(&now, before.as_ref());
        let drawn = screen.draw(&lines, trouble.as_deref());
        drawn.map_err(|error| Failure::of("the terminal cannot be written to", &error))?;
        // Together, so that a gate that hangs does not keep its watcher from leaving.
        let mut next = pin!(async {
            ticks.tick().await;
            admin.state().await
        });
        let answer = loop {
            tokio::select! {
                key = screen.key() => match key {
                    Key::Quit => return Ok(()),
                    Key::Other => {}
                },
                answer = &mut next => break answer,
            }
        };
        match answer {
            Ok(state) => {
                before = Some(std::mem::replace(&mut now, state));
                trouble = None;
            }
            // The last figures stay, marked: a gate that restarts comes back by itself.
            Err(failure) => trouble = Some(failure.to_string()),
        }
    }
}

/// Once a second from now on; the look that has just been is the first.
async fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    ticks
}

/// Whether somebody still reads.
fn print(lines: &[String]) -> Result<bool, Failure> {
    let mut text = lines.join("\n");
    text.push_str("\n\n");
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::of("stdout cannot be written to", &error)),
    }
}
