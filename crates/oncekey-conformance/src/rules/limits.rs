//! The ends of every range.

use std::time::Duration;

use bytes::Bytes;
use oncekey::Key;
use oncekey::runtime::{ProcessRandom, Random, Timestamp};
use oncekey::store::{
    Claim, ClaimOutcome, Completion, ErrorKind, Expected, Fenced, Progress, Renew, State, Status,
};

use crate::history::{Answer, Operation};
use crate::support::{ANSWER, Owner, Trial, acquired, broken, busy, ensure, expect, replayed};
use crate::{Fixture, Verdict, Violation};

/// Keys that differ in one bit, in case, length, normal form or scope are different keys, also when hashed.
pub async fn near_identical_keys_are_distinct<F: Fixture>(fixture: &F) -> Verdict {
    let ids: &[&[u8]] = &[
        b"key",
        b"Key",
        b"KEY",
        b"kez",
        b"ke",
        b"keyy",
        b" key",
        b"key ",
        b"key\t",
        b"key\n",
        b"key\0",
        b"key\0\0",
        b"\0key",
        b"\0",
        b"\0\0",
        b"k\0ey",
        b"k.y",
        b"k_y",
        b"k%y",
        b"k*y",
        b"k?y",
        b"[k]ey",
        b"%6bey",
        b"k%65y",
        b"k+y",
        b"k y",
        b"k/y",
        b"k//y",
        b"k\\y",
        b"k\\\\y",
        b"k'y",
        b"k''y",
        b"k\"y",
        b"{k}ey",
        b"{k}",
        b"k:y",
        b"k::y",
        b"k,y",
        b"$1",
        b"?1",
        b"7",
        b"07",
        b"007",
        b"7.0",
        b"+7",
        b"0x7",
        b"1e3",
        b"1000",
        b"null",
        b"NULL",
        b"true",
        b"__proto__",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xff\xff",
        b"\xfe\xff",
        b"\xc3\x28",
        b"\xc3\xa9",
        b"e\xcc\x81",
        b"e",
        b"\xc3\x89",
        "straße".as_bytes(),
        "strasse".as_bytes(),
        "STRASSE".as_bytes(),
        "ſ".as_bytes(),
        "s".as_bytes(),
        "ı".as_bytes(),
        "i".as_bytes(),
        "ﬁ".as_bytes(),
        "fi".as_bytes(),
        "ｋｅｙ".as_bytes(),
        "к".as_bytes(),
        "\u{feff}key".as_bytes(),
        "key\u{200b}".as_bytes(),
    ];
    let trial = Trial::new(fixture).await;
    let mut keys: Vec<Key> = ids.iter().map(|id| trial.key_with_id(id)).collect();
    keys.extend(near_identical_hashes());
    // The same bytes, divided among principal, operation and id in other ways.
    for (principal, operation, id) in [
        ("p", "o", "key"),
        ("P", "o", "key"),
        ("p", "O", "key"),
        ("p:o", "key", "key"),
        ("p", "o:key", "key"),
        ("p", "o", "key:key"),
        ("po", "k", "ey"),
        ("p", "ok", "ey"),
    ] {
        keys.push(trial.key_in_scope(principal, operation, id));
    }
    are_distinct(&trial, &keys).await
}

/// Hashed keys, all alike but for a few bits, or for what a database may take for padding.
fn near_identical_hashes() -> Vec<Key> {
    let mut first = [0; 32];
    for half in first.as_chunks_mut::<16>().0 {
        *half = ProcessRandom::new().next().to_be_bytes();
    }
    let mut digests: Vec<_> = [0_u8, b' ', b'k', b'K', 0xc3, u8::MAX]
        .into_iter()
        .map(|last| {
            let mut digest = first;
            digest[31] = last;
            digest
        })
        .collect();
    for place in [0, 1, 15, 16, 30] {
        let mut digest = digests[0];
        digest[place] ^= 1;
        digests.push(digest);
    }
    digests.iter().map(hashed_key).collect()
}

/// The form of a key that an engine which hashes its keys shows to its store.
fn hashed_key(digest: &[u8; 32]) -> Key {
    match Key::from_bytes(&[&[2], digest.as_slice()].concat()) {
        Ok(key) => key,
        Err(error) => unreachable!("the suite's keys are valid: {error}"),
    }
}

/// Keys of the greatest length work, and differ if only their last byte does.
pub async fn the_longest_keys_are_distinct<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let mut keys = Vec::new();
    for filler in [0, b'k', u8::MAX] {
        let longest = vec![filler; Key::MAX_ID_LEN];
        for place in [0, 127, 254, 255, 511, 767, 1022, 1023] {
            let mut near = longest.clone();
            near[place] ^= 1;
            keys.push(trial.longest_key(&near));
        }
        keys.push(trial.longest_key(&longest[1..]));
        keys.push(trial.longest_key(&longest));
    }
    are_distinct(&trial, &keys).await
}

