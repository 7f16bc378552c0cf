//! Keys as databases see them: stores in which different keys meet.

use crate::defect::{Defect, SOUND};

/// All tenants share an "anonymous" bucket. As in Truxify, devlink and hono-idempotency: one
/// customer got another's answer.
pub(crate) fn no_tenant() -> Defect {
    folded(|key| fold(key, |_, operation, id| vec![operation, id]))
}

/// The operation is not part of the key. As in Truxify: one route answered with another's result.
pub(crate) fn no_operation() -> Defect {
    folded(|key| fold(key, |principal, _, id| vec![principal, id]))
}

/// Joins the parts with a colon: `a:b` and `c` are `a` and `b:c`.
pub(crate) fn joins_with_a_colon() -> Defect {
    folded(|key| fold(key, |principal, operation, id| vec![principal, operation, id]))
}

/// A collation that knows no case.
pub(crate) fn no_case() -> Defect {
    folded(<[u8]>::to_ascii_lowercase)
}

/// `CHAR(n)`: blanks at the end do not count.
pub(crate) fn no_trailing_blanks() -> Defect {
    folded(|key| key.trim_ascii_end().to_vec())
}

/// The key ends at a NUL, like a C string.
pub(crate) fn ends_at_nul() -> Defect {
    folded(|key| {
        let (scope, id) = split(key);
        let id = id.split(|byte| *byte == 0).next().unwrap_or_default();
        [scope, id].concat()
    })
}

/// A column with number affinity: `007` is `7`.
pub(crate) fn numbers_are_numbers() -> Defect {
    folded(|key| {
        let (scope, id) = split(key);
        let number = std::str::from_utf8(id).ok().and_then(|id| id.parse::<u64>().ok());
        match number {
            Some(number) => [scope, number.to_string().as_bytes()].concat(),
            None => key.to_vec(),
        }
    })
}

/// A text column: bytes that are no UTF-8 all become the same character.
pub(crate) fn keys_are_text() -> Defect {
    folded(|key| {
        let (scope, id) = split(key);
        [scope, String::from_utf8_lossy(id).as_bytes()].concat()
    })
}

/// Takes a key apart for its columns, and finds nothing in one that is hashed: all of them are one row.
pub(crate) fn hashed_keys_have_no_parts() -> Defect {
    folded(|key| if parts(key).is_some() && key[0] == 1 { key.to_vec() } else { vec![2] })
}

/// A hashed key in a column of 32 bytes, of which its form takes one.
pub(crate) fn cuts_hashed_keys() -> Defect {
    folded(|key| if key[0] == 2 { key[..key.len().min(32)].to_vec() } else { key.to_vec() })
}

/// An index that looks at the first 2,000 bytes.
pub(crate) fn cuts_long_keys() -> Defect {
    Defect {
        fault: "limits::the_longest_keys_are_distinct",
        key: |key| key[..key.len().min(2_000)].to_vec(),
        ..SOUND
    }
}

const fn folded(key: fn(&[u8]) -> Vec<u8>) -> Defect {
    Defect { fault: "limits::near_identical_keys_are_distinct", key, ..SOUND }
}

/// The scope, as encoded, and the id.
fn split(key: &[u8]) -> (&[u8], &[u8]) {
    let parts = parts(key);
    let id = parts.map_or(0, |(_, _, id)| id.len());
    key.split_at(key.len() - id)
}

fn fold<'a>(
    key: &'a [u8],
    choose: impl FnOnce(&'a [u8], &'a [u8], &'a [u8]) -> Vec<&'a [u8]>,
) -> Vec<u8> {
    match parts(key) {
        Some((principal, operation, id)) => choose(principal, operation, id).join(&b':'),
        None => key.to_vec(),
    }
}

/// The principal, the operation and the id of an encoded key.
fn parts(key: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let part = |bytes: &'_ [u8]| -> Option<usize> {
        Some(usize::from(u16::from_be_bytes(*bytes.first_chunk::<2>()?)))
    };
    let rest = key.get(1..)?;
    let (principal, rest) = rest.get(2..)?.split_at_checked(part(rest)?)?;
    let (operation, id) = rest.get(2..)?.split_at_checked(part(rest)?)?;
    Some((principal, operation, id))
}
