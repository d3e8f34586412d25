//! The measurements, one a file.

pub(crate) mod acquire;
pub(crate) mod decisions;
pub(crate) mod doors;
pub(crate) mod extproc;
pub(crate) mod ledger;
pub(crate) mod micro;
pub(crate) mod modes;
pub(crate) mod overload;
pub(crate) mod peers;
pub(crate) mod planned;
pub(crate) mod proxy;
pub(crate) mod quality;
pub(crate) mod queues;
pub(crate) mod start;
pub(crate) mod waiting;
