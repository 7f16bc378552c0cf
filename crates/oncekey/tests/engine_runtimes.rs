//! The same engine under tokio, under smol, and under no runtime at all.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use bytes::Bytes;
use futures::channel::oneshot;
use futures::future::join_all;
use oncekey::observe::{Event, Observer};
use oncekey::{Attempt, Failure, Idempotency, RunError, Verdict};
use oncekey_memory::MemoryStore;
use support::{Declined, PlainStore, VirtualTimer, fingerprint, key, millis, seconds};

type Told = Result<(String, bool), String>;

const DUPLICATES: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_under_tokio_get_one_result() {
    let (engine, gate) = gated();
    let runs: Vec<_> =
        (0..DUPLICATES).map(|_| tokio::spawn(request(engine.clone(), gate.clone()))).collect();
    let told = join_all(runs).await.into_iter().map(Result::unwrap);
    one_result(told.collect());
}

#[test]
fn duplicates_under_smol_get_one_result() {
    let (engine, gate) = gated();
    let runs: Vec<_> =
        (0..DUPLICATES).map(|_| smol::spawn(request(engine.clone(), gate.clone()))).collect();
    one_result(smol::block_on(join_all(runs)));
}

#[test]
fn duplicates_in_plain_threads_get_one_result() {
    let (engine, gate) = gated();
    let runs: Vec<_> = (0..DUPLICATES)
        .map(|_| {
            let run = request(engine.clone(), gate.clone());
            thread::spawn(|| block_on(run))
        })
        .collect();
    one_result(runs.into_iter().map(|run| run.join().unwrap()).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_tasks_at_a_few_keys_run_each_once() {
    const KEYS: usize = 50;
    const TASKS: usize = 40;
    let engine = engine();
    let runs: Arc<[AtomicUsize; KEYS]> = Arc::new([const { AtomicUsize::new(0) }; KEYS]);
    let task = |task: usize| {
        let (engine, runs) = (engine.clone(), Arc::clone(&runs));
        async move {
            for step in 0..KEYS {
                let at = (task + step) % KEYS;
                let work = |_| async {
                    runs[at].fetch_add(1, Ordering::Relaxed);
                    for _ in 0..3 {
                        tokio::task::yield_now().await;
                    }
                    Ok::<_, Declined>(at)
                };
                let ran = engine.run(&key(&at.to_string()), &fingerprint(), work).await;
                assert_eq!(*ran.unwrap().value(), at);
            }
        }
    };
    let tasks: Vec<_> = (0..TASKS).map(|id| tokio::spawn(task(id))).collect();
    for ended in join_all(tasks).await {
        ended.unwrap();
    }
    assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_future_can_be_spawned() {
    let engine = engine();
    let run = engine.clone();
    let ran = tokio::spawn(async move {
        run.run(&key("run"), &fingerprint(), |_| async { Ok::<_, Declined>(1) }).await.is_ok()
    });
    assert!(ran.await.unwrap());

    let run = engine.clone();
    let ran = tokio::spawn(async move {
        let operation = |attempt: Attempt| async move {
            let step = attempt.step("one", || async { Ok::<_, Failure<Declined>>(1) });
            step.await
        };
        run.run_classified(&key("classified"), &fingerprint(), operation).await.is_ok()
    });
    assert!(ran.await.unwrap());

    let run = engine.clone();
    let ran = tokio::spawn(async move {
        let operation = |attempt: Attempt| async move {
            // Also an attempt can go to a task of its own.
            let told = tokio::spawn(async move { attempt.is_lease_lost() });
            assert!(!told.await.unwrap());
            Ok::<_, Failure<Declined>>(Bytes::from_static(b"bytes"))
        };
        run.run_bytes(&key("bytes"), &fingerprint(), operation).await.is_ok()
    });
    assert!(ran.await.unwrap());

    let upkeep = tokio::spawn(async move {
        let completer = engine.completer("POST /payments", |_| async { Verdict::Unknown });
        let listed = engine.operator().list_interrupted(None, 10).await;
        engine.sweeper().sweep().await.is_ok()
            && completer.complete().await.is_ok()
            && listed.is_ok()
    });
    assert!(upkeep.await.unwrap());
}

#[tokio::test]
async fn the_default_timer_renews_under_tokio() {
    let (run, renewals) = renewed();
    run.await;
    assert!(renewals.load(Ordering::Relaxed) >= 1);
}

#[test]
fn the_default_timer_renews_under_smol() {
    let (run, renewals) = renewed();
    smol::block_on(run);
    assert!(renewals.load(Ordering::Relaxed) >= 1);
}

#[test]
fn the_default_timer_renews_in_a_plain_thread() {
    let (run, renewals) = renewed();
    block_on(run);
    assert!(renewals.load(Ordering::Relaxed) >= 1);
}

#[tokio::test]
async fn an_operation_that_uses_up_the_budget_of_its_task_is_renewed_all_the_same() {
    let timer = VirtualTimer::default();
    let memory = MemoryStore::builder().clock(timer.clock()).build();
    // As a driver that gets its answers through a channel of tokio: each costs some of the budget.
    let store =
        PlainStore::before_renewal(memory, || Box::pin(tokio::task::coop::consume_budget()));
    let engine = Idempotency::at_least_once(store).timer(timer.clone());
    let busy = |attempt: Attempt| async move {
        for second in 0..300 {
            timer.advance(seconds(1));
            for _ in 0..1000 {
                tokio::task::coop::consume_budget().await;
            }
            assert!(!attempt.is_lease_lost(), "lost after {second} s");
        }
        Ok::<_, Declined>("receipt".to_owned())
    };
    let ran = engine.run(&key("a"), &fingerprint(), busy).await;
    assert_eq!(ran.unwrap().value(), "receipt");
}

fn engine() -> Idempotency {
    Idempotency::at_least_once(MemoryStore::new()).wait_for_duplicate(seconds(600))
}

/// An engine whose operations end when all duplicates wait for them.
fn gated() -> (Idempotency, Gate) {
    let gate = Gate::default();
    (engine().observer(gate.clone()), gate)
}

#[derive(Clone, Default)]
struct Gate(Arc<std::sync::Mutex<State>>);

#[derive(Default)]
struct State {
    duplicates: usize,
    owner: Option<oneshot::Sender<()>>,
}

impl Gate {
    async fn pass(&self) {
        let (sender, receiver) = oneshot::channel();
        let first = self.0.lock().unwrap().owner.replace(sender);
        assert!(first.is_none(), "two owners");
        self.open_if_all_wait();
        receiver.await.unwrap();
    }

    fn open_if_all_wait(&self) {
        let mut state = self.0.lock().unwrap();
        if state.duplicates == DUPLICATES - 1
            && let Some(owner) = state.owner.take()
        {
            owner.send(()).unwrap();
        }
    }
}

impl Observer for Gate {
    fn observe(&self, _: &str, event: &Event) {
        if *event == Event::Waiting {
            self.0.lock().unwrap().duplicates += 1;
            self.open_if_all_wait();
        }
    }
}

async fn request(engine: Idempotency, gate: Gate) -> Told {
    let operation = |_| async move {
        gate.pass().await;
        Ok::<_, Declined>("receipt".to_owned())
    };
    let ran = engine.run(&key("a"), &fingerprint(), operation).await;
    let told = ran.map(|outcome| (outcome.value().clone(), outcome.is_replay()));
    told.map_err(|error: RunError<Declined>| error.to_string())
}

fn one_result(told: Vec<Told>) {
    assert_eq!(told.len(), DUPLICATES);
    let told: Vec<_> = told.into_iter().map(Result::unwrap).collect();
    assert!(told.iter().all(|(value, _)| value == "receipt"));
    assert_eq!(told.iter().filter(|(_, replay)| !replay).count(), 1);
}

/// A run that goes on until its lease has been renewed, by the timer that comes with the library.
fn renewed() -> (impl Future<Output = ()>, Arc<AtomicUsize>) {
    let renewals = Arc::new(AtomicUsize::new(0));
    let (send, receive) = oneshot::channel();
    let (count, first) = (Arc::clone(&renewals), std::sync::Mutex::new(Some(send)));
    let store = PlainStore::before_renewal(MemoryStore::new(), move || {
        count.fetch_add(1, Ordering::Relaxed);
        if let Some(first) = first.lock().unwrap().take() {
            first.send(()).unwrap();
        }
        Box::pin(std::future::ready(()))
    });
    let run = async move {
        let engine = Idempotency::at_least_once(store).lease(millis(300));
        let operation = |_| async move {
            receive.await.unwrap();
            Ok::<_, Declined>("receipt".to_owned())
        };
        let ran = engine.run(&key("a"), &fingerprint(), operation).await;
        assert_eq!(ran.unwrap().value(), "receipt");
    };
    (run, renewals)
}

/// All that is needed to wait for a future: a thread that sleeps until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn an_engine_is_cheap_to_clone_and_can_go_anywhere() {
    fn anywhere<T: Clone + Send + Sync + 'static>() {}
    anywhere::<Idempotency>();
    anywhere::<Attempt>();
    let engine = engine();
    assert!(Arc::ptr_eq(engine.store(), engine.clone().store()));
}
