//! Names of keys on the server.

use oncekey::Key;

const ESCAPE: u8 = b'~';

/// The names of a store's keys: a prefix, and the key in which no brace is left.
///
/// A brace would let whoever chooses the key choose the slot, too. The encoding can be undone, so two keys
/// have two names.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
    probe: String,
}

impl Names {
    pub(crate) const DEFAULT_PREFIX: &str = "oncekey:";
    const LONGEST_PREFIX: usize = 64;

    /// `None` if the prefix is not usable.
    pub(crate) fn new(prefix: &str) -> Option<Self> {
        let usable = |byte: u8| byte.is_ascii_graphic() && !b"{}*?[]\\^~".contains(&byte);
        let valid =
            (1..=Self::LONGEST_PREFIX).contains(&prefix.len()) && prefix.bytes().all(usable);
        valid.then(|| Self { prefix: prefix.to_owned(), probe: format!("{prefix}probe") })
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn name(&self, key: &Key) -> Vec<u8> {
        let key = key.as_bytes();
        let mut name = Vec::with_capacity(self.prefix.len() + key.len());
        name.extend_from_slice(self.prefix.as_bytes());
        if !key.iter().any(|byte| matches!(*byte, b'{' | b'}' | ESCAPE)) {
            name.extend_from_slice(key);
            return name;
        }
        for byte in key {
            match byte {
                b'{' => name.extend_from_slice(&[ESCAPE, b'(']),
                b'}' => name.extend_from_slice(&[ESCAPE, b')']),
                &ESCAPE => name.extend_from_slice(&[ESCAPE, ESCAPE]),
                byte => name.push(*byte),
            }
        }
        name
    }

    /// The key that has this name; `None` if no key has.
    pub(crate) fn key(&self, name: &[u8]) -> Option<Key> {
        let mut bytes = name.strip_prefix(self.prefix.as_bytes())?.iter();
        let mut key = Vec::with_capacity(name.len());
        while let Some(byte) = bytes.next() {
            key.push(match byte {
                b'{' | b'}' => return None,
                &ESCAPE => match bytes.next()? {
                    b'(' => b'{',
                    b')' => b'}',
                    &ESCAPE => ESCAPE,
                    _ => return None,
                },
                byte => *byte,
            });
        }
        Key::from_bytes(&key).ok()
    }

    /// The channel on which the ends of attempts are told.
    pub(crate) fn channel(&self) -> String {
        format!("{}ended", self.prefix)
    }

    /// A key that is never there.
    pub(crate) fn probe(&self) -> &str {
        &self.probe
    }

    /// What all names match, and few others.
    pub(crate) fn pattern(&self) -> String {
        format!("{}*", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use oncekey::Scope;

    use super::*;

    #[test]
    fn a_name_has_no_brace_and_is_of_one_key() {
        let names = Names::new("p:").unwrap();
        let ids: [&[u8]; 8] =
            [b"{a}b", b"~(a~)b", b"~{", b"~~(", b"a\r\n\0b", b"*?[", b"\xff\xfe", b"~"];
        let scope = Scope::new("{tenant}", "pay").unwrap();
        let keys: Vec<_> = ids.iter().map(|id| Key::new(&scope, id).unwrap()).collect();
        let mut found: Vec<_> = keys.iter().map(|key| names.name(key)).collect();
        for (key, name) in keys.iter().zip(&found) {
            assert!(!name.contains(&b'{') && !name.contains(&b'}'));
            assert_eq!(names.key(name).as_ref(), Some(key));
        }
        found.sort();
        found.dedup();
        assert_eq!(found.len(), keys.len());
    }

    #[test]
    fn what_no_key_is_named_is_no_key() {
        let names = Names::new("p:").unwrap();
        for name in [&b"p:{}"[..], b"p:~x", b"p:probe", b"q:x", b"p:~"] {
            assert_eq!(names.key(name), None);
        }
    }

    #[test]
    fn a_prefix_is_checked() {
        let long = "x".repeat(65);
        for prefix in ["", "a b", "a*", "{a}:", "a~", "\u{e4}", &long] {
            assert!(Names::new(prefix).is_none(), "{prefix}");
        }
        assert!(Names::new("billing/idempotency:v1:").is_some());
    }
}