/// Each key is granted, and completed with a result of its own.
async fn are_distinct<F: Fixture>(trial: &Trial<'_, F>, keys: &[Key]) -> Verdict {
    let mut owners = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let claim = trial.claim();
        let outcome = trial.claims(key, &claim).await?;
        let what = &format!("key {index} of the list is a key of its own");
        owners.push(acquired(what, key, &claim, outcome)?);
    }
    for (index, owner) in owners.iter().enumerate() {
        let answer = trial.complete(owner, index.to_string()).await?;
        let what = &format!("the completion of key {index} of the list");
        expect(what, answer, Fenced::Applied)?;
    }
    for (index, key) in keys.iter().enumerate() {
        let outcome = trial.claims(key, &trial.claim()).await?;
        let what = &format!("a claim on key {index} of the list");
        replayed(what, &outcome, index.to_string().as_bytes())?;
    }
    Ok(())
}

/// The longest durations work: their sums stop at *never*.
pub async fn huge_durations_saturate<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let forever = Claim { lease: Duration::MAX, hold: Duration::MAX, ..trial.claim() };
    let owner = trial.acquire(&trial.key(), &forever).await?;
    trial.pass(trial.times.short).await;
    trial.purge_all().await?;
    let outcome = trial.claims(&owner.key, &trial.claim()).await?;
    busy("a claim on a key that is leased for ever", &outcome)?;
    for lease in [Duration::MAX, trial.times.short] {
        let answer = trial.renew(&owner, lease).await?;
        expect("a renewal by the owner", answer, Fenced::Applied)?;
        let _ = trial.acquire(&owner.key, &forever).await?;
        let record = trial.seen(&owner.key).await?.record;
        let deadline = Timestamp::MAX;
        expect("the status", record.status, Status::InProgress { deadline })?;
        expect("the time to forget", record.forget_at, Timestamp::MAX)?;
    }
    let completion =
        Completion { retention: Duration::MAX, hold: Duration::MAX, ..trial.completion(ANSWER) };
    let _ = trial.complete_as(&owner, completion).await?;
    trial.pass(trial.times.short).await;
    trial.purge_all().await?;
    let outcome = trial.claims(&owner.key, &trial.claim()).await?;
    replayed("a claim on a result that is retained for ever", &outcome, ANSWER)?;
    let forget_at = trial.seen(&owner.key).await?.record.forget_at;
    expect("the time to forget", forget_at, Timestamp::MAX)?;

    let brief = Claim { lease: trial.times.short, hold: Duration::MAX, ..trial.claim() };
    let owner = trial.acquire(&trial.key(), &brief).await?;
    trial.pass(trial.times.short).await;
    trial.purge_all().await?;
    trial.is_in("a key that is remembered for ever", &owner.key, State::Lapsed).await?;
    let _ = trial.renew(&owner, trial.times.long).await?;
    let forget_at = trial.seen(&owner.key).await?.record.forget_at;
    expect("the time to forget after a renewal", forget_at, Timestamp::MAX)?;
    let _ = trial.release_for(&owner, Duration::MAX).await?;
    let forget_at = trial.seen(&owner.key).await?.record.forget_at;
    expect("the time to forget after a release", forget_at, Timestamp::MAX)
}

/// A large result is kept whole or refused as too large; then the fact alone fits.
pub async fn a_large_result_fits_or_is_refused<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let owner = trial.owner().await?;
    let value = large(8 << 20);
    let complete = |replayable| {
        let completion = Completion { replayable, ..trial.completion(value.clone()) };
        Operation::complete(owner.grant, completion)
    };
    match complete(true).send(&*trial.store, &owner.key).await {
        Ok(_) => {
            let outcome = trial.claims(&owner.key, &trial.claim()).await?;
            replayed("a claim on a key with a large result", &outcome, &value)
        }
        Err(error) if error.kind() == ErrorKind::TooLarge => {
            trial.is_in("a key whose result was too large", &owner.key, State::Live).await?;
            let answer = complete(false).fenced(&*trial.store, &owner.key).await?;
            expect("a completion without the bytes", answer, Fenced::Applied)?;
            let outcome = trial.claims(&owner.key, &trial.claim()).await?;
            let what = "a claim on a key whose result was too large";
            expect(what, outcome, ClaimOutcome::Replay(None))
        }
        Err(error) => Err(error.into()),
    }
}

