//! Records as values of keys, read and changed behind the store's back.

use oncekey::store::Grant;
use oncekey_redis::redis;

use super::calls::key;
use super::{RedisFixture, connection, name};

/// Where a head without more fields ends: what is behind it is the content.
pub const HEAD: usize = 88;

pub async fn value(fixture: &RedisFixture, id: &str) -> Vec<u8> {
    fixture.value(&key(id)).await.unwrap()
}

/// Replaces the value, and leaves the key's expiry as it is.
pub async fn replace(fixture: &RedisFixture, id: &str, value: &[u8]) {
    let mut set = redis::cmd("SET");
    set.arg(name(&fixture.prefix, &key(id))).arg(value).arg("XX").arg("KEEPTTL");
    set.exec_async(&mut connection(&fixture.direct).await).await.unwrap();
}

/// The milliseconds that the key has left.
pub async fn ttl(fixture: &RedisFixture, id: &str) -> i64 {
    let mut ttl = redis::cmd("PTTL");
    ttl.arg(name(&fixture.prefix, &key(id)));
    ttl.query_async(&mut connection(&fixture.direct).await).await.unwrap()
}

/// The same record by another token, if it has no field more than it must.
pub fn with_token(mut value: Vec<u8>, token: u64) -> Vec<u8> {
    value[16..24].copy_from_slice(&token.to_be_bytes());
    let sum = sum(&value[..HEAD - 4]);
    value[HEAD - 4..HEAD].copy_from_slice(&sum.to_be_bytes());
    value
}

/// The record with that head and no content.
pub fn with_sum(mut head: Vec<u8>) -> Vec<u8> {
    let sum = sum(&head);
    head.extend_from_slice(&sum.to_be_bytes());
    head
}

/// The token that the value has.
pub fn token(value: &[u8]) -> u64 {
    u64::from_be_bytes(value[16..24].try_into().unwrap())
}

/// Whether the value is of that grant.
pub fn is_of(value: &[u8], grant: Grant) -> bool {
    token(value) == grant.token.get() && value[68..84] == grant.attempt.as_bytes()[..]
}

/// The sum of a head, as the format has it.
pub fn sum(head: &[u8]) -> u32 {
    let words = head.chunks(4).map(|word| u64::from(u32::from_be_bytes(word.try_into().unwrap())));
    words.fold(1, |sum, word| (sum * 1_000_003 + word) % 4_294_967_291).try_into().unwrap()
}
