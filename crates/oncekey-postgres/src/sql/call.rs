//! Commands as statements with parameters: [`Call`].

use std::time::Duration;

use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, Claim, Complete, Completion, Evict, Expected, Grant, Known, OnInterrupted, OnRetired,
    Query, Renew, Settle, Settlement, State,
};
use sha2::{Digest, Sha256};

use super::answer::state_name;
use super::tables::Tables;

/// Marks the transaction that it is sent in, for the calls that are done in a marked one only. Can be sent
/// together with such a call.
pub const MARK: &str = "SELECT set_config('oncekey.transaction', 'marked', true)";

/// A statement and its parameters, in the order of `$1`, `$2` and so on.
///
/// The text is the same for every call of its kind; what varies is bound.
#[derive(Clone)]
#[allow(clippy::exhaustive_structs, reason = "a text and its parameters by definition")]
pub struct Call<'a> {
    /// The statement.
    pub text: &'a str,
    /// Its parameters.
    pub params: Vec<Param<'a>>,
}

/// A parameter of a [`Call`]; the variant is its type in the database.
#[derive(Clone)]
#[allow(clippy::exhaustive_enums, reason = "a driver must be able to bind all of them")]
pub enum Param<'a> {
    /// `bytea`.
    Bytes(Option<&'a [u8]>),
    /// `bytea`, of a digest that is made here.
    Digest(Option<[u8; 32]>),
    /// `bigint`.
    Int(Option<i64>),
    /// `boolean`.
    Bool(bool),
    /// `text`.
    Text(Option<&'a str>),
    /// `text`, of a list that is made here.
    List(String),
    /// `bytea[]`, one for each command of a batch.
    ManyBytes(Vec<&'a [u8]>),
    /// `bigint[]`, one for each command of a batch.
    ManyInts(Vec<i64>),
}

/// What holds for all commands of a store.
#[derive(Debug, Clone)]
#[allow(clippy::exhaustive_structs, reason = "a driver must decide every field")]
pub struct Terms {
    /// Whether a commit waits for the disk, also where the session would not.
    pub durable: bool,
    /// For how long a lock is waited for, as a value of `lock_timeout`; as the session does if `None`.
    pub patience: Option<String>,
}

impl Terms {
    fn params(&self) -> [Param<'_>; 2] {
        [Param::Bool(self.durable), Param::Text(self.patience.as_deref())]
    }
}

impl<'a> Call<'a> {
    /// Asks what became of a transaction, by what its claim said. Answered by `in progress`, `committed` or
    /// `aborted`, or by an empty text if the server no longer knows.
    #[must_use]
    pub fn status_of(xact: Option<&'a str>) -> Self {
        Self {
            text: "SELECT coalesce(pg_xact_status($1::text::xid8), '')",
            params: vec![Param::Text(xact)],
        }
    }
}

impl std::fmt::Debug for Call<'_> {
    /// Shows no parameter.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("text", &self.text).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Param<'_> {
    /// Shows no content.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes(_) | Self::Digest(_) => "bytea",
            Self::Int(_) => "bigint",
            Self::Bool(_) => "boolean",
            Self::Text(_) | Self::List(_) => "text",
            Self::ManyBytes(_) => "bytea[]",
            Self::ManyInts(_) => "bigint[]",
        })
    }
}

impl Tables {
    /// Answered by [`answer::claim`](super::answer::claim).
    #[must_use]
    pub fn claim<'a>(&'a self, key: &'a Key, claim: &'a Claim, terms: &'a Terms) -> Call<'a> {
        let params = [
            Param::Bytes(Some(key.as_bytes())),
            Param::Bytes(Some(claim.attempt.as_bytes())),
            Param::Int(Some(claim.fingerprint.algorithm().into())),
            Param::Bytes(Some(claim.fingerprint.digest())),
            duration(claim.lease),
            duration(claim.hold),
            Param::Bool(claim.on_interrupted == OnInterrupted::TakeOver),
            Param::Bool(claim.on_retired == OnRetired::Tell),
        ];
        Call { text: &self.claim, params: params.into_iter().chain(terms.params()).collect() }
    }

    /// The same inside a transaction with the [`MARK`]. Without one, there is no row and nothing is done.
    #[must_use]
    pub fn claim_in<'a>(&'a self, key: &'a Key, claim: &'a Claim, terms: &'a Terms) -> Call<'a> {
        Call { text: &self.claim_in, ..self.claim(key, claim, terms) }
    }

