//! What Sluicegate is tried with: a sample pod that counts its own units, and an open-loop load.
//!
//! Both know nothing of the gate. The [pod](pod::Pod) keeps its own [gauge](pod::Gauge), so what it saw is
//! evidence and not the gate's opinion of itself; the [load](load::run) sends each request at its planned time
//! whatever the others do, so a slow answer cannot hide the requests that would have come behind it.

pub mod load;
pub mod pod;
