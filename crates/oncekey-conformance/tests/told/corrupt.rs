//! Ways in which a history can be false, each as a change to a true one.

use std::mem::discriminant;
use std::time::Duration;

use bytes::Bytes;
use oncekey::runtime::SeededRandom;
use oncekey::store::{ClaimOutcome, Fenced, FencingToken, Observed};
use oncekey_conformance::history::{Answer, Call, History, Operation, Reply};

use super::acquired;
use super::simulate::below;

/// Changes a history so that it is likely to be false; returns whether there was anything to change.
pub(crate) type Corruption = fn(&mut History, &SeededRandom) -> bool;

pub(crate) const CORRUPTIONS: [(&str, Corruption); 22] = [
    ("two answers are swapped", |history, random| {
        let calls = &history.calls;
        let pairs = (0..calls.len()).flat_map(|one| (0..one).map(move |other| (one, other)));
        let pairs = pairs.filter(|(one, other)| {
            let (one, other) = (&calls[*one], &calls[*other]);
            discriminant(&one.operation) == discriminant(&other.operation)
                && answer(one).is_some()
                && answer(other).is_some()
                && answer(one) != answer(other)
        });
        let pairs: Vec<_> = pairs.collect();
        let Some((one, other)) = pick(&pairs, random) else { return false };
        let first = history.calls[one].reply.clone();
        let second = history.calls[other].reply.clone();
        set(&mut history.calls[one], second);
        set(&mut history.calls[other], first);
        true
    }),
    ("a grant is given twice", |history, random| {
        let granted = history.calls.iter().filter_map(answer).find(|it| is_grant(it)).cloned();
        let Some(mut granted) = granted else { return false };
        change(history, random, |call, now| {
            let (Operation::Claim(claim), Answer::Claim(outcome)) = (&call.operation, now) else {
                return None;
            };
            if matches!(outcome, ClaimOutcome::Acquired { .. }) {
                return None;
            }
            acquired(&mut granted).0.attempt = claim.attempt;
            Some(granted.clone())
        })
    }),
    ("a token is another", |history, random| {
        change_grant(history, random, |grant| {
            let (grant, ..) = acquired(grant);
            grant.token = FencingToken::new(grant.token.get() + 1);
        })
    }),
    ("a token is lower", |history, random| {
        change_grant(history, random, |grant| {
            let (grant, ..) = acquired(grant);
            grant.token = FencingToken::new(grant.token.get() - 1);
        })
    }),
    ("a grant is counted twice", |history, random| {
        change_grant(history, random, |grant| *acquired(grant).1 += 1)
    }),
    ("more is left of a lease", |history, random| {
        change_grant(history, random, |grant| *acquired(grant).2 += Duration::from_micros(1))
    }),
    ("what a takeover replaced is not told", |history, random| {
        change(history, random, |_, now| {
            let mut changed = now.clone();
            let told = is_grant(now) && acquired(&mut changed).3.take().is_some();
            told.then_some(changed)
        })
    }),
    ("what was saved is not told", |history, random| {
        change(history, random, |_, now| {
            let mut changed = now.clone();
            let told =
                is_grant(now) && acquired(&mut changed).3.as_mut()?.progress.take().is_some();
            told.then_some(changed)
        })
    }),
    ("a lease that somebody else has lapses later", |history, random| {
        change_claim(history, random, |outcome| match outcome {
            ClaimOutcome::Busy { retry_after } => {
                Some(ClaimOutcome::Busy { retry_after: *retry_after + Duration::from_micros(1) })
            }
            _ => None,
        })
    }),
    ("other bytes are replayed", |history, random| {
        change_claim(history, random, |outcome| match outcome {
            ClaimOutcome::Replay(Some(_)) => {
                Some(ClaimOutcome::Replay(Some(Bytes::from_static(b"neither"))))
            }
            _ => None,
        })
    }),
    ("the bytes are not replayed", |history, random| {
        change_claim(history, random, |outcome| match outcome {
            ClaimOutcome::Replay(Some(_)) => Some(ClaimOutcome::Replay(None)),
            _ => None,
        })
    }),
    ("a mismatch is not noticed", |history, random| {
        change_claim(history, random, |outcome| match outcome {
            ClaimOutcome::Mismatch => {
                Some(ClaimOutcome::Busy { retry_after: Duration::from_secs(30) })
            }
            _ => None,
        })
    }),
    ("an ended attempt is busy", |history, random| {
        change_claim(history, random, |outcome| match outcome {
            ClaimOutcome::Spent => Some(ClaimOutcome::Mismatch),
            _ => None,
        })
    }),
    ("a lost command is applied", |history, random| {
        change_fenced(history, random, Fenced::Lost, Fenced::Applied)
    }),
    ("an applied command is lost", |history, random| {
        change_fenced(history, random, Fenced::Applied, Fenced::Lost)
    }),
    ("a conflict is applied", |history, random| {
        change_fenced(history, random, Fenced::Conflict, Fenced::Applied)
    }),
    ("what is gone is lost", |history, random| {
        change_fenced(history, random, Fenced::Gone, Fenced::Lost)
    }),
    ("what is there is not read", |history, random| change_read(history, random, |_| Some(None))),
    ("a read is old", |history, random| {
        let reads = history.calls.iter().filter_map(answer).filter_map(|answer| match answer {
            Answer::Get(Some(seen)) => Some(seen.record.clone()),
            _ => None,
        });
        let Some(old) = reads.last() else { return false };
        change_read(history, random, |seen| {
            (seen.record != old).then(|| Some(Observed::new(old.clone(), seen.now)))
        })
    }),
    ("a record is to be kept for longer", |history, random| {
        change_read(history, random, |seen| {
            let mut seen = seen.clone();
            seen.record.forget_at = seen.record.forget_at.saturating_add(Duration::from_secs(1));
            Some(Some(seen))
        })
    }),
    ("a command is left out", |history, random| {
        let writes = history.calls.iter().enumerate().filter(|(_, call)| {
            answer(call).is_some_and(|answer| {
                is_grant(answer) || *answer == Answer::Fenced(Fenced::Applied)
            })
        });
        let writes: Vec<_> = writes.map(|(number, _)| number).collect();
        let Some(number) = pick(&writes, random) else { return false };
        history.calls.remove(number);
        true
    }),
    ("time does not pass", |history, random| {
        let later: Vec<_> = (1..history.phases.len()).collect();
        let Some(number) = pick(&later, random) else { return false };
        let before = history.phases[number - 1].clock;
        history.phases[number].clock = before;
        true
    }),
];

