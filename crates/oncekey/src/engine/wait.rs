//! Waiting for a duplicate in flight: in one process, waiters of one request wait together.
//!
//! Those who ask for the same key with the same fingerprint form a group. One of them has the turn: it
//! subscribes, then asks the store, then sleeps until a notification or the next poll. The others
//! sleep until the turn comes to them or their own time is over. A replay ends the waiting of all; a
//! grant goes to the one that got it, and the turn passes on; an error stays with whoever met it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};

use super::Inner;
use super::attempt::nanos;
use super::claim::{Admission, Refusal, Request};
use super::patience::{Backoff, within};
use crate::observe::Event;
use crate::store::{Store, Subscription};
use crate::{Fingerprint, Key};

const FASTEST_POLL: Duration = Duration::from_millis(25);
const FIRST_POLL: Duration = Duration::from_millis(50);
const SLOWEST_POLL: Duration = Duration::from_secs(1);
/// Whoever has the turn asks more often than this, if it is polled.
const STALE_TURN: Duration = Duration::from_secs(3);
const LAST_LOOK: Duration = Duration::from_secs(1);

/// The groups of one engine.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    groups: Mutex<Groups>,
}

#[derive(Debug, Default)]
struct Groups {
    by_request: HashMap<(Key, Fingerprint), (Arc<Group>, usize)>,
    waiting: usize,
}

/// Who has the lock has the turn.
#[derive(Debug, Default)]
struct Group {
    turn: futures::lock::Mutex<Turn>,
    /// When the store was last asked for the group, in nanoseconds of the engine's timer.
    asked_at: AtomicU64,
    /// When the owner's lease lapses unless it is renewed, as the store said last, likewise.
    lapses_at: AtomicU64,
}

impl Group {
    fn is_asking(&self, now: Duration) {
        self.asked_at.fetch_max(nanos(now), Ordering::Relaxed);
    }

    fn was_told(&self, now: Duration, retry_after: Duration) {
        self.is_asking(now);
        self.lapses_at.store(nanos(now.saturating_add(retry_after)), Ordering::Relaxed);
    }

    /// The refusal of whoever has waited long enough at `now`.
    fn busy(&self, now: Duration) -> Refusal {
        let lapses_at = Duration::from_nanos(self.lapses_at.load(Ordering::Relaxed));
        Refusal::Busy { retry_after: lapses_at.saturating_sub(now).max(FASTEST_POLL) }
    }

    /// Whether the turn is with somebody who is not polled, and waits for nobody.
    fn is_stale(&self, now: Duration) -> bool {
        let asked_at = Duration::from_nanos(self.asked_at.load(Ordering::Relaxed));
        now.saturating_sub(asked_at) >= STALE_TURN
    }
}

#[derive(Debug, Default)]
struct Turn {
    /// Passed from turn to turn, so that there is one in the process.
    subscription: Option<Subscription>,
    /// What a turn found; final, so it serves all who were waiting.
    replay: Option<Option<Bytes>>,
}

/// Waits until the request is admitted, refused for another reason than being busy, or `wait` is over.
pub(crate) async fn wait(
    engine: &Arc<Inner>,
    request: &mut Request<'_>,
    retry_after: Duration,
) -> Result<Admission, Refusal> {
    let settings = &engine.settings;
    let until = settings.timer.now().saturating_add(settings.wait);
    let member = Member::join(
        &engine.shared.waiters,
        (request.stored_key().clone(), request.fingerprint()),
        settings.max_waiters,
    );
    let Some(member) = member else {
        settings.observe(&Event::TooManyWaiters);
        return Err(Refusal::Busy { retry_after });
    };
    settings.observe(&Event::Waiting);
    // The claim that was told busy.
    member.group.was_told(settings.timer.now(), retry_after);
    let mut turn = loop {
        let look = settings.timer.now().saturating_add(STALE_TURN).min(until);
        match select(member.group.turn.lock(), settings.timer.sleep_until(look)).await {
            Either::Left((turn, _)) => break turn,
            Either::Right(_) => {
                let now = settings.timer.now();
                let stale = member.group.is_stale(now);
                if stale {
                    member.group.is_asking(now);
                    match ask_by(engine, request, until).await {
                        Err(Refusal::Busy { retry_after }) => {
                            member.group.was_told(settings.timer.now(), retry_after);
                        }
                        answer => return answer,
                    }
                }
                if now >= until {
                    return Err(member.group.busy(now));
                }
            }
        }
    };
    if let Some(value) = &turn.replay {
        return Ok(Admission::Replay(value.clone()));
    }
    let group = &member.group;
    let answer = take_turn(engine, request, group, &mut turn.subscription, until).await;
    if let Ok(Admission::Replay(value)) = &answer {
        turn.replay = Some(value.clone());
        member.close_group();
    }
    answer
}

