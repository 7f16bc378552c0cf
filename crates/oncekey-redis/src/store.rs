//! [`RedisStore`]: the contract of the core, one command or one script a call.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use oncekey::Key;
use oncekey::runtime::Timestamp;
use oncekey::store::{
    Abandon, AttemptId, Claim, ClaimOutcome, Complete, Completion, ErrorKind, Evict, Expected,
    Fenced, FencingToken, Grant, Inspect, Known, Observed, Purged, Renew, Settle, Settlement,
    Store, StoreError, Watch,
};
use redis::Value;
use redis::aio::ConnectionLike;

use crate::answer::Answer;
use crate::builder::RedisStoreBuilder;
use crate::check::{Demands, Server};
use crate::fault::{Purpose, is_full, is_unknown};
use crate::layout::{Content, Kind, Stored, check};
use crate::link::{self, Failed, Link, Replicas, may_resend};
use crate::listener::Listener;
use crate::name::Names;
use crate::own::OwnRecords;
use crate::script::{FULL_SCRIPTS, SCRIPTS, Script, Scripts};
use crate::standing::Standing;
use crate::time::{GRACE, LATEST, Millis, Moment, ServerClock, millis};

/// The longest content. A value of the server may have half a gigabyte, and a record needs some of it.
const MAX_CONTENT_LEN: usize = (512 << 20) - 1024;
/// The longest content that a full server is still asked to take.
const MAX_WHEN_FULL: &[u8] = b"1024";
const ANY_LEN: &[u8] = b"536870912";

/// How often a claim looks at saved progress that changes, before it gives up.
const LOOKS: usize = 8;

const CLAIM: Purpose = Purpose::new_key("claim");
const GET: Purpose = Purpose::read("get");

/// A store in Redis or Valkey: one server, one behind Sentinel, or a Cluster.
///
/// A clone shares the connection; a second store with the same prefix on the same server shares the
/// records. The connection may be used for other things too.
///
/// ```no_run
/// use oncekey::{Fingerprint, Idempotency, Key, Scope};
/// use oncekey_redis::RedisStore;
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let store = RedisStore::connect("redis://127.0.0.1/")?;
/// store.check().await?;
///
/// let idempotency = Idempotency::at_least_once(store);
/// let key = Key::new(&Scope::new("tenant-42", "POST /payments")?, "order-17")?;
/// let charge = |_attempt| async { Ok::<_, std::io::Error>("receipt 1".to_owned()) };
/// let outcome = idempotency.run(&key, &Fingerprint::of("100 EUR"), charge).await?;
/// assert_eq!(outcome.value(), "receipt 1");
/// # Ok(())
/// # }
/// ```
///
/// # Durability
/// What the server acknowledged is what the store acknowledges: see the table in the
/// [crate documentation](crate). With [`wait_for_replicas`](RedisStoreBuilder::wait_for_replicas), also
/// that replicas have it.
///
/// # Time
/// The server's clock, in whole milliseconds: a lease may end up to one earlier than a finer clock would
/// say, which is within the engine's margin for any lease of 20 ms or more. Durations are rounded up. When
/// the clock steps back, tokens
/// still go up while a key is remembered. The token of a new key may come from an estimate of that clock
/// that is some milliseconds behind.
///
/// # Cancel safety
/// Once its future was polled, a call may be sent; dropped after that, it happens as a whole or not at all,
/// maybe later. The connection is good for the next call.
///
/// # Errors
/// - [`Unavailable`]: there is no connection, or the server refused the command, for example because it
///   is a replica, is loading its data or has lost its replicas. Not applied.
/// - [`Timeout`]: a reading call was not answered within the connection's response timeout.
/// - [`OutcomeUnknown`]: a writing call was not answered, or too few replicas have what it wrote. A
///   connection that may send twice (a cluster's, or one of yours) makes this of every refusal by the
///   server; the message says what to do about it all the same.
/// - [`Full`]: the server is at its `maxmemory`, and the key is new.
/// - [`TooLarge`]: a content is longer than half a gigabyte, or longer than 1 KiB while the server is at
///   its `maxmemory`. Completing without the content works then; the engine does so by itself.
/// - [`Corrupt`]: the value of the key is no record, or is a newer oncekey's.
/// - [`Misconfigured`]: the server may lose records, is too old, or denies a command; the message says how
///   to mend it.
///
/// The source of an error names the server's error code; its text is left out, since it may quote keys.
///
/// [`Corrupt`]: oncekey::store::ErrorKind::Corrupt
/// [`Full`]: oncekey::store::ErrorKind::Full
/// [`Misconfigured`]: oncekey::store::ErrorKind::Misconfigured
/// [`OutcomeUnknown`]: oncekey::store::ErrorKind::OutcomeUnknown
/// [`Timeout`]: oncekey::store::ErrorKind::Timeout
/// [`TooLarge`]: oncekey::store::ErrorKind::TooLarge
/// [`Unavailable`]: oncekey::store::ErrorKind::Unavailable
#[derive(Clone)]
pub struct RedisStore {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) link: Box<dyn Link>,
    pub(crate) names: Names,
    pub(crate) channel: String,
    pub(crate) replicas: Option<Replicas>,
    pub(crate) allow_eviction: bool,
    pub(crate) native: bool,
    pub(crate) listener: Option<Listener>,
    pub(crate) standing: Standing,
    pub(crate) clock: ServerClock,
    pub(crate) own: OwnRecords,
}

