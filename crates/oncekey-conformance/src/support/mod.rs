//! What rules are made of: a [`Trial`] (a handle, keys, times), checks that name what they require,
//! calls that stop at an await, and races that prove that they took place.

mod call;
mod expect;
mod race;
mod step;
mod trial;

pub(crate) use call::{Call, call, purge};
pub(crate) use expect::{acquired, broken, busy, corrupt, ensure, expect, replayed};
pub(crate) use race::Race;
pub(crate) use step::{Stepped, soon, step};
pub(crate) use trial::{ANSWER, HARD_BYTES, Owner, Trial, unchanged};