    /// Claims on many keys, no key twice. Answered by a row for each claim that could be decided at once:
    /// as of [`claim`](Self::claim), and with the key in the column
    /// [`answer::CLAIMED_KEY`](super::answer::CLAIMED_KEY). Make the others alone.
    #[must_use]
    pub fn claims<'a>(&'a self, claims: &[(&'a Key, &'a Claim)], terms: &Terms) -> Call<'a> {
        let ints = |of: fn(&Claim) -> i64| {
            Param::ManyInts(claims.iter().map(|(_, claim)| of(claim)).collect())
        };
        let params = vec![
            Param::ManyBytes(claims.iter().map(|(key, _)| key.as_bytes()).collect()),
            Param::ManyBytes(claims.iter().map(|(_, c)| &c.attempt.as_bytes()[..]).collect()),
            ints(|claim| claim.fingerprint.algorithm().into()),
            Param::ManyBytes(claims.iter().map(|(_, c)| &c.fingerprint.digest()[..]).collect()),
            ints(|claim| micros(claim.lease)),
            ints(|claim| micros(claim.hold)),
            ints(|claim| (claim.on_interrupted == OnInterrupted::TakeOver).into()),
            ints(|claim| (claim.on_retired == OnRetired::Tell).into()),
            Param::Bool(terms.durable),
        ];
        Call { text: &self.claims, params }
    }

    /// Completions of many keys, no key twice, with values that are replayable. Answered by a row for
    /// each that is applied: as of [`complete`](Self::complete), and with the key in the column
    /// [`answer::COMPLETED_KEY`](super::answer::COMPLETED_KEY). Make the others alone.
    #[must_use]
    pub fn completions<'a>(
        &'a self,
        completions: &[(&'a Key, &'a Complete)],
        terms: &Terms,
    ) -> Call<'a> {
        let bytes = |of: fn(&'a Complete) -> &'a [u8]| {
            Param::ManyBytes(completions.iter().map(|(_, complete)| of(complete)).collect())
        };
        let ints = |of: fn(&Complete) -> i64| {
            Param::ManyInts(completions.iter().map(|(_, complete)| of(complete)).collect())
        };
        let params = vec![
            Param::ManyBytes(completions.iter().map(|(key, _)| key.as_bytes()).collect()),
            bytes(|complete| complete.grant.attempt.as_bytes()),
            ints(|complete| complete.grant.token.get().cast_signed()),
            bytes(|complete| &complete.completion.value),
            ints(|complete| micros(complete.completion.retention)),
            ints(|complete| micros(complete.completion.hold)),
            Param::Bool(terms.durable),
        ];
        Call { text: &self.completions, params }
    }

    /// Answered by [`answer::fenced`](super::answer::fenced). `None` for a progress whose number is
    /// above 2^63, which no column keeps.
    #[must_use]
    pub fn renew<'a>(
        &'a self,
        key: &'a Key,
        renew: &'a Renew,
        terms: &'a Terms,
    ) -> Option<Call<'a>> {
        let sequence = match &renew.progress {
            Some(progress) => Some(i64::try_from(progress.sequence).ok()?),
            None => None,
        };
        let mut params = own(key, &renew.grant);
        params.extend([
            duration(renew.lease),
            Param::Int(sequence),
            Param::Bytes(renew.progress.as_ref().map(|progress| &progress.data[..])),
        ]);
        params.extend(terms.params());
        Some(Call { text: &self.renew, params })
    }

    /// Answered by [`answer::fenced`](super::answer::fenced).
    #[must_use]
    pub fn complete<'a>(
        &'a self,
        key: &'a Key,
        complete: &'a Complete,
        terms: &'a Terms,
    ) -> Call<'a> {
        let params = complete_params(key, complete, false, terms);
        Call { text: &self.complete, params }
    }

    /// The same inside a transaction that may only be committed if this is applied: a refusal is an
    /// error, to be read with [`answer::refusal`](super::answer::refusal). There is no row and nothing is
    /// done if this is not the transaction `xact`, as the claim named it, or without that, if this has not
    /// the [`MARK`].
    #[must_use]
    pub fn complete_in<'a>(
        &'a self,
        key: &'a Key,
        complete: &'a Complete,
        xact: Option<&'a str>,
        terms: &'a Terms,
    ) -> Call<'a> {
        let mut params = complete_params(key, complete, true, terms);
        let text = match xact {
            Some(xact) => {
                params.push(Param::Text(Some(xact)));
                &self.complete_in
            }
            None => &self.complete_here,
        };
        Call { text, params }
    }

    /// Answered by [`answer::fenced`](super::answer::fenced).
    #[must_use]
    pub fn abandon<'a>(&'a self, key: &'a Key, abandon: &'a Abandon, terms: &'a Terms) -> Call<'a> {
        let (nothing_done, hold) = match abandon.known {
            Known::NotStarted { hold } => (true, duration(hold)),
            Known::Unknown => (false, Param::Int(None)),
        };
        let mut params = own(key, &abandon.grant);
        params.extend([Param::Bool(nothing_done), hold]);
        params.extend(terms.params());
        Call { text: &self.abandon, params }
    }

    /// Answered by [`answer::fenced`](super::answer::fenced).
    #[must_use]
    pub fn settle<'a>(&'a self, key: &'a Key, settle: &'a Settle, terms: &'a Terms) -> Call<'a> {
        let (attempt, token) = expected(&settle.expected);
        let mut params = vec![Param::Bytes(Some(key.as_bytes())), attempt, token];
        match &settle.settlement {
            Settlement::Done(completion) => {
                params.push(Param::Bool(true));
                params.extend(completion_params(completion));
            }
            Settlement::NotDone { hold } => {
                params.push(Param::Bool(false));
                params.extend([Param::Bytes(None), Param::Digest(None), Param::Int(None)]);
                params.push(duration(*hold));
            }
        }
        params.extend(terms.params());
        Call { text: &self.settle, params }
    }

    /// Answered by [`answer::fenced`](super::answer::fenced).
    #[must_use]
    pub fn evict<'a>(&'a self, key: &'a Key, evict: &'a Evict, terms: &'a Terms) -> Call<'a> {
        let (attempt, token) = expected(&evict.expected);
        let params = [Param::Bytes(Some(key.as_bytes())), attempt, token, Param::Bool(evict.force)];
        Call { text: &self.evict, params: params.into_iter().chain(terms.params()).collect() }
    }

    /// Answered by no row, or by [`answer::observed`](super::answer::observed).
    #[must_use]
    pub fn get<'a>(&'a self, key: &'a Key) -> Call<'a> {
        Call { text: &self.get, params: vec![Param::Bytes(Some(key.as_bytes()))] }
    }

    /// Removes what is over among the next `limit` rows. Answered by
    /// [`answer::purged`](super::answer::purged).
    #[must_use]
    pub fn purge(&self, limit: usize) -> Call<'_> {
        Call { text: &self.purge, params: vec![count(limit)] }
    }

    /// Looks at the next `looks` rows. Answered by [`answer::page`](super::answer::page).
    #[must_use]
    pub fn list<'a>(&'a self, query: &'a Query, looks: usize) -> Call<'a> {
        // No key is empty, so this is before the first.
        let after = query.after.as_ref().map_or(&[][..], |cursor| cursor.as_bytes());
        let states: Vec<_> = query.states.iter().copied().map(|s: State| state_name(s)).collect();
        let params = vec![Param::Bytes(Some(after)), count(looks), Param::List(states.join(","))];
        Call { text: &self.list, params }
    }

    /// Lets the end of the attempt on `key` be notified. Answered by one row without content.
    #[must_use]
    pub fn watch<'a>(&'a self, key: &'a Key) -> Call<'a> {
        Call { text: &self.watch, params: vec![Param::Bytes(Some(key.as_bytes()))] }
    }

    /// Lets the end of the attempt on `key` not be notified. Answered by no row.
    #[must_use]
    pub fn unwatch<'a>(&'a self, key: &'a Key, terms: &'a Terms) -> Call<'a> {
        let params =
            vec![Param::Bytes(Some(key.as_bytes())), Param::Text(terms.patience.as_deref())];
        Call { text: &self.unwatch, params }
    }
}

