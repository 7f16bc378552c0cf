//! The part of RFC 9651 that a key needs: an Item that is a String, with parameters that are checked
//! and ignored.

use std::borrow::Cow;

/// The string of an Item, or nothing if `field` is no such Item.
///
/// Follows the parsing algorithms of section 4.2, so that whatever a conforming parser refuses is
/// refused here.
pub(crate) fn string_item(field: &[u8]) -> Option<Cow<'_, str>> {
    let mut input = Input(trim_spaces(field));
    let string = input.string()?;
    input.parameters()?;
    input.0.is_empty().then_some(string)
}

/// What is left to parse.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// The longest run of bytes that are `wanted`.
    fn run(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let len = self.0.iter().position(|byte| !wanted(*byte)).unwrap_or(self.0.len());
        let (run, rest) = self.0.split_at(len);
        self.0 = rest;
        run
    }

    /// Section 4.2.5. Borrowed unless something is escaped, which in keys is rare.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.expect(b'"')?;
        let plain = self.run(is_unescaped);
        let mut unescaped = Cow::Borrowed(std::str::from_utf8(plain).ok()?);
        loop {
            match self.next()? {
                b'"' => return Some(unescaped),
                b'\\' => match self.next()? {
                    escaped @ (b'"' | b'\\') => unescaped.to_mut().push(char::from(escaped)),
                    _ => return None,
                },
                byte if is_unescaped(byte) => unescaped.to_mut().push(char::from(byte)),
                _ => return None,
            }
        }
    }

    /// Section 4.2.3.2.
    fn parameters(&mut self) -> Option<()> {
        while self.peek() == Some(b';') {
            self.next();
            self.run(|byte| byte == b' ');
            let first = self.next()?;
            if !(first.is_ascii_lowercase() || first == b'*') {
                return None;
            }
            self.run(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
            });
            if self.peek() == Some(b'=') {
                self.next();
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// Section 4.2.3.1, for its end only.
    fn bare_item(&mut self) -> Option<()> {
        match self.peek()? {
            b'-' | b'0'..=b'9' => self.number().map(drop),
            b'"' => self.string().map(drop),
            b'A'..=b'Z' | b'a'..=b'z' | b'*' => {
                self.run(|byte| is_token(byte) || b":/".contains(&byte));
                Some(())
            }
            b':' => self.byte_sequence(),
            b'?' => {
                self.next();
                matches!(self.next()?, b'0' | b'1').then_some(())
            }
            b'@' => {
                self.next();
                match self.number()? {
                    Number::Integer => Some(()),
                    Number::Decimal => None,
                }
            }
            b'%' => self.display_string(),
            _ => None,
        }
    }

    /// Section 4.2.4: at most 15 digits, or 12 before the point and 1 to 3 behind it.
    fn number(&mut self) -> Option<Number> {
        if self.peek() == Some(b'-') {
            self.next();
        }
        let whole = self.run(|byte| byte.is_ascii_digit()).len();
        if self.peek() != Some(b'.') {
            return (1..=15).contains(&whole).then_some(Number::Integer);
        }
        self.next();
        let fraction = self.run(|byte| byte.is_ascii_digit()).len();
        ((1..=12).contains(&whole) && (1..=3).contains(&fraction)).then_some(Number::Decimal)
    }

    /// Section 4.2.7: Base64 between colons.
    fn byte_sequence(&mut self) -> Option<()> {
        self.next();
        let encoded = self.run(|byte| byte != b':');
        self.expect(b':')?;
        is_base64(encoded).then_some(())
    }

    /// Section 4.2.10: percent-encoded UTF-8 between quotes, with lower-case digits.
    fn display_string(&mut self) -> Option<()> {
        self.next();
        self.expect(b'"')?;
        let mut bytes = Vec::new();
        loop {
            match self.next()? {
                b'"' => return std::str::from_utf8(&bytes).ok().map(drop),
                b'%' => {
                    let (high, low) = (lower_hex(self.next()?)?, lower_hex(self.next()?)?);
                    bytes.push(high << 4 | low);
                }
                byte @ 0x20..=0x7e => bytes.push(byte),
                _ => return None,
            }
        }
    }
}

enum Number {
    Integer,
    Decimal,
}

pub(crate) fn trim_spaces(mut bytes: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = bytes {
        bytes = rest;
    }
    bytes
}

fn is_unescaped(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && byte != b'"' && byte != b'\\'
}

/// A `tchar` of RFC 9110.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn lower_hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// Base64 whose padding may be left out, or a part of it, and whose unused bits need not be zero.
fn is_base64(encoded: &[u8]) -> bool {
    let unpadded = encoded.len() - encoded.iter().rev().take_while(|byte| **byte == b'=').count();
    let (digits, padding) = encoded.split_at(unpadded);
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    let missing = match digits.len() % 4 {
        0 => 0,
        1 => return false,
        rest => 4 - rest,
    };
    digits.iter().all(alphabet) && padding.len() <= missing
}