fn answer(call: &Call) -> Option<&Answer> {
    call.reply.as_ref().map(|reply| &reply.answer)
}

/// Gives `call` the answer of another reply, where it ends.
fn set(call: &mut Call, other: Option<Reply>) {
    if let (Some(reply), Some(other)) = (&mut call.reply, other) {
        reply.answer = other.answer;
    }
}

const fn is_grant(answer: &Answer) -> bool {
    matches!(answer, Answer::Claim(ClaimOutcome::Acquired { .. }))
}

fn pick<T: Copy>(all: &[T], random: &SeededRandom) -> Option<T> {
    (!all.is_empty()).then(|| all[below(random, all.len())])
}

/// Changes one of the answers that `changed` would change.
fn change(
    history: &mut History,
    random: &SeededRandom,
    mut changed: impl FnMut(&Call, &Answer) -> Option<Answer>,
) -> bool {
    let changes = history.calls.iter().enumerate().filter_map(|(number, call)| {
        let answer = answer(call)?;
        changed(call, answer).map(|changed| (number, changed))
    });
    let mut changes: Vec<_> = changes.collect();
    if changes.is_empty() {
        return false;
    }
    let (number, changed) = changes.swap_remove(below(random, changes.len()));
    if let Some(reply) = &mut history.calls[number].reply {
        reply.answer = changed;
    }
    true
}

fn change_grant(history: &mut History, random: &SeededRandom, alter: impl Fn(&mut Answer)) -> bool {
    change(history, random, |_, now| {
        let mut changed = now.clone();
        is_grant(now).then(|| {
            alter(&mut changed);
            changed
        })
    })
}

fn change_claim(
    history: &mut History,
    random: &SeededRandom,
    changed: impl Fn(&ClaimOutcome) -> Option<ClaimOutcome>,
) -> bool {
    change(history, random, |_, now| match now {
        Answer::Claim(outcome) => changed(outcome).map(Answer::Claim),
        _ => None,
    })
}

fn change_fenced(history: &mut History, random: &SeededRandom, from: Fenced, to: Fenced) -> bool {
    change(history, random, |_, now| (*now == Answer::Fenced(from)).then_some(Answer::Fenced(to)))
}

fn change_read(
    history: &mut History,
    random: &SeededRandom,
    changed: impl Fn(&Observed) -> Option<Option<Observed>>,
) -> bool {
    change(history, random, |_, now| match now {
        Answer::Get(Some(seen)) => changed(seen).map(Answer::Get),
        _ => None,
    })
}
