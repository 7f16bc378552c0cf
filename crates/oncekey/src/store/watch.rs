//! Waking waiters sooner than their next poll: [`Watch`] and [`Subscription`].

use std::fmt;

use async_trait::async_trait;
use futures::stream::{BoxStream, Stream, StreamExt};

use super::error::StoreError;
use crate::Key;

/// Tells waiters that a key may have changed. An optional capability of a store.
///
/// Notifications only save time. They may come late, come twice, come for nothing or never come:
/// whoever waits polls as well, so a store that loses every notification is slower, not wrong.
#[async_trait]
pub trait Watch: Send + Sync {
    /// Notifies of every later end of an attempt on `key`: completion, release, giving up, settling
    /// and eviction.
    ///
    /// # Durability
    /// The subscription is in force once this returns: whoever subscribes, *then* reads, misses
    /// nothing that is not lost on the way.
    ///
    /// # Cancel safety
    /// Dropping the future or the subscription ends it.
    ///
    /// # Errors
    /// As the channel to the store allows; the caller falls back to polling.
    async fn subscribe(&self, key: &Key) -> Result<Subscription, StoreError>;
}

/// Notifications about one key. Dropping it ends the subscription.
pub struct Subscription {
    notifications: BoxStream<'static, ()>,
}

impl Subscription {
    /// A subscription that notifies whenever `notifications` yields. When the stream ends, nothing
    /// more is notified.
    pub fn new(notifications: impl Stream<Item = ()> + Send + 'static) -> Self {
        Self { notifications: notifications.fuse().boxed() }
    }

    /// Waits for the next notification. Pends for ever once the channel is closed.
    ///
    /// # Cancel safety
    /// Cancel safe: a dropped wait loses no notification that has not arrived.
    pub async fn changed(&mut self) {
        if self.notifications.next().await.is_none() {
            std::future::pending().await
        }
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").finish_non_exhaustive()
    }
}
