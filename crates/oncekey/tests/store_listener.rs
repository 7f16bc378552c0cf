//! One connection for many subscriptions: when it is made, what it wakes, and what becomes of it when it
//! fails.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::channel::mpsc;
use futures::executor::LocalPool;
use futures::future::BoxFuture;
use futures::task::LocalSpawnExt;
use futures::{FutureExt, StreamExt};
use oncekey::store::{ErrorKind, Inbox, Listen, Listener, StoreError, Subscription};
use support::{VirtualTimer, millis};

enum Message {
    Listening,
    Notify(&'static str),
    Fail,
}

/// A connection that does what it is told.
#[derive(Clone, Default)]
struct Wire {
    made: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    remote: Arc<Mutex<Option<mpsc::UnboundedSender<Message>>>>,
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Listen for Wire {
    async fn listen(&self, inbox: &Inbox) -> StoreError {
        let (sender, mut messages) = mpsc::unbounded();
        *self.remote.lock().unwrap() = Some(sender);
        self.made.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        let _open = Open(Arc::clone(&self.open));
        loop {
            match messages.next().await {
                Some(Message::Listening) => inbox.listening(),
                Some(Message::Notify(name)) => inbox.notify(name.as_bytes()),
                Some(Message::Fail) | None => {
                    return StoreError::new(ErrorKind::Unavailable, "test").with_message("cut");
                }
            }
        }
    }
}

type Spawned = Arc<Mutex<Vec<BoxFuture<'static, ()>>>>;
type Subscribing = RefCell<Option<Result<Subscription, StoreError>>>;

/// A listener on one thread, and the tasks that it started.
struct World {
    wire: Wire,
    timer: VirtualTimer,
    spawned: Spawned,
    listener: Rc<Listener>,
    pool: LocalPool,
}

impl World {
    fn new() -> Self {
        let (wire, timer, spawned) = (Wire::default(), VirtualTimer::default(), Spawned::default());
        let tasks = Arc::clone(&spawned);
        let spawn = move |task| tasks.lock().unwrap().push(task);
        let listener = Listener::new(wire.clone(), spawn).timer(timer.clone()).into();
        Self { wire, timer, spawned, listener, pool: LocalPool::new() }
    }

    /// Everything goes on as far as it can.
    fn turn(&mut self) {
        loop {
            self.pool.run_until_stalled();
            let spawned = std::mem::take(&mut *self.spawned.lock().unwrap());
            if spawned.is_empty() {
                return;
            }
            for task in spawned {
                self.pool.spawner().spawn_local(task).unwrap();
            }
        }
    }

    fn tell(&mut self, message: Message) {
        let remote = self.wire.remote.lock().unwrap().clone().expect("it is connected");
        remote.unbounded_send(message).unwrap();
        self.turn();
    }

    fn subscribing(&mut self, name: &'static str) -> Rc<Subscribing> {
        let (result, listener) = (Rc::<Subscribing>::default(), Rc::clone(&self.listener));
        let told = Rc::clone(&result);
        let subscribe = async move {
            let done = listener.subscribe(name).await;
            *told.borrow_mut() = Some(done);
        };
        self.pool.spawner().spawn_local(subscribe).unwrap();
        self.turn();
        result
    }

    fn subscribed(&mut self, name: &'static str) -> Subscription {
        let result = self.subscribing(name);
        if result.borrow().is_none() {
            self.tell(Message::Listening);
        }
        result.take().expect("it is answered").expect("it listens")
    }