/// Large progress is kept whole and handed on, or refused as too large and then changes nothing.
pub async fn large_progress_fits_or_is_refused<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::new(fixture).await;
    let mut last = trial.owner().await?;
    let mut kept = Bytes::from_static(b"small");
    let answer = trial.save(&last, 1, kept.clone()).await?;
    expect("a renewal with progress", answer, Fenced::Applied)?;
    for len in [2_000, 20_000, 100_000, 2 << 20] {
        let before = trial.seen(&last.key).await?;
        let data = large(len);
        match renewal(&last, &data).send(&*trial.store, &last.key).await {
            Ok(answer) => {
                expect("a renewal with large progress", answer, Answer::Fenced(Fenced::Applied))?;
                kept = data;
            }
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                trial.unchanged("progress that was too large", &last.key, &before).await?;
            }
            Err(error) => return Err(error.into()),
        }
        let progress = trial.seen(&last.key).await?.record.progress;
        let saved = progress.map(|progress| progress.data.clone());
        whole(&format!("the progress that is shown after {len} bytes"), saved, &kept)?;
        let _ = trial.give_up(&last).await?;
        last = trial.acquire(&last.key, &trial.claim()).await?;
        let handed_on = last.previous.as_ref().and_then(|previous| previous.progress.clone());
        whole(&format!("the progress that a takeover gets after {len} bytes"), handed_on, &kept)?;
    }
    Ok(())
}

fn renewal(owner: &Owner, data: &Bytes) -> Operation {
    let progress = Some(Progress { sequence: 2, data: data.clone() });
    Operation::Renew(Renew { grant: owner.grant, lease: owner.claim.lease, progress })
}

/// `bytes` are exactly `required`: said by their lengths, since a message is no place for megabytes.
fn whole(what: &str, bytes: Option<Bytes>, required: &Bytes) -> Verdict {
    ensure(
        bytes.as_ref() == Some(required),
        format_args!("{what}: the {} bytes that were saved", required.len()),
        bytes.map(|bytes| format!("{} bytes", bytes.len())),
    )
}

/// `len` bytes of every value.
fn large(len: usize) -> Bytes {
    (0..=u8::MAX).cycle().take(len).collect()
}

/// A full store refuses new keys as `Full` and goes on to serve every key that it knows.
pub async fn a_full_store_refuses_new_keys<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::on(fixture, fixture.open_bounded(ROOM).await);
    let mut owners = fill(&trial).await?.into_iter();
    if let Some(owner) = owners.next() {
        let _ = trial.release(&owner).await?;
        let _ = trial.acquire(&owner.key, &trial.claim()).await?;
    }
    for owner in owners {
        let _ = trial.acquire(&owner.key, &owner.claim).await?;
        let outcome = trial.claims(&owner.key, &trial.claim()).await?;
        busy("a claim on a live key of a full store", &outcome)?;
        let answer = trial.save(&owner, 1, "half").await?;
        expect("a renewal in a full store", answer, Fenced::Applied)?;
        let answer = trial.complete(&owner, ANSWER).await?;
        expect("a completion in a full store", answer, Fenced::Applied)?;
        let outcome = trial.claims(&owner.key, &trial.claim()).await?;
        replayed("a claim on a completed key of a full store", &outcome, ANSWER)?;
    }
    Ok(())
}

/// A full store takes new keys once old ones were evicted or their time is over.
pub async fn a_full_store_has_room_again<F: Fixture>(fixture: &F) -> Verdict {
    let trial = Trial::on(fixture, fixture.open_bounded(ROOM).await);
    for evicted in [true, false] {
        for owner in fill(&trial).await? {
            if evicted {
                let _ = trial.evict(&owner.key, Expected::Any, true).await?;
            } else {
                let _ = trial.release_for(&owner, Duration::ZERO).await?;
            }
        }
        trial.pass(trial.times.short).await;
        trial.purge_all().await?;
        let owner = trial.owner().await?;
        let _ = trial.evict(&owner.key, Expected::Any, true).await?;
    }
    Ok(())
}

/// The room of a bounded store. Stores that divide it among shards are full before all of it is used,
/// or after somewhat more.
const ROOM: usize = 64;

/// Claims new keys until the store is full.
async fn fill<F: Fixture>(trial: &Trial<'_, F>) -> Result<Vec<Owner>, Violation> {
    let mut owners = vec![trial.owner().await?];
    while owners.len() <= 4 * ROOM {
        let (key, claim) = (trial.key(), trial.claim());
        match trial.store.claim(&key, &claim).await {
            Ok(outcome) => owners.push(acquired(
                "a claim on a new key of a store with room",
                &key,
                &claim,
                outcome,
            )?),
            Err(error) if error.kind() == ErrorKind::Full => {
                ensure(
                    owners.len() >= ROOM / 4,
                    format_args!("a store with room for {ROOM} keys takes about that many"),
                    format_args!("Full after {}", owners.len()),
                )?;
                return Ok(owners);
            }
            Err(error) => return Err(error.into()),
        }
    }
    broken(
        format_args!("a store with room for {ROOM} keys is full at some time"),
        format_args!("{} grants", owners.len()),
    )
}
