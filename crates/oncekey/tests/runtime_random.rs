//! Attempt ids are never the same, in no thread and in no process, and points in time stay exact.
//!
//! A real `fork` needs unsafe code, which this workspace forbids; what is tested here are threads and
//! processes that were started anew.
#![allow(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use oncekey::runtime::{Clock, ProcessRandom, Random, SeededRandom, SystemClock, Timestamp};

fn draw(random: &dyn Random, count: usize) -> Vec<u128> {
    (0..count).map(|_| random.next()).collect()
}

#[test]
fn no_number_comes_twice_in_any_thread() {
    let shared: Arc<dyn Random> = Arc::new(ProcessRandom::new());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut numbers = draw(&shared, 5_000);
                numbers.extend(draw(&ProcessRandom::default(), 5_000));
                numbers
            })
        })
        .collect();
    let numbers: Vec<u128> =
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 80_000);
    // Jitter uses a part of a number: either half is as good as the whole.
    let halves = |half: fn(&u128) -> u64| numbers.iter().map(half).collect::<HashSet<_>>().len();
    assert_eq!(halves(|number| *number as u64), 80_000);
    assert_eq!(halves(|number| (*number >> 64) as u64), 80_000);
}

#[test]
fn every_bit_is_as_often_set_as_not() {
    for random in [&ProcessRandom::new() as &dyn Random, &SeededRandom::new(7)] {
        let numbers = draw(random, 4_096);
        for bit in 0..128 {
            let set = numbers.iter().filter(|number| *number >> bit & 1 == 1).count();
            // Twelve standard deviations.
            assert!((1_664..=2_432).contains(&set), "{random:?}: bit {bit} is set {set} times");
        }
    }
}

const CHILD: &str = "ONCEKEY_TEST_CHILD";
const MARK: &str = "number ";

/// Runs in a process of its own too, where it says what it drew.
#[test]
fn no_number_comes_twice_in_any_process() {
    if std::env::var_os(CHILD).is_some() {
        for number in draw(&ProcessRandom::new(), 100) {
            println!("{MARK}{number}");
        }
        return;
    }
    let children: Vec<_> = (0..4)
        .map(|_| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "no_number_comes_twice_in_any_process", "--nocapture"])
                .env(CHILD, "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut numbers: HashSet<u128> = draw(&ProcessRandom::new(), 100).into_iter().collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // The test runner may write into the line of the first one.
        let drawn = text.lines().filter_map(|line| line.split_once(MARK)?.1.parse::<u128>().ok());
        numbers.extend(drawn);
    }
    assert_eq!(numbers.len(), 5 * 100);
}

#[test]
fn a_seed_determines_every_number() {
    let numbers = draw(&SeededRandom::new(42), 100);
    assert_eq!(numbers, draw(&SeededRandom::new(42), 100));
    assert_ne!(numbers, draw(&SeededRandom::new(43), 100));
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 100);
    // The published first outputs of SplitMix64: a seed found today still means the same tomorrow.
    assert_eq!(SeededRandom::new(0).next(), 0xe220_a839_7b1d_cdaf_6e78_9e6a_a1b9_65f4);
}

#[test]
fn a_timestamp_stops_at_never() {
    let max = Timestamp::MAX;
    assert_eq!(max.as_micros(), (1 << 53) - 1);
    assert_eq!(Timestamp::from_micros(u64::MAX), max);
    let wall = std::time::SystemTime::from(Timestamp::from_micros(1_500_000));
    assert_eq!(wall.duration_since(std::time::UNIX_EPOCH).unwrap(), Duration::from_millis(1500));
    assert_eq!(Timestamp::from_micros(max.as_micros() + 1), max);
    assert_eq!(max.saturating_add(Duration::from_micros(1)), max);
    assert_eq!(Timestamp::default().saturating_add(Duration::MAX), max);
    assert_eq!(Timestamp::from_micros(5).saturating_add(Duration::from_secs(u64::MAX)), max);
    assert_eq!(format!("{max:?}"), "never");

    let last = Timestamp::from_micros(max.as_micros() - 1);
    assert!(last < max);
    assert_eq!(last.saturating_add(Duration::from_nanos(1_999)), max);
    // Less than a microsecond is dropped, so nothing is ever moved beyond what was asked for.
    assert_eq!(last.saturating_add(Duration::from_nanos(999)), last);
}

#[test]
fn the_time_between_two_timestamps_is_never_negative() {
    let at = Timestamp::from_micros;
    assert_eq!(at(30).saturating_since(at(10)), Duration::from_micros(20));
    assert_eq!(at(10).saturating_since(at(30)), Duration::ZERO);
    assert_eq!(at(10).saturating_since(at(10)), Duration::ZERO);
    assert_eq!(Timestamp::MAX.saturating_since(at(0)), Duration::from_micros((1 << 53) - 1));
}

#[test]
fn the_system_clock_shows_this_century() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let year_2020 = Timestamp::from_micros(1_577_836_800_000_000);
    assert!(clock.now() > year_2020);
    assert!(clock.now() < Timestamp::MAX);
}
