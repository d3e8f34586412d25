use crate::{Outcome, Settings};
pub(crate) fn run(_: &Settings) -> Outcome<()> { Ok(()) }
pub(crate) async fn wait(_: std::net::SocketAddr, _: usize, _: usize) -> Outcome<()> { Ok(()) }
