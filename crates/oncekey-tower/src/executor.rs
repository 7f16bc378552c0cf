//! Where handlers run when they do not answer at once: [`Executor`].

use std::future::Future;
use std::pin::Pin;

/// A request under way, ready to be spawned.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs tasks to their end, whoever stops waiting for them. By default, `tokio::spawn`.
///
/// Every `Fn(Task)` is one:
/// ```
/// # use oncekey_tower::{Executor, Task};
/// fn executor(runtime: tokio::runtime::Handle) -> impl Executor {
///     move |task: Task| drop(runtime.spawn(task))
/// }
/// ```
pub trait Executor: Send + Sync {
    /// Starts `task`. A task that is dropped before its end is as good as a crash.
    fn spawn(&self, task: Task);
}

impl<F: Fn(Task) + Send + Sync> Executor for F {
    fn spawn(&self, task: Task) {
        self(task);
    }
}

/// Spawns on the runtime of tokio that polls the request.
pub(crate) fn on_tokio(task: Task) {
    tokio::spawn(task);
}
