//! A connection that sends a command again by itself, as a cluster's does: the second copy is refused after
//! the first was carried out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use oncekey::store::{
    ClaimOutcome, ErrorKind, Evict, Expected, Fenced, Progress, Renew, State, Store, StoreError,
};
use oncekey_redis::RedisStore;
use oncekey_redis::redis::aio::{ConnectionLike, MultiplexedConnection};
use oncekey_redis::redis::{Cmd, Pipeline, RedisFuture, Value};
use oncekey_testkit::Redis;

use redis_fixture::calls::{LONG, acquire, acquire_as, claim, complete, key, release, renew};
use redis_fixture::{block_on, connection};

/// What writes, may no more after the next command, which is then sent again.
const DENY: [&str; 5] = ["ACL", "SETUSER", "default", "-set", "-@scripting"];
const ALLOW: [&str; 4] = ["ACL", "SETUSER", "default", "+@all"];

#[derive(Clone)]
struct Resending {
    connection: MultiplexedConnection,
    server: Arc<Redis>,
    deny_next: Arc<AtomicBool>,
}

impl Resending {
    fn deny_next(&self) {
        self.deny_next.store(true, Ordering::SeqCst);
    }

    fn allow(&self) {
        assert!(!self.deny_next.load(Ordering::SeqCst), "nothing was sent twice");
        assert_eq!(self.server.ask(&ALLOW), "OK");
    }
}

impl ConnectionLike for Resending {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            let answer = self.connection.req_packed_command(command).await;
            if !self.deny_next.swap(false, Ordering::SeqCst) {
                return answer;
            }
            assert!(matches!(answer, Ok(value) if !matches!(value, Value::ServerError(_))));
            assert_eq!(self.server.ask(&DENY), "OK");
            self.connection.req_packed_command(command).await
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}

/// The error says that it is not known whether it was done, and still what to do about the refusal.
fn is_unknown<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    let error = answer.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert!(error.to_string().contains("denies"), "{error}");
}

#[test]
fn a_refusal_of_a_second_copy_says_nothing_of_the_first() {
    block_on(async {
        let server = Arc::new(Redis::start());
        let connection = connection(&server.url()).await;
        let resending = Resending { connection, server, deny_next: Arc::default() };
        for scripts_only in [false, true] {
            let builder =
                RedisStore::builder(resending.clone()).key_prefix(format!("{scripts_only}:"));
            let builder = if scripts_only { builder.scripts_only(true) } else { builder };
            let store = builder.build().unwrap();
            // So that the scripts are there, and the time is known.
            let first = acquire(&store, &key("first")).await;
            let ended = store.complete(&key("first"), &complete(first, "done")).await.unwrap();
            assert_eq!(ended, Fenced::Applied);
            // By the record that it wrote, and then by the one that is there.
            let ended = store.complete(&key("first"), &complete(first, "done")).await.unwrap();
            assert_eq!(ended, Fenced::Applied);
            assert_eq!(
                store.renew(&key("first"), &renew(first, LONG)).await.unwrap(),
                Fenced::Lost
            );
            let lost = store.abandon(&key("first"), &release(first)).await.unwrap();
            assert_eq!(lost, Fenced::Lost);
            let evict = Evict { expected: Expected::Any, force: true };
            assert_eq!(store.evict(&key("first"), &evict).await.unwrap(), Fenced::Applied);

            let claim = claim();
            resending.deny_next();
            is_unknown(store.claim(&key("a"), &claim).await);
            resending.allow();
            let seen = store.get(&key("a")).await.unwrap().unwrap();
            assert_eq!(seen.record.attempt, claim.attempt, "it was granted");
            let grant = acquire_as(&store, &key("a"), &claim).await;

            let save = Progress { sequence: 1, data: "half".into() };
            let save = Renew { progress: Some(save), ..renew(grant, LONG) };
            resending.deny_next();
            is_unknown(store.renew(&key("a"), &save).await);
            resending.allow();
            let seen = store.get(&key("a")).await.unwrap().unwrap();
            assert!(seen.record.progress.is_some(), "it was saved");

            let done = complete(grant, "done");
            resending.deny_next();
            is_unknown(store.complete(&key("a"), &done).await);
            resending.allow();
            let replay = store.claim(&key("a"), &redis_fixture::calls::claim()).await.unwrap();
            assert_eq!(replay, ClaimOutcome::Replay(Some("done".into())));

            let grant = acquire(&store, &key("b")).await;
            resending.deny_next();
            is_unknown(store.abandon(&key("b"), &release(grant)).await);
            resending.allow();
            let seen = store.get(&key("b")).await.unwrap().unwrap();
            assert_eq!(seen.state, State::Released);

            resending.deny_next();
            is_unknown(store.evict(&key("b"), &evict).await);
            resending.allow();
            assert_eq!(store.get(&key("b")).await.unwrap(), None);

            // What writes nothing is refused as it is.
            resending.deny_next();
            let error = store.get(&key("a")).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
            resending.allow();
        }
    });
}