impl RedisStore {
    /// A store on `connection`, with the defaults of [`builder`](Self::builder). Nothing is sent yet.
    ///
    /// Any connection of the driver will do that many tasks can use at once: a
    /// [`ConnectionManager`](redis::aio::ConnectionManager), which connects again by itself, a
    /// [`MultiplexedConnection`](redis::aio::MultiplexedConnection), a cluster's. The driver's own default
    /// for a response is 500 ms, which is short for a server that is saving or failing over: a call that
    /// took longer has an unknown outcome. Set some seconds, as [`connect`](Self::connect) does.
    #[must_use]
    pub fn new<C>(connection: C) -> Self
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        match Self::builder(connection).build() {
            Ok(store) => store,
            Err(error) => unreachable!("the default prefix is usable: {error}"),
        }
    }

    /// A store on the server at `url`, with the defaults of
    /// [`RedisStoreBuilder::connect`]. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured) when the address is not usable, or when
    /// this is called outside of a Tokio runtime.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        RedisStoreBuilder::connect(url)?.build()
    }

    /// Sets up a store on `connection`.
    pub fn builder<C>(connection: C) -> RedisStoreBuilder
    where
        C: ConnectionLike + Clone + Send + Sync + 'static,
    {
        RedisStoreBuilder::new(Box::new(connection))
    }

    /// The prefix of the keys' names.
    #[must_use]
    pub fn key_prefix(&self) -> &str {
        self.shared.names.prefix()
    }

    /// Checks that the server keeps what it is given, is a primary, and allows what the store needs,
    /// listening too if it is set up to. The first call does the same, but for listening; this says it at
    /// start.
    ///
    /// What can change is looked at again by the next claim after a minute, and after a call that failed: that
    /// the server is a primary, and that it does not evict. Until it is fit again, no claim is made; what was
    /// granted is ended all the same.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured), with what to do about it;
    /// [`Unavailable`](oncekey::store::ErrorKind::Unavailable) or
    /// [`Timeout`](oncekey::store::ErrorKind::Timeout) when the server cannot be asked.
    pub async fn check(&self) -> Result<(), StoreError> {
        let shared = &*self.shared;
        shared.standing.anew(&*shared.link, shared.demands()).await?;
        match &shared.listener {
            Some(listener) => listener.check().await,
            None => Ok(()),
        }
    }
}

impl Shared {
    /// What was found out about the server, once.
    pub(crate) async fn server(&self) -> Result<Server, StoreError> {
        self.standing.once(&*self.link, self.demands()).await
    }

