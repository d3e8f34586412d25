//! Words on the wire of `scripts/exchange.lua`. All fields are strings or integers; numbers are decimal. Numbers that
//! may pass 2^53 (incarnation, nonce, server, digest, tickets) are opaque strings to the script.
//!
//! Accounts: `a:API` (an api's `max`), `p:POD` (a pod's capacity), `t` (the trickle).
//!
//! **ARGV** (a report): 1 prefix of the channels, `sluicegate:{POOL}:to:` · 2 gate, 32 hexadecimal digits ·
//! 3 incarnation, `0`: none · 4 epoch · 5 number · 6 nonce · 7 server · 8 step · 9 applied · 10 version · 11 digest ·
//! 12 part: `c`hanges, `m`ore, `l`ast · 13 idle · 14 recalled · 15 hold, us · 16 past, us · 17 ttl, us · 18 done ·
//! 19 queued · 20 vtime · 21 unspent · 22 leaving, 0 or 1 · 23 label · 24 units in use · 25 asks waiting ·
//! 26 terms: JSON, or empty; then lists, each after the count of its entries: holds (account, units) ·
//! used (api, units) · avoid (pod) · outside (pod, units) · waiters (ask, age in us; an ask is its ticket padded to 20,
//! weight, api, pinned pod or empty, joined by the character 31).
//!
//! **Terms**: `{"fair":0|1,"cap":N|-1,"reserve":N,"share":N,"rate":MILLI,"most":N,"pods":[["name",capacity,burst]],`
//! `"apis":[["name",min,max|-1,protected 0|1]]}`.
//!
//! **Reply**: 1 verdict: `a`pplied, `s`tale, `r`esync · 2 incarnation and 3 epoch, the current ones · 4 number, the
//! report's · 5 step · 6 target · 7 scarce, 0 or 1 · 8 recovering, 0 or 1 · 9 tight, 0 or 1 · 10 pace, us ·
//! 11 version · 12 gates · 13 done · 14 queued · 15 vtime · 16 server's time, us · 17 pushes made ·
//! 18 accounts touched · 19 number of the recall, 0: none · 20 its units · 21 its api or empty · 22 kept pod or
//! empty · 23 its age, us; then lists: lent (number, account, units, waiter's ticket or empty, flags: 1 special +
//! 2 trickle) · scarce apis (name) · over (account).
//!
//! **Push**, joined by newlines: incarnation, epoch, number of the recall, its units, its api, kept pod, its age,
//! scarce, lent as in a reply.

mod fields;
mod reply;
mod report;

pub(crate) use fields::Fields;
pub(crate) use reply::{push, reply};
pub(crate) use report::report;

use sluicegate::link::Names;
use sluicegate_core::ids::{ApiId, PodId};
use sluicegate_core::shared::Account;

/// The account of the trickle.
const TRICKLE: &str = "t";

/// An account's name on the wire, read back.
fn account_of(names: &Names, text: &str) -> Option<Account> {
    match text.split_once(':') {
        Some(("a", name)) => names.api(name).map(Account::Api),
        Some(("p", name)) => names.pod(name).map(Account::Pod),
        None if text == TRICKLE => Some(Account::Trickle),
        _ => None,
    }
}

fn pod_name(names: &Names, pod: PodId) -> Result<&str, String> {
    names.pods.get(pod.index()).map(String::as_str).ok_or_else(|| format!("pod {} has no name", pod.0))
}

fn api_name(names: &Names, api: ApiId) -> Result<&str, String> {
    names.apis.get(api.index()).map(String::as_str).ok_or_else(|| format!("api {} has no name", api.0))
}
