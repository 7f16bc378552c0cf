//! Something that happens at most once, and that any number of tasks may wait for.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

#[derive(Debug, Default)]
pub(crate) struct Flag {
    raised: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    wakers: BTreeMap<u64, Waker>,
    last_id: u64,
}

impl Flag {
    pub(crate) fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst)
    }

    /// Returns whether this call raised it.
    pub(crate) fn raise(&self) -> bool {
        let first = !self.raised.swap(true, Ordering::SeqCst);
        let wakers = std::mem::take(&mut self.waiting().wakers);
        for waker in wakers.into_values() {
            waker.wake();
        }
        first
    }

    pub(crate) const fn wait(&self) -> Wait<'_> {
        Wait { flag: self, id: None }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place among those who wait, given up when it is dropped: however many come and go, a flag
/// keeps the wakers only of those who are there.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    flag: &'a Flag,
    id: Option<u64>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.flag.is_raised() {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        let mut waiting = self.flag.waiting();
        let id = self.id.unwrap_or(waiting.last_id + 1);
        waiting.last_id = waiting.last_id.max(id);
        let replaced = waiting.wakers.insert(id, waker);
        drop(waiting);
        drop(replaced);
        self.id = Some(id);
        // Raised between the look and the registration: nobody else would tell.
        if self.flag.is_raised() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let waker = self.flag.waiting().wakers.remove(&id);
            // Dropping a waker may run anything: not under the lock.
            drop(waker);
        }
    }
}
