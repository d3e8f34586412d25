//! A service that guards two things of its own: three units each, a light and a heavy kind of work.
//!
//! `cargo run -p sluicegate --example embed`

use std::time::Duration;

use sluicegate::policy::Policy;
use sluicegate::{Ask, Gate, Refusal};

/// Runs ten pieces of work through the gate and says how each went.
pub async fn run() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let policy = Policy::simple(&[("db-1", 3), ("db-2", 3)], &[("light", 1), ("heavy", 3)]);
    let gate = Gate::new(policy)?;
    let light = gate.api_id("light").ok_or("the policy names it")?;
    let heavy = gate.api_id("heavy").ok_or("the policy names it")?;

    let mut running = Vec::new();
    for number in 0..10 {
        let gate = gate.clone();
        let api = if number % 3 == 0 { heavy } else { light };
        running.push(tokio::spawn(async move {
            match gate.acquire(Ask::new(api).wait(Duration::from_millis(500))).await {
                Ok(lease) => {
                    tokio::time::sleep(Duration::from_millis(5)).await; // the work
                    format!("{number}: {} units on {}", lease.weight(), gate.pod_name(lease.pod()))
                }
                Err(Refusal::NotNow { reason, retry_after_s, .. }) => {
                    format!("{number}: not now ({}), again in {retry_after_s} s", reason.as_str())
                }
                Err(Refusal::Never { most, .. }) => format!("{number}: never, {most} units at most"),
            }
        }));
    }
    let mut said = Vec::new();
    for task in running {
        said.push(task.await?);
    }
    Ok(said)
}

#[tokio::main]
#[allow(dead_code, clippy::print_stdout)] // the tests call `run`
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run().await?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
