//! Simultaneous commands on one key.
//!
//! Whoever is turned away as `Unavailable` or `Timeout`, or left in the dark, asks again, a few times: the
//! contract lets a store answer so when calls get into each other's way, and an engine asks again too.

use oncekey::Key;
use oncekey::store::{AttemptId, Claim, ClaimOutcome, Fenced, Grant, State, Store};

use crate::history::{Answer, Operation};
use crate::support::{ANSWER, Race, Trial, acquired, broken, busy, expect, replayed};
use crate::{Fixture, Verdict, Violation};

/// Of simultaneous claims on an absent key, one is granted and the others are busy.
pub async fn one_claim_wins<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut race = Race::new();
    while race.goes_on() {
        one_of_three(&trial, &*other, &mut race, &trial.key()).await?;
    }
    race.took_place()
}

/// Of simultaneous claims on a lapsed key, one is granted and the others are busy.
pub async fn one_takeover_wins<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut stock = Vec::new();
    let mut race = Race::new();
    while race.goes_on() {
        let lapsed = trial.lapsed(&mut stock).await?;
        one_of_three(&trial, &*other, &mut race, &lapsed.key).await?;
    }
    race.took_place()
}

async fn one_of_three<F: Fixture>(
    trial: &Trial<'_, F>,
    other: &dyn Store,
    race: &mut Race,
    key: &Key,
) -> Verdict {
    let claims = [trial.claim(), trial.claim(), trial.claim()];
    let handles = [&*trial.store, other];
    let answers = race.operations::<F>(handles, key, &claims.map(Operation::Claim)).await?;
    let winner = one_is_granted(&claims, &answers)?;
    let seen = trial.seen(key).await?;
    expect("the attempt of the record", seen.record.attempt, winner)
}

/// The attempt that was granted.
fn one_is_granted(claims: &[Claim], answers: &[Answer]) -> Result<AttemptId, Violation> {
    let mut winners = Vec::new();
    let mut losers = 0;
    for (claim, answer) in claims.iter().zip(answers) {
        match answer {
            Answer::Claim(ClaimOutcome::Acquired { .. }) => winners.push(claim.attempt),
            Answer::Claim(ClaimOutcome::Busy { .. }) => losers += 1,
            _ => {}
        }
    }
    match winners.as_slice() {
        [winner] if losers + 1 == answers.len() => Ok(*winner),
        _ => broken("of simultaneous claims, one is Acquired and the others are Busy", answers),
    }
}

/// Simultaneous copies of one claim all get the same grant.
pub async fn copies_of_a_claim_agree<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut race = Race::new();
    while race.goes_on() {
        let (key, claim) = (trial.key(), trial.claim());
        let copies = [claim; 3].map(Operation::Claim);
        let answers = race.operations::<F>([&*trial.store, &*other], &key, &copies).await?;
        let mut grants = Vec::new();
        for answer in answers {
            let Answer::Claim(outcome) = answer else {
                return broken("the answer to a claim", answer);
            };
            let copy = acquired("a copy of a claim", &key, &claim, outcome)?;
            grants.push((copy.grant, copy.number));
        }
        let first = grants[0];
        expect("the grant and number of every copy", grants, vec![first; 3])?;
    }
    race.took_place()
}

/// Claims that race with a completion are busy or get the result, and are never granted.
pub async fn a_completion_never_frees_the_key<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut race = Race::new();
    while race.goes_on() {
        let owner = trial.owner().await?;
        let calls = [
            Operation::complete(owner.grant, trial.completion(ANSWER)),
            Operation::Claim(trial.claim()),
            Operation::Claim(trial.claim()),
        ];
        let answers = race.operations::<F>([&*trial.store, &*other], &owner.key, &calls).await?;
        for answer in answers {
            match answer {
                Answer::Fenced(Fenced::Applied) | Answer::Claim(ClaimOutcome::Busy { .. }) => {}
                Answer::Claim(outcome) => {
                    replayed("a claim during a completion", &outcome, ANSWER)?;
                }
                other => return broken("a completion while others claim: Applied", other),
            }
        }
        let outcome = trial.claims(&owner.key, &trial.claim()).await?;
        replayed("a claim after the completion", &outcome, ANSWER)?;
    }
    race.took_place()
}