/// The key, and the whole of the grant on it: a late copy of an older grant may have the same attempt.
fn own<'a>(key: &'a Key, grant: &'a Grant) -> Vec<Param<'a>> {
    vec![
        Param::Bytes(Some(key.as_bytes())),
        Param::Bytes(Some(grant.attempt.as_bytes())),
        Param::Int(Some(grant.token.get().cast_signed())),
    ]
}

fn complete_params<'a>(
    key: &'a Key,
    complete: &'a Complete,
    or_fail: bool,
    terms: &'a Terms,
) -> Vec<Param<'a>> {
    let mut params = own(key, &complete.grant);
    params.extend(completion_params(&complete.completion));
    params.push(Param::Bool(or_fail));
    params.extend(terms.params());
    params
}

/// Value, digest, retention, hold. Of what is not to be kept, only the digest is sent.
fn completion_params(completion: &Completion) -> [Param<'_>; 4] {
    let (value, digest) = if completion.replayable {
        (Some(&completion.value[..]), None)
    } else {
        (None, Some(Sha256::digest(&completion.value).into()))
    };
    [
        Param::Bytes(value),
        Param::Digest(digest),
        duration(completion.retention),
        duration(completion.hold),
    ]
}

fn expected(expected: &Expected) -> (Param<'_>, Param<'_>) {
    match expected {
        Expected::Attempt(attempt) => (Param::Bytes(Some(attempt.as_bytes())), Param::Int(None)),
        Expected::Token(token) => (Param::Bytes(None), Param::Int(Some(token.get().cast_signed()))),
        Expected::Any => (Param::Bytes(None), Param::Int(None)),
    }
}

fn duration(duration: Duration) -> Param<'static> {
    Param::Int(Some(micros(duration)))
}

/// At most those until *never*.
fn micros(duration: Duration) -> i64 {
    Timestamp::from_micros(0).saturating_add(duration).as_micros().cast_signed()
}

fn count(count: usize) -> Param<'static> {
    Param::Int(Some(i64::try_from(count).unwrap_or(i64::MAX)))
}