    /// How many connections were made, and how many are there.
    fn connections(&self) -> (usize, usize) {
        (self.wire.made.load(Ordering::SeqCst), self.wire.open.load(Ordering::SeqCst))
    }
}

fn is_woken(subscription: &mut Subscription) -> bool {
    subscription.changed().now_or_never().is_some()
}

#[test]
fn any_number_share_one_connection_and_hear_of_their_names_only() {
    let mut world = World::new();
    assert_eq!(world.connections(), (0, 0));
    let mut these: Vec<_> = (0..1_000).map(|_| world.subscribed("this")).collect();
    let mut that = world.subscribed("that");
    assert_eq!(world.connections(), (1, 1));

    world.tell(Message::Notify("this"));
    world.tell(Message::Notify("this"));
    assert!(these.iter_mut().all(is_woken));
    // Of two notifications that nobody waited for in between, one is enough.
    assert!(!these.iter_mut().any(is_woken));
    assert!(!is_woken(&mut that));
    world.tell(Message::Notify("that"));
    assert!(is_woken(&mut that));
}

#[test]
fn nobody_is_subscribed_before_the_connection_listens() {
    let mut world = World::new();
    let waiting = [world.subscribing("a"), world.subscribing("a")];
    assert!(waiting.iter().all(|result| result.borrow().is_none()));
    world.tell(Message::Listening);
    for result in waiting {
        // It is not the connection's first that wakes: nothing was missed.
        assert!(!is_woken(&mut result.take().unwrap().unwrap()));
    }
}

#[test]
fn the_connection_is_closed_when_nobody_waits_and_made_again_for_the_next() {
    let mut world = World::new();
    let (first, second) = (world.subscribed("a"), world.subscribed("b"));
    drop(first);
    world.turn();
    assert_eq!(world.connections(), (1, 1));
    drop(second);
    world.turn();
    assert_eq!(world.connections(), (1, 0));

    // Also if the one that is there has not been closed yet.
    let third = world.subscribed("a");
    drop(third);
    let mut fourth = world.subscribed("a");
    assert_eq!(world.connections(), (3, 1));
    world.tell(Message::Notify("a"));
    assert!(is_woken(&mut fourth));
}

#[test]
fn a_connection_that_is_lost_is_made_again_and_wakes_everybody_at_both_times() {
    let mut world = World::new();
    let mut subscription = world.subscribed("a");
    world.tell(Message::Fail);
    assert!(is_woken(&mut subscription));
    // Until the next try, the answer is why not.
    let refused = world.subscribing("b").take().unwrap().unwrap_err();
    assert!(refused.to_string().contains("cut"), "{refused}");
    assert_eq!(world.connections(), (1, 0));

    world.timer.advance(millis(499));
    world.turn();
    assert_eq!(world.connections(), (1, 0));
    world.timer.advance(millis(1));
    world.turn();
    assert_eq!(world.connections(), (2, 1));
    // A try in vain wakes nobody.
    world.tell(Message::Fail);
    world.timer.advance(millis(500));
    world.turn();
    assert_eq!(world.connections(), (3, 1));
    assert!(!is_woken(&mut subscription));
    world.tell(Message::Listening);
    assert!(is_woken(&mut subscription));
    world.tell(Message::Listening);
    assert!(!is_woken(&mut subscription));
    world.tell(Message::Notify("a"));
    assert!(is_woken(&mut subscription));
}

#[test]
fn a_connection_that_cannot_be_made_is_an_error_and_tried_no_more() {
    let mut world = World::new();
    let waiting = [world.subscribing("a"), world.subscribing("b")];
    world.tell(Message::Fail);
    for result in waiting {
        assert_eq!(result.take().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    }
    world.turn();
    world.timer.advance(millis(10_000));
    world.turn();
    assert_eq!(world.connections(), (1, 0));
    world.subscribed("a");
    assert_eq!(world.connections().0, 2);
}

#[test]
fn a_task_that_is_gone_with_its_runtime_wakes_everybody_and_is_started_again() {
    let mut world = World::new();
    let mut subscription = world.subscribed("a");
    world.pool = LocalPool::new();
    assert!(is_woken(&mut subscription));
    assert_eq!(world.connections(), (1, 0));

    // Also one that never ran.
    let (listener, timer) = (Rc::clone(&world.listener), world.timer.clone());
    let mut subscribing = Box::pin(listener.subscribe("b"));
    assert!(subscribing.as_mut().now_or_never().is_none());
    world.spawned.lock().unwrap().clear();
    let ended = subscribing.now_or_never().expect("it is answered").unwrap_err();
    assert!(ended.to_string().contains("ended"), "{ended}");

    let mut other = world.subscribed("b");
    assert_eq!(world.connections(), (2, 1));
    world.tell(Message::Notify("a"));
    world.tell(Message::Notify("b"));
    assert!(is_woken(&mut subscription) && is_woken(&mut other));
    assert_eq!(timer.sleeping(), 0);
}

#[test]
fn a_listener_that_is_gone_closes_its_connection() {
    let mut world = World::new();
    let mut subscription = world.subscribed("a");
    world.listener = Listener::new(Wire::default(), |_| {}).into();
    world.turn();
    assert_eq!(world.connections(), (1, 0));
    assert!(!is_woken(&mut subscription));
}