/// Of claims that race with a release, at most one is granted.
pub async fn a_release_is_taken_once<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut race = Race::new();
    while race.goes_on() {
        let owner = trial.owner().await?;
        let claims = [trial.claim(), trial.claim()];
        let calls = [
            Operation::release(owner.grant, trial.times.long),
            Operation::Claim(claims[0]),
            Operation::Claim(claims[1]),
        ];
        let handles = [&*trial.store, &*other];
        let mut answers = race.operations::<F>(handles, &owner.key, &calls).await?;
        let released = answers.remove(0);
        let busy = |answer: &Answer| matches!(answer, Answer::Claim(ClaimOutcome::Busy { .. }));
        let expected = if answers.iter().all(busy) {
            let what = "a release while others claim";
            expect(what, released, Answer::Fenced(Fenced::Applied))?;
            (owner.claim.attempt, State::Released)
        } else {
            // The release may have been sent twice by the store itself, and the second was too late.
            (one_is_granted(&claims, &answers)?, State::Live)
        };
        let seen = trial.seen(&owner.key).await?;
        let what = "the attempt and the state after a release while others claim";
        expect(what, (seen.record.attempt, seen.state), expected)?;
    }
    race.took_place()
}

/// When a lapsed owner's completion races with a takeover, one of them wins and the other is told.
pub async fn completion_or_takeover<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let complete = |grant| Operation::complete(grant, trial.completion(ANSWER));
    against_a_takeover(&trial, "a completion", State::Completed, complete).await
}

/// When a lapsed owner's renewal races with a takeover, one of them wins and the other is told.
pub async fn renewal_or_takeover<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let renew = |grant| Operation::renew(grant, trial.times.long, None);
    against_a_takeover(&trial, "a renewal", State::Live, renew).await
}

/// What a lapsed owner does, which leads to `state`, against a claim by another attempt.
async fn against_a_takeover<F: Fixture>(
    trial: &Trial<'_, F>,
    what: &str,
    state: State,
    operation: impl Fn(Grant) -> Operation,
) -> Verdict {
    let other = trial.fixture.open().await;
    let mut stock = Vec::new();
    let mut race = Race::new();
    while race.goes_on() {
        let owner = trial.lapsed(&mut stock).await?;
        let claim = trial.claim();
        let calls = [operation(owner.grant), Operation::Claim(claim)];
        let answers = race.operations::<F>([&*trial.store, &*other], &owner.key, &calls).await?;
        let expected = match answers.as_slice() {
            [Answer::Fenced(Fenced::Lost), Answer::Claim(ClaimOutcome::Acquired { .. })] => {
                (claim.attempt, State::Live)
            }
            [
                Answer::Fenced(Fenced::Applied),
                Answer::Claim(refusal @ (ClaimOutcome::Replay(_) | ClaimOutcome::Busy { .. })),
            ] => {
                // A store that waits for no lock calls the key busy while a completion is under way; but
                // what was renewed has no result to replay.
                if state == State::Live {
                    busy("a claim during a renewal", refusal)?;
                }
                (owner.claim.attempt, state)
            }
            _ => {
                let required = "Applied and a refusal, or Lost and Acquired";
                return broken(format_args!("{what} and a takeover: {required}"), answers);
            }
        };
        let seen = trial.seen(&owner.key).await?;
        let after = &format!("after {what} and a takeover");
        expect(
            format_args!("the attempt and the state {after}"),
            (seen.record.attempt, seen.state),
            expected,
        )?;
        let outcome = trial.claims(&owner.key, &trial.claim()).await?;
        match seen.state {
            State::Live => busy(format_args!("a claim {after}"), &outcome).map(drop)?,
            _ => replayed(format_args!("a claim {after}"), &outcome, ANSWER)?,
        }
    }
    race.took_place()
}

/// Of simultaneous completions with different bytes, one is recorded and the others conflict.
pub async fn one_result_is_recorded<F: Fixture>(fixture: &F) -> Verdict {
    const VALUES: [&str; 3] = ["first", "second", "third"];
    let trial = Trial::new(fixture).await;
    let other = fixture.open().await;
    let mut race = Race::new();
    while race.goes_on() {
        let owner = trial.owner().await?;
        let calls = VALUES.map(|value| Operation::complete(owner.grant, trial.completion(value)));
        let answers = race.operations::<F>([&*trial.store, &*other], &owner.key, &calls).await?;
        let mut applied = Vec::new();
        let mut conflicts = 0;
        for (value, answer) in VALUES.into_iter().zip(&answers) {
            match answer {
                Answer::Fenced(Fenced::Applied) => applied.push(value),
                Answer::Fenced(Fenced::Conflict) => conflicts += 1,
                _ => {}
            }
        }
        let ([value], 2) = (applied.as_slice(), conflicts) else {
            let required = "of three completions, one is Applied and two are a Conflict";
            return broken(required, answers);
        };
        let outcome = trial.claims(&owner.key, &trial.claim()).await?;
        let what = "a claim after the completion that was applied";
        replayed(what, &outcome, value.as_bytes())?;
    }
    race.took_place()
}
