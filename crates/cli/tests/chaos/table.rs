//! What the cases have shown, as rows, and as the page that tells of them.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cases::{Case, Fault};
use crate::naive;
use crate::rig::{Loss, Pods};

/// One case and what was seen in it.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) case: Case,
    /// How long the fault lasted.
    pub(crate) lasted: Duration,
    pub(crate) requests: usize,
    /// Answered 5xx. The pods never answer that, so they are all ours.
    pub(crate) errors: usize,
    /// Not answered, because the gate was killed.
    pub(crate) cut: usize,
    /// Not answered for no such reason, each in words.
    pub(crate) unexplained: Vec<String>,
    /// Most units that any pod held above its capacity, by its own count.
    pub(crate) over_capacity: u32,
    /// Requests that the pods' own locks refused.
    pub(crate) pod_refused: u64,
    /// Units that the pool could not hand out when all was over.
    pub(crate) leaked: usize,
    /// Share of 429 before the fault, 0..=1.
    pub(crate) usual: f64,
    /// The worst quarter of a second after it.
    pub(crate) worst: f64,
    /// Time from the begin of the fault until the share was usual again; `None`: not within the case.
    pub(crate) back: Option<Duration>,
    /// The load's largest lag behind its plan.
    pub(crate) lag: Duration,
}

impl Row {
    /// What should not have been.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut wrong = |is_wrong: bool, what: String| {
            if is_wrong {
                problems.push(format!("{}: {what}", self.case.name()));
            }
        };
        if self.case.fault == Fault::Apart {
            wrong(self.over_capacity == 0, "four gates that know nothing of each other were not seen".into());
            return problems;
        }
        // No word on how soon the share is normal again: that is measured, and a busy machine is no fault of the pool.
        wrong(self.errors > 0, format!("{} answers of 5xx of ours", self.errors));
        let unexplained = self.unexplained.join("\n  ");
        wrong(!self.unexplained.is_empty(), format!("requests without an answer:\n  {unexplained}"));
        wrong(self.leaked > 0, format!("{} units leaked", self.leaked));
        // Gates that all hear a ledger which lost its state have their shares written down by it.
        let heard = matches!(self.case.fault, Fault::None | Fault::FlushAll | Fault::DeleteKey(_));
        if self.case.loss == Loss::Refuse || heard {
            wrong(self.over_capacity > 0, format!("{} units above a pod's capacity", self.over_capacity));
            wrong(self.pod_refused > 0, format!("{} requests refused by pods", self.pod_refused));
        }
        problems
    }

    /// Its line of the table.
    pub(crate) fn line(&self) -> String {
        let case = &self.case;
        let (over, refused) = match case.pods {
            Pods::Count => (self.over_capacity.to_string(), "-".to_owned()),
            Pods::Refuse => ("-".to_owned(), self.pod_refused.to_string()),
        };
        let back = match self.back {
            _ if matches!(case.fault, Fault::Apart | Fault::None) => "-".to_owned(),
            Some(back) => format!("{:.2} s", back.as_secs_f64()),
            None => "later".to_owned(),
        };
        format!(
            "| {} | {} | {} | {over} | {refused} | {} | {} | {} % | {} % | {:.2} s | {back} | {} |",
            case.fault.title(),
            case.loss.name(),
            if case.long { "some long" } else { "short" },
            self.errors,
            self.cut + self.unexplained.len(),
            percent(self.usual),
            percent(self.worst),
            self.lasted.as_secs_f64(),
            self.leaked,
        )
    }
}

fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

const HEAD: &str = "\
| fault | `on_ledger_loss` | work | over capacity | refused by pods | 5xx | no answer | 429 before | 429 at worst | fault lasted | normal after | leaked |
|---|---|---|---|---|---|---|---|---|---|---|---|
";

/// The rows as a table.
pub(crate) fn table(rows: &[Row]) -> String {
    let lines: Vec<String> = rows.iter().map(Row::line).collect();
    format!("{HEAD}{}\n", lines.join("\n"))
}

/// The page.
pub(crate) fn page(command: &str, rows: &[Row], naive: &[naive::Row]) -> String {
    let mut page = String::from(INTRO);
    let requests: usize = rows.iter().map(|row| row.requests).sum();
    let lag = rows.iter().map(|row| row.lag).max().unwrap_or_default();
    writeln!(
        page,
        "{} cases, {requests} requests; the load was never more than {} ms behind its plan. Made by\n\
         ```sh\n{command}\n```\n",
        rows.len(),
        lag.as_millis()
    )
    .expect("a text takes all that is written");
    page.push_str(&table(rows));
    page.push_str(NAIVE);
    page.push_str(&naive::table(naive));
    page
}

const INTRO: &str = "\
# Chaos: real processes, real faults

Four gateways (`sluicegate run`), ten pods of 20 units, a real Redis, requests of 1, 2 and 3 units at load 0.9 in an open loop, `wait: 50ms`.
Work is exponential with a mean of 100 ms (*short*); with *some long* a tenth of the requests work for three ttls. ttl is 1 s, and
3 s where there are replicas, whose lag Redis counts in whole seconds. The judges are the pods: some only count and keep their peak
(*over capacity*), some refuse by their own lock (*refused by pods*).

- **over capacity**: most units any pod held above its 20 at one time. For `refuse` it has to be 0, and for `share` where every gate hears the ledger (none, FLUSHALL, a key lost); elsewhere it is the price of going on.
- **5xx**: ours, as pods never answer one here. **no answer**: connections that a killed gate took with it; elsewhere it has to be 0.
- **429 at worst**: share of the worst quarter of a second. **normal after**: time from the begin of the fault to the first second whose
  quarters are all within the mean before it + 3 sigma; 0 where they never left it.
- **leaked**: units of the quiet pool that could not be handed out afterwards.
- A balancer takes a quarter of a second to see that a gate does not answer, and leads its part of the load to the others.
- The control has four gates that each count for themselves: the pods see it.

";

const NAIVE: &str = "
## The naive scripts under the same chaos

Two commands per request straight to Redis (Sluicegate: its library, with `wait: 0`), four gates, simulated work of 300 ms at load 1.0, one pool of 200 units and no wait; the judge counts what really
runs. *Over capacity*: most units running above 200. *Leaked*: units that nobody uses and nobody gets when all work has ended and every
timer has fired; below 0: units that do not exist and are handed out.

";
