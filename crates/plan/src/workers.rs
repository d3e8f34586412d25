//! Independent runs on several threads, answers in the order of the questions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Is told how a plan gets on.
pub trait Progress: Sync {
    /// So many runs are to come on top of those known.
    fn more(&self, runs: usize);
    /// One run is done.
    fn done(&self);
}

/// Nobody looks.
pub struct Silent;

impl Progress for Silent {
    fn more(&self, _: usize) {}
    fn done(&self) {}
}

/// `work` on each of `items`, on at most `threads` threads.
pub(crate) fn all<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    progress: &dyn Progress,
    work: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    progress.more(items.len());
    let next = AtomicUsize::new(0);
    let answers: Mutex<Vec<Option<R>>> = Mutex::new((0..items.len()).map(|_| None).collect());
    let take = || {
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            let answer = work(item);
            answers.lock().unwrap_or_else(PoisonError::into_inner)[index] = Some(answer);
            progress.done();
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, items.len().max(1)) {
            scope.spawn(take);
        }
        take();
    });
    let answers = answers.into_inner().unwrap_or_else(PoisonError::into_inner);
    answers.into_iter().map(|answer| answer.expect("each item was worked on")).collect()
}
