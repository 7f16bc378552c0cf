//! References and smart pointers to a store, or to a storage, are one too. They hand the future on; they
//! wrap nothing.

#![deny(clippy::missing_trait_methods)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;

use super::cas::{CompareAndSwap, Entry, Version, Versioned};
use super::command::{
    Abandon, Claim, ClaimOutcome, Complete, Evict, Fenced, Purged, Renew, Settle,
};
use super::record::Observed;
use super::{Inspect, Store, StoreError, Watch};
use crate::Key;
use crate::runtime::Timestamp;

/// What `async_trait` makes of an asynchronous method.
type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

macro_rules! forward {
    ($([$($generics:tt)*] $pointer:ty;)*) => {$(
        impl<$($generics)*> Store for $pointer {
            forward!(verb claim(Claim) -> ClaimOutcome);
            forward!(verb renew(Renew) -> Fenced);
            forward!(verb complete(Complete) -> Fenced);
            forward!(verb abandon(Abandon) -> Fenced);
            forward!(verb settle(Settle) -> Fenced);
            forward!(verb evict(Evict) -> Fenced);

            fn get<'s, 'k, 'a>(&'s self, key: &'k Key) -> Answer<'a, Option<Observed>>
            where
                's: 'a,
                'k: 'a,
                Self: 'a,
            {
                (**self).get(key)
            }

            fn purge<'s, 'a>(&'s self, limit: usize) -> Answer<'a, Purged>
            where
                's: 'a,
                Self: 'a,
            {
                (**self).purge(limit)
            }

            fn watch(&self) -> Option<&dyn Watch> {
                (**self).watch()
            }

            fn inspect(&self) -> Option<&dyn Inspect> {
                (**self).inspect()
            }
        }
    )*};
    (verb $name:ident($command:ty) -> $outcome:ty) => {
        fn $name<'s, 'k, 'c, 'a>(
            &'s self,
            key: &'k Key,
            command: &'c $command,
        ) -> Answer<'a, $outcome>
        where
            's: 'a,
            'k: 'a,
            'c: 'a,
            Self: 'a,
        {
            (**self).$name(key, command)
        }
    };
}

forward! {
    ['p, S: Store + ?Sized] &'p S;
    [S: Store + ?Sized] Box<S>;
    [S: Store + ?Sized] Arc<S>;
}

macro_rules! forward_storage {
    ($([$($generics:tt)*] $pointer:ty;)*) => {$(
        impl<$($generics)*> CompareAndSwap for $pointer {
            fn load<'s, 'k, 'a>(
                &'s self,
                key: &'k [u8],
            ) -> Answer<'a, (Option<Versioned>, Timestamp)>
            where
                's: 'a,
                'k: 'a,
                Self: 'a,
            {
                (**self).load(key)
            }

            fn swap<'s, 'k, 'v, 'a>(
                &'s self,
                key: &'k [u8],
                expected: Option<&'v Version>,
                new: Option<Entry>,
            ) -> Answer<'a, bool>
            where
                's: 'a,
                'k: 'a,
                'v: 'a,
                Self: 'a,
            {
                (**self).swap(key, expected, new)
            }

            fn expired<'s, 'a>(&'s self, limit: usize) -> Answer<'a, Vec<Bytes>>
            where
                's: 'a,
                Self: 'a,
            {
                (**self).expired(limit)
            }

            fn watch(&self) -> Option<&dyn Watch> {
                (**self).watch()
            }

            fn inspect(&self) -> Option<&dyn Inspect> {
                (**self).inspect()
            }
        }
    )*};
}

forward_storage! {
    ['p, S: CompareAndSwap + ?Sized] &'p S;
    [S: CompareAndSwap + ?Sized] Box<S>;
    [S: CompareAndSwap + ?Sized] Arc<S>;
}
