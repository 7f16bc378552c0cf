//! What an error of the driver or the server means for a caller of a store.

use std::error::Error;
use std::fmt;

use oncekey::store::{ErrorKind, StoreError};
use redis::RedisError;

use crate::layout::Unreadable;
use crate::link::Failed;

const DAMAGED: &str = "the value is no record: it was damaged, or is somebody else's; find out what the \
                       operation did, then evict the key";
const NEWER: &str = "the record has a format version that this build does not know; upgrade oncekey here \
                     before the service that wrote it";
const NO_ANSWER: &str = "the server gave an answer that this build does not know; it needs Redis 7 or \
                         newer, or Valkey";
pub(crate) const DENIED: &str = "the server denies it; the user needs SET, GET, PEXPIRETIME, TIME, EVAL, EVALSHA, INFO and SCAN, on keys \
     that begin with the prefix, and PUBLISH and SUBSCRIBE on `<prefix>ended`";
const LOST: &str = "the answer did not come";
const FEW: &str = "the server has it, and too few replicas said in time that they have it, too";

/// What has to be known of a command to name the kind of its failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Purpose {
    operation: &'static str,
    /// What a lack of room means for it.
    no_room: ErrorKind,
    writes: bool,
}

impl Purpose {
    pub(crate) const fn write(operation: &'static str) -> Self {
        Self { operation, no_room: ErrorKind::Unavailable, writes: true }
    }

    /// A command that makes a key known.
    pub(crate) const fn new_key(operation: &'static str) -> Self {
        Self { no_room: ErrorKind::Full, ..Self::write(operation) }
    }

    /// A command that carries content, without which it would need little room.
    pub(crate) const fn content(operation: &'static str) -> Self {
        Self { no_room: ErrorKind::TooLarge, ..Self::write(operation) }
    }

    /// A command that decides nothing: what became of it does not matter.
    pub(crate) const fn read(operation: &'static str) -> Self {
        Self { writes: false, ..Self::write(operation) }
    }

    pub(crate) fn error(self, kind: ErrorKind, message: &'static str) -> StoreError {
        StoreError::new(kind, self.operation).with_message(message)
    }

    pub(crate) fn unreadable(self, why: Unreadable) -> StoreError {
        let message = match why {
            Unreadable::Newer => NEWER,
            Unreadable::Damaged => DAMAGED,
        };
        self.error(ErrorKind::Corrupt, message)
    }

    /// The error of an answer that no script of this build gives. What the call did is not known.
    pub(crate) fn no_answer(self) -> StoreError {
        let kind = if self.writes { ErrorKind::OutcomeUnknown } else { ErrorKind::Misconfigured };
        self.error(kind, NO_ANSWER)
    }

    pub(crate) fn no_room(self) -> StoreError {
        self.error(self.no_room, NO_ROOM)
    }

    /// The error of a command that failed. If the connection `resends`, any refusal may be that of a second
    /// copy, after the first was carried out.
    pub(crate) fn failed(self, failed: Failed, resends: bool) -> StoreError {
        let error = match failed {
            Failed::Command(error) => error,
            Failed::TooFewReplicas => return self.error(ErrorKind::OutcomeUnknown, FEW),
        };
        let (kind, message) = self.explain(&error);
        let kind = match kind {
            // Speaks of what is there, whichever copy met it.
            ErrorKind::Corrupt => kind,
            _ if resends && self.writes => ErrorKind::OutcomeUnknown,
            _ => kind,
        };
        self.error(kind, message).with_source(Cause::of(error))
    }

    fn explain(self, error: &RedisError) -> (ErrorKind, &'static str) {
        let unanswered = |read| if self.writes { ErrorKind::OutcomeUnknown } else { read };
        if error.is_connection_refusal() {
            return (
                ErrorKind::Unavailable,
                "there is no connection to the server; check that it runs and is reachable",
            );
        }
        if error.is_timeout() {
            return (
                unanswered(ErrorKind::Timeout),
                "the answer did not come within the response timeout of the connection",
            );
        }
        if error.is_io_error() {
            return (unanswered(ErrorKind::Unavailable), LOST);
        }
        match error.kind() {
            redis::ErrorKind::AuthenticationFailed | redis::ErrorKind::InvalidClientConfig => {
                return (
                    ErrorKind::Misconfigured,
                    "the connection cannot be set up; check the address, the user and the password",
                );
            }
            redis::ErrorKind::MasterNameNotFoundBySentinel
            | redis::ErrorKind::NoValidReplicasFoundBySentinel
            | redis::ErrorKind::ClusterConnectionNotFound => {
                return (ErrorKind::Unavailable, "no node that takes the command was found");
            }
            redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => {
                return (unanswered(ErrorKind::Unavailable), LOST);
            }
            _ => {}
        }
        self.refused(error)
    }

    fn refused(self, error: &RedisError) -> (ErrorKind, &'static str) {
        match error.code().unwrap_or_default() {
            "OOM" => (self.no_room, NO_ROOM),
            "WRONGTYPE" => (ErrorKind::Corrupt, DAMAGED),
            "NOPERM" | "NOAUTH" | "WRONGPASS" | "DENIED" => (ErrorKind::Misconfigured, DENIED),
            _ if is_denied_in_script(error) => (ErrorKind::Misconfigured, DENIED),
            "CROSSSLOT" => {
                (ErrorKind::Misconfigured, "the connection sent the command to the wrong slot")
            }
            "READONLY" => (
                ErrorKind::Unavailable,
                "the server is a replica; connect to the primary, through Sentinel or Cluster if it moves",
            ),
            "NOREPLICAS" => (
                ErrorKind::Unavailable,
                "the server has too few replicas for its `min-replicas-to-write`",
            ),
            "MISCONF" => (
                ErrorKind::Unavailable,
                "the server cannot save its data and takes no writes; see its log",
            ),
            "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK" | "BUSY" => {
                (ErrorKind::Unavailable, "the server is not ready to serve the key")
            }
            "UNBLOCKED" => (ErrorKind::OutcomeUnknown, FEW),
            _ if is_unknown_command(error) => (
                ErrorKind::Misconfigured,
                "the server does not know a command; it needs Redis 7 or newer, or Valkey",
            ),
            _ => (ErrorKind::Unavailable, "the server refused the command"),
        }
    }
}