    fn demands(&self) -> Demands<'_> {
        Demands {
            allow_eviction: self.allow_eviction,
            waits_for_replicas: self.replicas.is_some(),
            channel: self.listener.as_ref().map(|_| self.channel.as_str()),
            probe: self.names.probe(),
        }
    }

    pub(crate) fn error(&self, purpose: Purpose, failed: Failed) -> StoreError {
        if matches!(failed, Failed::Command(_)) {
            self.standing.suspect();
        }
        purpose.failed(failed, may_resend(&*self.link))
    }

    async fn run(
        &self,
        script: &Script,
        name: &[u8],
        arguments: &[&[u8]],
        writes: bool,
    ) -> Result<(Value, Instant), Failed> {
        let asked = Instant::now();
        let replicas = self.replicas.filter(|_| writes);
        Ok((link::run(&*self.link, script, name, arguments, replicas).await?, asked))
    }

    fn read(
        &self,
        purpose: Purpose,
        run: Result<(Value, Instant), Failed>,
    ) -> Result<Answer, StoreError> {
        let (value, asked) = run.map_err(|failed| self.error(purpose, failed))?;
        let answer = Answer::read(purpose, value)?;
        if let Some(micros) = answer.micros {
            self.clock.note(micros, asked);
        }
        Ok(answer)
    }

    /// Runs a script that a full server runs, too.
    pub(crate) async fn ask(
        &self,
        purpose: Purpose,
        script: &Script,
        name: &[u8],
        arguments: &[&[u8]],
        writes: bool,
    ) -> Result<Answer, StoreError> {
        self.read(purpose, self.run(script, name, arguments, writes).await)
    }

    /// Runs a script that brings something. If the server is full, it is asked to make do with less: the
    /// argument at `less.0` becomes `less.1`.
    async fn bring(
        &self,
        purpose: Purpose,
        script: fn(&Scripts) -> &Script,
        name: &[u8],
        arguments: &mut [&[u8]],
        less: (usize, &'static [u8]),
    ) -> Result<Answer, StoreError> {
        let mut run = self.run(script(&SCRIPTS), name, arguments, true).await;
        if run.as_ref().is_err_and(is_full) {
            arguments[less.0] = less.1;
            run = Box::pin(self.run(script(&FULL_SCRIPTS), name, arguments, true)).await;
        }
        self.read(purpose, run)
    }

    /// Claims by `SET .. NX GET`: granted if there is no key, and answered if what is there says enough.
    async fn claim_at_once(
        &self,
        name: &[u8],
        claim: &Claim,
        server: Server,
    ) -> Result<AtOnce, StoreError> {
        let lease = millis(claim.lease);
        let remembered = lease + millis(claim.hold);
        if !self.native || !server.has_one_clock || remembered < GRACE {
            return Ok(AtOnce::NOTHING);
        }
        // Before the token: a pause in between makes it late, too.
        let begun = Moment::now();
        let Some(token) = self.clock.token() else { return Ok(AtOnce::NOTHING) };
        let record = Stored::granted(claim, token).encode();
        let mut set = set_command(name, record.len());
        // The key is there until its expiry is over.
        set.arg(&record[..]).arg("NX").arg("GET").arg("PX").arg(remembered - 1);
        let found = match link::write(&*self.link, &set, name, self.replicas).await {
            Ok(Value::Nil) if begun.elapsed() > LATEST => {
                // Others may have come and gone since its token was made. Nothing was done under it.
                let grant = Grant { token, attempt: claim.attempt };
                let known = Known::NotStarted { hold: Duration::ZERO };
                let _ = Box::pin(self.abandon(name, &Abandon { grant, known })).await;
                let message =
                    "the grant came too late for its token, and was given back; ask again";
                return Err(CLAIM.error(ErrorKind::OutcomeUnknown, message));
            }
            Ok(Value::Nil) => {
                self.own.put(claim.attempt, record);
                return Ok(AtOnce::Answer(ClaimOutcome::Acquired {
                    grant: Grant { token, attempt: claim.attempt },
                    number: 1,
                    lease_left: left_of_all_time(token).min(claim.lease),
                    previous: None,
                }));
            }
            Ok(Value::BulkString(found)) => Bytes::from(found),
            Ok(_) => return Err(CLAIM.no_answer()),
            Err(failed) if is_full(&failed) => return Ok(AtOnce::NOTHING),
            Err(failed) => return Err(self.error(CLAIM, failed)),
        };
        let found = Stored::decode(&found).map_err(|why| CLAIM.unreadable(why))?;
        let is_same = found.fingerprint() == claim.fingerprint;
        Ok(match found.kind {
            Kind::Completed | Kind::Digest if found.is_gone_when_retired() => {
                AtOnce::Answer(if is_same {
                    ClaimOutcome::Replay(found.replay())
                } else {
                    ClaimOutcome::Mismatch
                })
            }
            Kind::InProgress | Kind::GaveUp | Kind::Released
                if found.is_gone_when_forgotten() && !is_same =>
            {
                AtOnce::Answer(ClaimOutcome::Mismatch)
            }
            _ => AtOnce::Found(found.check()),
        })
    }

    /// Claims by the script. What progress it hands on has the check that is in `seen`; other progress is
    /// looked at first.
    async fn claim_by_script(
        &self,
        name: &[u8],
        claim: &Claim,
        mut seen: [u8; 8],
    ) -> Result<ClaimOutcome, StoreError> {
        use oncekey::store::{OnInterrupted, OnRetired};
        let algorithm = claim.fingerprint.algorithm().to_string();
        let (lease, hold) = (number(millis(claim.lease)), number(millis(claim.hold)));
        for _ in 0..LOOKS {
            let mut arguments: [&[u8]; 9] = [
                claim.attempt.as_bytes(),
                algorithm.as_bytes(),
                claim.fingerprint.digest(),
                lease.as_bytes(),
                hold.as_bytes(),
                flag(claim.on_interrupted == OnInterrupted::TakeOver),
                flag(claim.on_retired == OnRetired::Tell),
                flag(false),
                &seen,
            ];
            // A full server takes no new key.
            let less = (7, flag(true));
            let mut answer = self.bring(CLAIM, |s| &s.claim, name, &mut arguments, less).await?;
            if let Some(check) = answer.look(CLAIM)? {
                seen = check;
                continue;
            }
            let (outcome, granted) = answer.claim(CLAIM)?;
            if let Some((raw, stored)) = granted
                && stored.is_gone_when_forgotten()
            {
                self.own.put(claim.attempt, raw);
            }
            return Ok(outcome);
        }
        let message = "the saved progress was another one each time that it was looked at";
        Err(CLAIM.error(ErrorKind::OutcomeUnknown, message))
    }

    async fn complete(&self, name: &[u8], complete: &Complete) -> Result<Fenced, StoreError> {
        let purpose = completing("complete", &complete.completion)?;
        let (expected, made) = self.completed(complete);
        if !expected.is_empty() && self.replace(purpose, name, &expected, &made, complete).await? {
            return Ok(Fenced::Applied);
        }
        Box::pin(self.complete_by_script(purpose, name, &made, complete)).await
    }

    /// The record that this store wrote for the grant, if it knows; and the one that is to replace it.
    fn completed(&self, complete: &Complete) -> (Bytes, Bytes) {
        let Complete { grant, completion } = complete;
        let (retention, hold) = (millis(completion.retention), millis(completion.hold));
        let result = Stored::result(*grant, &Content::of(completion), hold);
        match self.own_record(*grant).filter(|_| retention + hold >= GRACE) {
            Some((raw, last)) => (raw, result.after(&last).encode()),
            None => (Bytes::new(), result.encode()),
        }
    }

    /// Writes the record that was `made`, if what is there is as `expected` to the last byte. Whether it
    /// did.
    async fn replace(
        &self,
        purpose: Purpose,
        name: &[u8],
        expected: &[u8],
        made: &[u8],
        complete: &Complete,
    ) -> Result<bool, StoreError> {
        let Completion { retention, hold, .. } = complete.completion;
        let expiry = number((millis(retention) + millis(hold)).saturating_sub(1));
        let written = if self.server().await?.compares {
            let mut set = set_command(name, made.len() + expected.len());
            set.arg(made).arg("IFEQ").arg(expected).arg("PX").arg(&expiry);
            link::write(&*self.link, &set, name, self.replicas).await
        } else {
            let arguments = [expected, made, expiry.as_bytes()];
            link::run(&*self.link, &SCRIPTS.replace, name, &arguments, self.replicas).await
        };
        match written {
            Ok(Value::Okay) => Ok(true),
            // Something else is there, for whatever reason.
            Ok(_) => Ok(false),
            // A failover may have led to a server that cannot compare.
            Err(failed) if is_full(&failed) || is_unknown(&failed) => Ok(false),
            Err(failed) => Err(self.error(purpose, failed)),
        }
    }

    async fn complete_by_script(
        &self,
        purpose: Purpose,
        name: &[u8],
        made: &[u8],
        complete: &Complete,
    ) -> Result<Fenced, StoreError> {
        let Completion { retention, hold, .. } = complete.completion;
        let (retention, hold) = (number(millis(retention)), number(millis(hold)));
        let mut arguments: [&[u8]; 5] =
            [made, retention.as_bytes(), hold.as_bytes(), ANY_LEN, self.channel.as_bytes()];
        let less = (3, MAX_WHEN_FULL);
        let answer = self.bring(purpose, |s| &s.complete, name, &mut arguments, less).await?;
        answer.fenced(purpose, Some(&complete.completion.value))
    }

    /// The record of this grant as this store wrote it, to be used once.
    fn own_record(&self, grant: Grant) -> Option<(Bytes, Stored)> {
        let raw = self.own.take(grant.attempt).filter(|_| self.native)?;
        let stored = Stored::decode(&raw).ok()?;
        // Whoever waits is told by the script.
        let is_it = stored.kind == Kind::InProgress && stored.grant() == grant;
        (is_it && !stored.is_watched()).then_some((raw, stored))
    }

    async fn renew(&self, name: &[u8], renew: &Renew) -> Result<Fenced, StoreError> {
        // It is another one then.
        self.own.take(renew.grant.attempt);
        let progress = renew.progress.as_ref();
        let purpose = match progress {
            Some(progress) => sized(Purpose::content("renew"), progress.data.len())?,
            None => Purpose::write("renew"),
        };
        let sequence = progress.map(|progress| progress.sequence.to_be_bytes());
        let data = progress.map_or(&[][..], |progress| &progress.data);
        let check = check(data);
        let (token, lease) = (number(renew.grant.token.get()), number(millis(renew.lease)));
        let mut arguments: [&[u8]; 7] = [
            renew.grant.attempt.as_bytes(),
            token.as_bytes(),
            lease.as_bytes(),
            sequence.as_ref().map_or(&[][..], |sequence| sequence),
            data,
            &check,
            ANY_LEN,
        ];
        let less = (6, MAX_WHEN_FULL);
        let answer = self.bring(purpose, |s| &s.renew, name, &mut arguments, less).await?;
        answer.fenced(purpose, None)
    }

    async fn abandon(&self, name: &[u8], abandon: &Abandon) -> Result<Fenced, StoreError> {
        const ABANDON: Purpose = Purpose::write("abandon");
        let Abandon { grant, known } = abandon;
        self.own.take(grant.attempt);
        let (not_started, hold) = match known {
            Known::NotStarted { hold } => (true, millis(*hold)),
            Known::Unknown => (false, 0),
        };
        let (token, hold) = (number(grant.token.get()), number(hold));
        let arguments: [&[u8]; 5] = [
            grant.attempt.as_bytes(),
            token.as_bytes(),
            flag(not_started),
            hold.as_bytes(),
            self.channel.as_bytes(),
        ];
        let answer = self.ask(ABANDON, &FULL_SCRIPTS.abandon, name, &arguments, true).await?;
        answer.fenced(ABANDON, None)
    }

    async fn settle(&self, name: &[u8], settle: &Settle) -> Result<Fenced, StoreError> {
        let (by, which) = expected(&settle.expected);
        let (purpose, content, value, retention, hold) = match &settle.settlement {
            Settlement::Done(completion) => {
                let purpose = completing("settle", completion)?;
                let content = Content::of(completion);
                let (retention, hold) = (millis(completion.retention), millis(completion.hold));
                (purpose, Some(content), Some(&completion.value[..]), retention, hold)
            }
            Settlement::NotDone { hold } => {
                (Purpose::write("settle"), None, None, 0, millis(*hold))
            }
        };
        let kind = content.as_ref().map_or(0, |content| content.kind as u64);
        let (kind, retention, hold) = (number(kind), number(retention), number(hold));
        let mut arguments: [&[u8]; 9] = [
            by,
            &which,
            kind.as_bytes(),
            content.as_ref().map_or(&[][..], |content| &content.bytes),
            content.as_ref().map_or(&[][..], |content| &content.check),
            retention.as_bytes(),
            hold.as_bytes(),
            ANY_LEN,
            self.channel.as_bytes(),
        ];
        let less = (7, MAX_WHEN_FULL);
        let answer = self.bring(purpose, |s| &s.settle, name, &mut arguments, less).await?;
        answer.fenced(purpose, value)
    }

    async fn evict(&self, name: &[u8], evict: &Evict) -> Result<Fenced, StoreError> {
        const EVICT: Purpose = Purpose::write("evict");
        let (by, which) = expected(&evict.expected);
        let arguments: [&[u8]; 4] = [by, &which, flag(evict.force), self.channel.as_bytes()];
        let answer = self.ask(EVICT, &FULL_SCRIPTS.evict, name, &arguments, true).await?;
        answer.fenced(EVICT, None)
    }

    pub(crate) async fn get(&self, name: &[u8]) -> Result<Option<Observed>, StoreError> {
        self.ask(GET, &FULL_SCRIPTS.get, name, &[], false).await?.observed(GET)
    }
}

