//! What a call takes, by the server's own count: how many commands, and how many bytes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use oncekey::runtime::Timestamp;
use oncekey::store::{ClaimOutcome, Fenced, Query, State, Status, Store, StoredValue};
use oncekey_redis::{RedisStore, redis};
use oncekey_testkit::{Flavor, Redis};

use redis_fixture::calls::{acquire, claim, complete, key};
use redis_fixture::{RedisFixture, block_on, connection, count, name, server};

const LIFECYCLES: usize = 200;

/// Claims, completes and claims again, and says how often the server ran each of the commands.
async fn lifecycles<const N: usize>(server: &Redis, commands: [&str; N]) -> [usize; N] {
    let store = RedisStore::connect(&server.url()).unwrap();
    // The first call checks the server, and learns the time.
    acquire(&store, &key("first")).await;
    let before = commands.map(|command| count(server, command));
    for id in 0..LIFECYCLES {
        let grant = acquire(&store, &key(id)).await;
        let done = complete(grant, "done");
        assert_eq!(store.complete(&key(id), &done).await.unwrap(), Fenced::Applied);
        let replay = store.claim(&key(id), &claim()).await.unwrap();
        assert_eq!(replay, ClaimOutcome::Replay(Some("done".into())));
    }
    let mut after = commands.map(|command| count(server, command));
    after.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
    after
}

/// A claim of a new key and a replay are one `SET` each; a completion is one script, which looks at no
/// clock.
#[test]
fn on_a_server_that_does_not_compare() {
    block_on(async {
        let server = Redis::start();
        let [set, evalsha, time] = lifecycles(&server, ["set", "evalsha", "time"]).await;
        // What takes longer than a few seconds learns the time again.
        assert!((LIFECYCLES..LIFECYCLES + 20).contains(&evalsha), "{evalsha} scripts");
        assert!(time < 20, "{time} times");
        assert_eq!(set, 3 * LIFECYCLES);
    });
}

/// A completion is one `SET`, too.
#[test]
fn on_a_server_that_compares() {
    if redis_fixture::valkey("on_a_server_that_compares").is_none() {
        return;
    }
    block_on(async {
        let server = Redis::start_with(Flavor::Valkey, &["--save", ""]);
        let [set, evalsha] = lifecycles(&server, ["set", "evalsha"]).await;
        assert!(evalsha < 20, "{evalsha} scripts");
        assert_eq!(set, 3 * LIFECYCLES);
    });
}

/// A page of a listing takes a bounded number of commands, however many keys there are that it does not ask
/// for; all pages together find what it asks for.
#[test]
fn a_page_of_a_listing_is_bounded() {
    const OTHERS: usize = 5000;
    block_on(async {
        let server = Redis::start();
        let store = RedisStore::connect(&server.url()).unwrap();
        let live = key("live");
        acquire(&store, &live).await;
        for id in 0..OTHERS {
            let grant = acquire(&store, &key(id)).await;
            let _ = store.complete(&key(id), &complete(grant, "done")).await.unwrap();
        }
        let (mut after, mut found, mut pages) = (None, Vec::new(), 0);
        loop {
            let before = [count(&server, "scan"), count(&server, "evalsha")];
            let query = Query { states: vec![State::Live], after, limit: 10 };
            let page = store.inspect().unwrap().list(&query).await.unwrap();
            assert!(count(&server, "scan") - before[0] <= 10);
            // A scan may find a few more than it was asked for, and they are looked at later.
            assert!(count(&server, "evalsha") - before[1] <= 100);
            found.extend(page.entries.into_iter().map(|(key, _)| key));
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, [live]);
        assert!(pages > 50, "{pages} pages");
    });
}

/// What a small result takes, beyond the name of its key.
#[test]
fn a_small_result_takes_at_most_200_bytes() {
    block_on(async {
        let fixture = RedisFixture::on(server());
        let store = fixture.store();
        let grant = acquire(&store, &key("a")).await;
        let done = complete(grant, vec![b'v'; 64]);
        assert_eq!(store.complete(&key("a"), &done).await.unwrap(), Fenced::Applied);
        let seen = store.get(&key("a")).await.unwrap().unwrap();
        assert_eq!(seen.state, State::Completed);
        assert!(seen.record.forget_at < Timestamp::MAX);
        let Status::Completed { value: StoredValue::Replayable(value), .. } = seen.record.status
        else {
            panic!("{:?}", seen.record.status);
        };
        assert_eq!(value.len(), 64);
        let name = name(&fixture.prefix, &key("a"));
        let mut usage = redis::cmd("MEMORY");
        usage.arg("USAGE").arg(&name);
        let bytes: usize = usage.query_async(&mut connection(&fixture.direct).await).await.unwrap();
        // A string has a header, an end, and is rounded up by the allocator.
        let own = (name.len() + 4).next_multiple_of(16);
        println!("{bytes} bytes, of which the name takes {own}");
        assert!(bytes <= 200 + own, "{bytes} bytes, of which the name takes {own}");
    });
}
