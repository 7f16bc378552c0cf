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
        (Level::DEBUG, r#"event="executed" number=1 seconds=1.0"#),
        (Level::DEBUG, r#"event="replayed" seconds=0.0"#),
        (Level::WARN, r#"event="gave_up" number=1"#),
        (Level::WARN, r#"event="taken_over" cause=GaveUp number=2"#),
        (Level::DEBUG, r#"event="verified" verdict=NotDone"#),
        (Level::WARN, r#"event="store_failed" call="complete" kind="corrupt""#),
        (Level::ERROR, r#"event="unrecorded""#),
    ];
    let expected =
        expected.map(|(level, fields)| (level, format!("oncekey operation=\"payments\" {fields}")));
    assert_eq!(*lines, expected);
    assert!(lines.iter().all(|(_, line)| !line.contains("secret")));
}
