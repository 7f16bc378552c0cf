//! The same question, answered by trying every order of every choice of calls: slow and plain.

use oncekey::store::Record;
use oncekey_conformance::history::{Call, History};

/// Whether some order explains `history`. Clocks must be exact.
pub(crate) fn is_explained(history: &History) -> bool {
    history.keys().into_iter().all(|key| {
        let prefix = history.prefix(key, u64::MAX);
        let (answered, unknown): (Vec<_>, Vec<_>) =
            prefix.calls.iter().partition(|call| call.reply.is_some());
        (0..1_u32 << unknown.len()).any(|chosen| {
            let chosen = unknown.iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 == 1);
            let calls = answered.iter().chain(chosen.map(|(_, call)| call));
            let calls = calls.map(|call| Event::Call(call));
            let phases = (1..prefix.phases.len()).map(Event::Phase);
            let events: Vec<_> = calls.chain(phases).collect();
            follows(&prefix, &events, 0, None)
        })
    })
}

#[derive(Clone, Copy)]
enum Event<'a> {
    Call(&'a Call),
    Phase(usize),
}

/// Whether all of `events` can follow in some order; what is over may be gone at any time.
fn follows(history: &History, events: &[Event<'_>], phase: usize, record: Option<&Record>) -> bool {
    let begins = |event: &Event<'_>| match event {
        Event::Call(call) => call.invoked,
        Event::Phase(number) => history.phases[*number].from,
    };
    let ends = |event: &Event<'_>| match event {
        Event::Call(call) => call.reply.as_ref().map_or(u64::MAX, |reply| reply.at),
        Event::Phase(number) => history.phases[*number].from,
    };
    let now = history.phases[phase].clock.earliest;
    events.is_empty()
        || events.iter().enumerate().any(|(number, event)| {
            // What began after another ended does not come before it.
            if events.iter().any(|other| ends(other) < begins(event)) {
                return false;
            }
            let mut rest = events.to_vec();
            rest.remove(number);
            let call = match event {
                Event::Phase(number) => return follows(history, &rest, *number, record),
                Event::Call(call) => call,
            };
            let is_over = record.is_some_and(|record| record.is_purgeable(now));
            let befores = [Some(record), is_over.then_some(None)];
            befores.into_iter().flatten().any(|before| {
                let (answer, after) = call.operation.apply(before, now);
                call.reply.as_ref().is_none_or(|reply| reply.answer == answer)
                    && follows(history, &rest, phase, after.as_ref())
            })
        })
}