/// Asks, and takes no answer for busy: a store that hangs must not hold a waiter beyond its time, but
/// for the moment that a last look takes.
async fn ask_by(
    engine: &Inner,
    request: &mut Request<'_>,
    until: Duration,
) -> Result<Admission, Refusal> {
    let timer = &*engine.settings.timer;
    let patience = || until.max(timer.now().saturating_add(LAST_LOOK));
    let answer = within(timer, patience, request.ask()).await;
    answer.unwrap_or(Err(Refusal::Busy { retry_after: SLOWEST_POLL }))
}

async fn take_turn(
    engine: &Arc<Inner>,
    request: &mut Request<'_>,
    group: &Group,
    subscription: &mut Option<Subscription>,
    until: Duration,
) -> Result<Admission, Refusal> {
    let settings = &engine.settings;
    let mut poll = Backoff::doubling(FIRST_POLL, SLOWEST_POLL);
    loop {
        // Subscribed before the read: what happens after the read is notified.
        if subscription.is_none()
            && let Some(watch) = engine.store.watch()
        {
            // Polling goes on without it.
            let patience = || settings.timer.now().saturating_add(SLOWEST_POLL).min(until);
            let subscribing = watch.subscribe(request.stored_key());
            let subscribed = within(&*settings.timer, patience, subscribing).await;
            *subscription = subscribed.and_then(Result::ok);
        }
        let retry_after = match ask_by(engine, request, until).await {
            Err(Refusal::Busy { retry_after }) => retry_after,
            answer => return answer,
        };
        let now = settings.timer.now();
        group.was_told(now, retry_after);
        if now >= until {
            return Err(group.busy(now));
        }
        // The end of the owner's lease is worth a look of its own; a store that does not know it may
        // say that it is now, each time.
        let lease_end = retry_after.saturating_add(Duration::from_millis(1)).max(FASTEST_POLL);
        let pause = poll.next(&*settings.random).min(lease_end);
        let mut wake = settings.timer.sleep_until(now.saturating_add(pause).min(until));
        match subscription {
            Some(subscription) => {
                select(pin!(subscription.changed()), wake).await;
            }
            None => wake.as_mut().await,
        }
    }
}

/// A place in a group. Leaving is dropping it.
struct Member<'a> {
    waiters: &'a Waiters,
    request: (Key, Fingerprint),
    group: Arc<Group>,
}

impl<'a> Member<'a> {
    fn join(waiters: &'a Waiters, request: (Key, Fingerprint), max_waiters: usize) -> Option<Self> {
        let mut groups = waiters.lock();
        if groups.waiting >= max_waiters {
            return None;
        }
        groups.waiting += 1;
        let (group, members) = groups.by_request.entry(request.clone()).or_default();
        *members += 1;
        let group = Arc::clone(group);
        Some(Self { waiters, request, group })
    }

    /// What was found is for those who are here now. Whoever comes later asks the store anew, even if
    /// some of these take their time to leave.
    fn close_group(&self) {
        if let Entry::Occupied(entry) = self.waiters.lock().by_request.entry(self.request.clone())
            && Arc::ptr_eq(&entry.get().0, &self.group)
        {
            entry.remove();
        }
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let mut groups = self.waiters.lock();
        groups.waiting = groups.waiting.saturating_sub(1);
        if let Entry::Occupied(mut entry) = groups.by_request.entry(self.request.clone())
            && Arc::ptr_eq(&entry.get().0, &self.group)
        {
            let (_, members) = entry.get_mut();
            *members -= 1;
            if *members == 0 {
                entry.remove();
            }
        }
    }
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Groups> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
