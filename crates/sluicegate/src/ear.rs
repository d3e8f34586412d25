//! The ear thread: hears what the ledger says unasked.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::engine::Engine;
use crate::gate::{Shared, State};
use crate::link::Ear;

/// So long it may take until the thread notices that its gate, or its ear's connection, is gone.
const PATIENCE: Duration = Duration::from_millis(250);

/// Takes one ear after the other from the link thread, until the gate is closed.
pub(crate) fn run(shared: &Arc<Shared>) {
    while let Some((life, ear)) = next_ear(shared) {
        listen(shared, life, ear);
    }
}

fn next_ear(shared: &Shared) -> Option<(u64, Box<dyn Ear>)> {
    let post = shared.post.as_ref().expect("only a shared gate has an ear thread");
    loop {
        if shared.lock().closed {
            return None;
        }
        let mut desk = post.desk();
        if let Some(ear) = desk.ear.take() {
            return Some((desk.ear_life, ear));
        }
        // Not for ever: the gate may have been closed between the two locks.
        drop(post.ear_bell.wait_timeout(desk, PATIENCE).unwrap_or_else(PoisonError::into_inner));
    }
}

fn listen(shared: &Arc<Shared>, life: u64, mut ear: Box<dyn Ear>) {
    let post = shared.post.as_ref().expect("only a shared gate has an ear thread");
    loop {
        let names = Arc::clone(&post.desk().names);
        let heard = ear.next(&names, PATIENCE);
        let (mut state, now) = shared.enter();
        if state.closed {
            return;
        }
        {
            let mut desk = post.desk();
            if desk.ear_life != life {
                return;
            }
            match &heard {
                Ok(push) => desk.view.pushes_heard += u64::from(push.is_some()),
                Err(error) => {
                    desk.ear_lost = true;
                    drop(desk);
                    tracing::warn!(%error, "pushes are not heard; waiters ask more often meanwhile");
                    state.link_armed = sluicegate_core::time::Micros(0);
                    post.bell.notify_one();
                    return;
                }
            }
        }
        let State { core, out, .. } = &mut *state;
        if let (Ok(Some(push)), Engine::Shared(member)) = (&heard, core) {
            member.on_push(now, push, out);
            shared.finish(state);
        }
    }
}