/// What a claim without a script came to.
enum AtOnce {
    Answer(ClaimOutcome),
    /// The script decides. What is there is whole, and its content has this check.
    Found([u8; 8]),
}

impl AtOnce {
    const NOTHING: Self = Self::Found([0; 8]);
}

#[async_trait]
impl Store for RedisStore {
    async fn claim(&self, key: &Key, claim: &Claim) -> Result<ClaimOutcome, StoreError> {
        let shared = &*self.shared;
        let demands = shared.demands();
        let server = shared.standing.for_a_claim(&*shared.link, demands).await?;
        let name = shared.names.name(key);
        match shared.claim_at_once(&name, claim, server).await? {
            AtOnce::Answer(outcome) => Ok(outcome),
            // Boxed, as all that is seldom needed: the future stays small.
            AtOnce::Found(check) => Box::pin(shared.claim_by_script(&name, claim, check)).await,
        }
    }

    async fn renew(&self, key: &Key, renew: &Renew) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.renew(&self.shared.names.name(key), renew).await
    }

    async fn complete(&self, key: &Key, complete: &Complete) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.complete(&self.shared.names.name(key), complete).await
    }

    async fn abandon(&self, key: &Key, abandon: &Abandon) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.abandon(&self.shared.names.name(key), abandon).await
    }

    async fn settle(&self, key: &Key, settle: &Settle) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.settle(&self.shared.names.name(key), settle).await
    }

    async fn evict(&self, key: &Key, evict: &Evict) -> Result<Fenced, StoreError> {
        self.shared.server().await?;
        self.shared.evict(&self.shared.names.name(key), evict).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Observed>, StoreError> {
        self.shared.server().await?;
        self.shared.get(&self.shared.names.name(key)).await
    }

    /// The server removes what is over by itself.
    async fn purge(&self, _: usize) -> Result<Purged, StoreError> {
        Ok(Purged::default())
    }

    fn watch(&self) -> Option<&dyn Watch> {
        self.shared.listener.is_some().then_some(self as &dyn Watch)
    }

    fn inspect(&self) -> Option<&dyn Inspect> {
        Some(self)
    }
}