const NO_ROOM: &str = "the server is at its `maxmemory`; give it more, or remove other data";

/// Whether the server has no room for what the command writes.
pub(crate) fn is_full(failed: &Failed) -> bool {
    matches!(failed, Failed::Command(error) if error.code() == Some("OOM"))
}

/// Whether the server does not know the command in this form.
pub(crate) fn is_unknown(failed: &Failed) -> bool {
    matches!(failed, Failed::Command(error) if is_unknown_command(error))
}

fn is_denied_in_script(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| {
        // Redis 7.0, and later.
        ["The user executing the script can't", "ACL failure in script"]
            .iter()
            .any(|text| detail.contains(text))
    })
}

fn is_unknown_command(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| {
        ["unknown command", "Unknown Redis command", "syntax error", "wrong number of arguments"]
            .iter()
            .any(|text| detail.contains(text))
    })
}

/// The cause of an error, without what the server may have quoted of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cause(String);

impl Cause {
    fn of(error: RedisError) -> Self {
        Self(match error.code() {
            Some(code) => format!("the server answered {code}"),
            None if error.is_io_error() => error.to_string(),
            None => error.category().to_owned(),
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Cause {}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn kind(purpose: Purpose, error: RedisError, resends: bool) -> ErrorKind {
        purpose.failed(Failed::Command(error), resends).kind()
    }

    fn answered(code: &str) -> RedisError {
        redis::make_extension_error(code.to_owned(), Some("about key-7".to_owned()))
    }

    #[test]
    fn a_kind_says_what_was_applied_and_what_helps() {
        for (code, expected) in [
            ("OOM", ErrorKind::Unavailable),
            ("WRONGTYPE", ErrorKind::Corrupt),
            ("NOPERM", ErrorKind::Misconfigured),
            ("READONLY", ErrorKind::Unavailable),
            ("NOREPLICAS", ErrorKind::Unavailable),
            ("CLUSTERDOWN", ErrorKind::Unavailable),
            ("UNBLOCKED", ErrorKind::OutcomeUnknown),
            ("STRANGE", ErrorKind::Unavailable),
        ] {
            assert_eq!(kind(Purpose::write("renew"), answered(code), false), expected, "{code}");
        }
        assert_eq!(kind(Purpose::new_key("claim"), answered("OOM"), false), ErrorKind::Full);
        let content = Purpose::content("complete");
        assert_eq!(kind(content, answered("OOM"), false), ErrorKind::TooLarge);
    }

    #[test]
    fn what_may_have_been_sent_is_unknown() {
        let io = |kind: io::ErrorKind| RedisError::from(io::Error::from(kind));
        let (write, read) = (Purpose::write("claim"), Purpose::read("get"));
        for lost in [io::ErrorKind::BrokenPipe, io::ErrorKind::TimedOut] {
            assert_eq!(kind(write, io(lost), false), ErrorKind::OutcomeUnknown);
        }
        assert_eq!(kind(read, io(io::ErrorKind::TimedOut), false), ErrorKind::Timeout);
        assert_eq!(kind(read, io(io::ErrorKind::BrokenPipe), false), ErrorKind::Unavailable);
        let refused = io::ErrorKind::ConnectionRefused;
        assert_eq!(kind(write, io(refused), false), ErrorKind::Unavailable);
    }

    /// A connection that sends again may have been refused the second time only. What is there is what it
    /// is, though.
    #[test]
    fn a_refusal_after_a_resend_is_unknown() {
        for code in ["READONLY", "OOM", "NOPERM", "CROSSSLOT", "NOREPLICAS", "STRANGE"] {
            for purpose in
                [Purpose::write("renew"), Purpose::new_key("claim"), Purpose::content("complete")]
            {
                let sure = purpose.failed(Failed::Command(answered(code)), false);
                let unsure = purpose.failed(Failed::Command(answered(code)), true);
                assert_eq!(unsure.kind(), ErrorKind::OutcomeUnknown, "{code}");
                assert_ne!(sure.kind(), ErrorKind::OutcomeUnknown, "{code}");
                let advice = purpose.explain(&answered(code)).1;
                assert!(unsure.to_string().contains(advice), "{unsure}");
            }
            let read = kind(Purpose::read("get"), answered(code), true);
            assert_ne!(read, ErrorKind::OutcomeUnknown, "{code}");
        }
        let foreign = kind(Purpose::write("claim"), answered("WRONGTYPE"), true);
        assert_eq!(foreign, ErrorKind::Corrupt);
    }

    #[test]
    fn an_error_quotes_nothing() {
        let error = Purpose::write("claim").failed(Failed::Command(answered("OOM")), false);
        let cause = error.source().unwrap().to_string();
        assert_eq!(cause, "the server answered OOM");
        assert!(!format!("{error:?} {error}").contains("key-7"));
    }
}
