//! What is to be done by a thread: a bounded queue that callers fill without waiting.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) struct Queue<T> {
    bound: usize,
    /// How many tasks there are, for whoever only looks.
    len: AtomicUsize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    tasks: VecDeque<T>,
    /// Nothing more is taken in; what is there is still done.
    closed: bool,
    /// How many threads wait for something to do and have not been woken. May be too high.
    idle: usize,
}

/// Why a task was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// As many tasks as there may be are waiting already.
    Full,
    /// The threads have ended.
    Closed,
}

impl<T> Queue<T> {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            bound,
            len: AtomicUsize::new(0),
            state: Mutex::new(State { tasks: VecDeque::new(), closed: false, idle: 0 }),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn push(&self, task: T) -> Result<(), Refused> {
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.tasks.len() >= self.bound {
            return Err(Refused::Full);
        }
        state.tasks.push_back(task);
        self.len.store(state.tasks.len(), Ordering::Relaxed);
        if state.idle > 0 {
            state.idle -= 1;
            drop(state);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// The tasks at the head, at most `most` of them. Waits for the first. `None` when the queue is closed
    /// and empty.
    pub(crate) fn take(&self, most: usize) -> Option<Vec<T>> {
        let mut state = self.lock();
        loop {
            if !state.tasks.is_empty() {
                let count = state.tasks.len().min(most);
                let taken = state.tasks.drain(..count).collect();
                self.len.store(state.tasks.len(), Ordering::Relaxed);
                return Some(taken);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets others run until there are `count` tasks, or `time` has passed. Much cheaper than to sleep
    /// and be woken, if they are as good as there.
    pub(crate) fn gather(&self, count: usize, time: Duration) {
        let start = Instant::now();
        while self.len() < count && start.elapsed() < time {
            thread::yield_now();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Closes the queue and drops what is in it: there is nobody to do it any more.
    pub(crate) fn abandon(&self) {
        let tasks = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.tasks)
        };
        self.changed.notify_all();
        // Dropping a task wakes its caller, who may use the queue: not under the lock.
        drop(tasks);
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Turns callers away when a thread ends, be it by a panic: nobody must wait for it for ever.
pub(crate) struct Closing<'a, T>(pub(crate) &'a Queue<T>);

impl<T> Drop for Closing<'_, T> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_queued_is_taken_in_order_up_to_the_bound() {
        let queue = Queue::new(4);
        for task in 1..=4 {
            assert_eq!(queue.push(task), Ok(()));
        }
        assert_eq!(queue.push(5), Err(Refused::Full));
        assert_eq!(queue.take(2), Some(vec![1, 2]));
        assert_eq!(queue.take(1), Some(vec![3]));
        queue.close();
        assert_eq!(queue.push(6), Err(Refused::Closed));
        assert_eq!(queue.take(9), Some(vec![4]));
        assert_eq!(queue.take(9), None);
    }
}