impl fmt::Debug for RedisStore {
    /// Shows no address, no key, no value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore")
            .field("key_prefix", &self.key_prefix())
            .field("standing", &self.shared.standing)
            .field("replicas", &self.shared.replicas)
            .field("listens", &self.shared.listener.is_some())
            .finish_non_exhaustive()
    }
}

/// The beginning of a command with room for the rest, of which `len` are records.
fn set_command(name: &[u8], len: usize) -> redis::Cmd {
    let mut set = redis::Cmd::with_capacity(7, 64 + name.len() + len);
    set.arg("SET").arg(name);
    set
}

/// For how long a lease can last that was granted with that token now.
fn left_of_all_time(token: FencingToken) -> Duration {
    Timestamp::MAX.saturating_since(Timestamp::from_micros(token.get()))
}

fn completing(operation: &'static str, completion: &Completion) -> Result<Purpose, StoreError> {
    if completion.replayable {
        sized(Purpose::content(operation), completion.value.len())
    } else {
        Ok(Purpose::write(operation))
    }
}

fn sized(purpose: Purpose, len: usize) -> Result<Purpose, StoreError> {
    if len <= MAX_CONTENT_LEN {
        Ok(purpose)
    } else {
        Err(purpose.error(ErrorKind::TooLarge, "it is longer than half a gigabyte"))
    }
}

fn expected(expected: &Expected) -> (&'static [u8], Vec<u8>) {
    match expected {
        Expected::Attempt(attempt) => (b"attempt", AttemptId::as_bytes(attempt).to_vec()),
        Expected::Token(token) => (b"token", number(token.get()).into_bytes()),
        Expected::Any => (b"any", Vec::new()),
    }
}

fn number(number: Millis) -> String {
    number.to_string()
}

const fn flag(flag: bool) -> &'static [u8] {
    if flag { b"1" } else { b"0" }
}
