//! A single-threaded executor: which task goes next, and what time it is, follow from a seed.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::future::BoxFuture;
use oncekey::runtime::{Random, SeededRandom, Timer};

use super::time::VirtualTimer;

/// More polls than this without any time passing are a livelock.
const MAX_POLLS_AT_ONE_TIME: usize = 200_000;

/// Tasks that take turns in an order that follows from the seed. When none can go on, time moves to
/// the end of the next sleep.
pub(crate) struct Simulation {
    pub(crate) timer: VirtualTimer,
    order: SeededRandom,
    tasks: RefCell<BTreeMap<u64, Running>>,
    last_id: Cell<u64>,
    polls_at_one_time: Cell<usize>,
    network: Network,
}

type Running = Pin<Box<dyn Future<Output = ()>>>;

/// Starts tasks from inside stores: what is on its way goes on when its sender is gone.
#[derive(Clone, Default)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    ready: Mutex<BTreeSet<u64>>,
    sent: Mutex<Vec<BoxFuture<'static, ()>>>,
}

impl Network {
    pub(crate) fn send(&self, packet: impl Future<Output = ()> + Send + 'static) {
        self.shared.sent.lock().unwrap().push(Box::pin(packet));
    }
}

struct TaskWaker {
    id: u64,
    shared: Arc<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.shared.ready.lock().unwrap().insert(self.id);
    }
}

/// A task of a simulation, and what it returned.
pub(crate) struct Task<T> {
    id: u64,
    result: Rc<RefCell<Option<T>>>,
}

impl<T> Task<T> {
    pub(crate) fn is_done(&self) -> bool {
        self.result.borrow().is_some()
    }

    /// What the task returned, if it has.
    pub(crate) fn take(&self) -> Option<T> {
        self.result.borrow_mut().take()
    }
}

impl Simulation {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            timer: VirtualTimer::default(),
            order: SeededRandom::new(seed),
            tasks: RefCell::default(),
            last_id: Cell::new(0),
            polls_at_one_time: Cell::new(0),
            network: Network::default(),
        }
    }

    pub(crate) fn network(&self) -> Network {
        self.network.clone()
    }

    pub(crate) fn now(&self) -> Duration {
        self.timer.now()
    }

    pub(crate) fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        let id = self.start(Box::pin(async move {
            let value = future.await;
            *slot.borrow_mut() = Some(value);
        }));
        Task { id, result }
    }

    /// Drops the future of a task where it is: a crash.
    pub(crate) fn crash<T>(&self, task: &Task<T>) {
        let dropped = self.tasks.borrow_mut().remove(&task.id);
        drop(dropped);
    }

    /// Lets one ready task take a turn. Returns whether there was one.
    pub(crate) fn step(&self) -> bool {
        let sent = std::mem::take(&mut *self.network.shared.sent.lock().unwrap());
        for packet in sent {
            self.start(packet);
        }
        let Some(id) = self.pick() else {
            return false;
        };
        // Out of the map while it runs: a task may start others.
        let Some(mut task) = self.tasks.borrow_mut().remove(&id) else {
            return true;
        };
        let waker = self.waker(id);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.tasks.borrow_mut().insert(id, task);
        }
        let polls = self.polls_at_one_time.get() + 1;
        assert!(polls < MAX_POLLS_AT_ONE_TIME, "a livelock: {polls} polls at {:?}", self.now());
        self.polls_at_one_time.set(polls);
        true
    }

    /// Lets tasks go on until all of them wait for time to pass, or for ever.
    pub(crate) fn settle(&self) {
        while self.step() {}
    }

    /// Takes a turn, or moves time to the end of the next sleep. Returns whether anything happened.
    pub(crate) fn advance(&self) -> bool {
        if self.step() {
            return true;
        }
        let Some(at) = self.timer.next() else {
            return false;
        };
        self.jump(at);
        true
    }

    /// Runs for a time.
    pub(crate) fn run_for(&self, time: Duration) {
        let end = self.now().saturating_add(time);
        self.settle();
        while let Some(at) = self.timer.next()
            && at <= end
        {
            self.jump(at);
            self.settle();
        }
        self.jump(end);
        self.settle();
    }

    /// Runs until nothing more can happen.
    pub(crate) fn run(&self) {
        while self.advance() {}
    }

    /// Runs until `task` is done.
    pub(crate) fn finish<T>(&self, task: &Task<T>) -> T {
        while !task.is_done() {
            assert!(self.advance(), "the task waits for ever");
        }
        task.take().expect("it is done")
    }

    /// Runs `future` to its end, and whatever else there is besides.
    pub(crate) fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        let task = self.spawn(future);
        self.finish(&task)
    }

    fn start(&self, future: Running) -> u64 {
        let id = self.last_id.get() + 1;
        self.last_id.set(id);
        self.tasks.borrow_mut().insert(id, future);
        self.network.shared.ready.lock().unwrap().insert(id);
        id
    }

    fn pick(&self) -> Option<u64> {
        let mut ready = self.network.shared.ready.lock().unwrap();
        let id = match ready.len() {
            0 => return None,
            1 => *ready.first()?,
            len => {
                let index = self.order.next() % len as u128;
                *ready.iter().nth(usize::try_from(index).unwrap())?
            }
        };
        ready.remove(&id);
        Some(id)
    }

    fn waker(&self, id: u64) -> Waker {
        let shared = Arc::clone(&self.network.shared);
        Arc::new(TaskWaker { id, shared }).into()
    }

    fn jump(&self, to: Duration) {
        self.polls_at_one_time.set(0);
        self.timer.set(to);
    }
}
