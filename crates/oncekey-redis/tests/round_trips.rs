//! How many commands a call takes, by the server's own count.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod redis_fixture;

use oncekey::store::{ClaimOutcome, Fenced, Store};
use oncekey_redis::RedisStore;
use oncekey_testkit::{Flavor, Redis};

use redis_fixture::calls::{acquire, claim, complete, key};
use redis_fixture::{block_on, count};

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
