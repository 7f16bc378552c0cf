//! The timer that follows tokio's clock, also when it is paused.
#![cfg(feature = "tokio")]

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use oncekey::runtime::{Clock, Timer, TimerClock, Timestamp, TokioTimer};

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test(start_paused = true)]
async fn a_paused_clock_is_the_timers_clock() {
    let timer = TokioTimer::new();
    assert_eq!(timer.now(), Duration::ZERO);
    tokio::time::advance(DAY).await;
    assert_eq!(timer.now(), DAY);
    assert_eq!(TokioTimer::default().now(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_sleep_ends_when_tokio_says_so() {
    let timer = TokioTimer::new();
    let mut sleep = timer.sleep_until(DAY);
    assert_eq!(sleep.as_mut().now_or_never(), None);
    tokio::time::advance(DAY - Duration::from_millis(1)).await;
    assert_eq!(sleep.as_mut().now_or_never(), None);
    tokio::time::advance(Duration::from_millis(1)).await;
    sleep.await;
    assert!(timer.now() >= DAY);
}

#[tokio::test(start_paused = true)]
async fn idle_time_passes_by_itself() {
    let timer = TokioTimer::new();
    for days in 1..=30 {
        timer.sleep_until(days * DAY).await;
        assert!(timer.now() >= days * DAY);
    }
}

#[tokio::test(start_paused = true)]
async fn a_sleep_in_the_past_is_over_at_once() {
    let timer = TokioTimer::new();
    tokio::time::advance(DAY).await;
    for at in [Duration::ZERO, DAY / 2, DAY] {
        assert_eq!(timer.sleep_until(at).now_or_never(), Some(()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_sleep_beyond_all_time_never_ends() {
    let timer = TokioTimer::new();
    for at in [3_650 * DAY, Duration::from_secs(u64::MAX / 2), Duration::MAX] {
        let mut sleep = timer.sleep_until(at);
        assert_eq!(sleep.as_mut().now_or_never(), None);
        tokio::time::advance(DAY).await;
        assert_eq!(sleep.now_or_never(), None);
    }
}

#[tokio::test(start_paused = true)]
async fn sleeps_end_in_the_order_of_their_times() {
    let timer = TokioTimer::new();
    let order = std::cell::RefCell::new(Vec::new());
    let sleeps = (0..20_u32).map(|index| {
        let number = index * 7 % 20;
        let sleep = timer.sleep_until(number * Duration::from_secs(1));
        let order = &order;
        async move {
            sleep.await;
            order.borrow_mut().push(number);
        }
    });
    futures::future::join_all(sleeps).await;
    assert_eq!(*order.borrow(), (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_store_in_memory_can_share_the_clock() {
    let timer: Arc<dyn Timer> = Arc::new(TokioTimer::new());
    let start = Timestamp::from_micros(1_800_000_000_000_000);
    let clock = TimerClock::new(Arc::clone(&timer), start);
    timer.sleep_until(DAY).await;
    assert!(clock.now() >= start.saturating_add(DAY));
    assert!(clock.now() < start.saturating_add(DAY + Duration::from_secs(1)));
}
