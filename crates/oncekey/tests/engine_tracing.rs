//! Events as `tracing` events: levels, fields, and nothing that was sent.
#![cfg(feature = "tracing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation fails the test")]

mod support;

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use oncekey::Verdict;
use oncekey::observe::TracingObserver;
use oncekey::store::ErrorKind;
use support::{Declined, Fault, Verb, World, key, seconds};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Level, Metadata, Subscriber};

/// Writes down whatever is emitted, as one line an event.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        panic!("no spans")
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                write!(self.0, " {}={value:?}", field.name()).unwrap();
            }
        }
        let mut text = Text(event.metadata().target().to_owned());
        event.record(&mut text);
        self.0.lock().unwrap().push((*event.metadata().level(), text.0));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn events_have_their_level_and_nothing_that_was_sent() {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let world = World::new();
        let traced = |engine: oncekey::Idempotency| {
            engine.named("payments").observer(TracingObserver::new())
        };
        let engine = traced(world.at_least_once());
        let (one, two) = (key("secret-key-1"), key("secret-key-2"));
        for _ in 0..2 {
            let ran = world.start(&engine, &one, seconds(1), "secret-body");
            assert!(world.sim.finish(&ran).is_ok());
        }
        let engine = traced(world.verified(|_| async { Verdict::NotDone }));
        let failed = world.run(&engine, &two, |_| async { Err(Declined) });
        assert!(world.sim.finish(&failed).is_err());
        world.store.always(Verb::Complete, Fault::Fail(ErrorKind::Corrupt));
        let ran = world.start(&engine, &two, seconds(1), "secret-body");
        assert!(world.sim.finish(&ran).is_err());
    });

    let lines = lines.0.lock().unwrap();
    let expected = [
        (Level::DEBUG, "Executed { number: 1, elapsed: 1s }"),
        (Level::DEBUG, "Replayed { elapsed: 0ns }"),
        (Level::WARN, "GaveUp { number: 1 }"),
        (Level::WARN, "TakenOver { cause: GaveUp, number: 2 }"),
        (Level::DEBUG, "Verified { verdict: NotDone }"),
        (Level::WARN, "StoreFailed { operation: \"complete\", kind: Corrupt }"),
        (Level::ERROR, "Unrecorded"),
    ];
    let expected = expected
        .map(|(level, event)| (level, format!("oncekey operation=\"payments\" event={event}")));
    assert_eq!(*lines, expected);
    assert!(lines.iter().all(|(_, line)| !line.contains("secret")));
}
