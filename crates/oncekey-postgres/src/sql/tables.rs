//! [`Tables`]: where the records are, and the texts of all statements on them.

use std::borrow::Cow;

use oncekey::store::{ErrorKind, StoreError};
use sha2::{Digest, Sha256};

use super::schema::VERSION;

/// The greatest lengths of names. Postgres has 63 for all; those of functions are made of the table's.
const MAX_SCHEMA_LEN: usize = 63;
const MAX_TABLE_LEN: usize = 40;

/// Whether the statement is in the transaction that was marked before: without one, the mark is gone.
const MARKED: &str = "current_setting('oncekey.transaction', true) = 'marked'";

/// A schema and a table, both checked, and the statements on them.
#[derive(Debug, Clone)]
pub struct Tables {
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) claim: String,
    pub(super) claim_in: String,
    pub(super) claims: String,
    pub(super) renew: String,
    pub(super) complete: String,
    pub(super) completions: String,
    pub(super) complete_in: String,
    pub(super) complete_here: String,
    pub(super) abandon: String,
    pub(super) settle: String,
    pub(super) evict: String,
    pub(super) get: String,
    pub(super) purge: String,
    pub(super) list: String,
    pub(super) watch: String,
    pub(super) unwatch: String,
}

impl Tables {
    /// The schema unless told otherwise.
    pub const DEFAULT_SCHEMA: &str = "public";
    /// The table unless told otherwise.
    pub const DEFAULT_TABLE: &str = "oncekey";

    /// # Errors
    /// [`Misconfigured`](ErrorKind::Misconfigured): a schema is 1 to 63 ASCII letters, digits and
    /// underscores, a table 1 to 40 of them in lower case, neither with a digit first.
    pub fn new(schema: &str, table: &str) -> Result<Self, StoreError> {
        if !is_plain(schema, MAX_SCHEMA_LEN) {
            return Err(unusable("schema", "1 to 63 letters, digits and underscores"));
        }
        if !is_plain(table, MAX_TABLE_LEN) || table.contains(|c: char| c.is_ascii_uppercase()) {
            return Err(unusable("table", "1 to 40 lower-case letters, digits and underscores"));
        }
        let function = |name: &str| format!("\"{schema}\".{table}_v{VERSION}_{name}");
        let call = |name: &str, count: usize| {
            let places: Vec<_> = (1..=count).map(|n| format!("${n}")).collect();
            format!("{}({})", function(name), places.join(", "))
        };
        let micros = function("micros");
        let record = format!(
            "t.format::bigint, t.status, t.fingerprint_algorithm::bigint, t.fingerprint, t.attempt, \
             t.token, t.number, {micros}(t.deadline), {micros}(t.retained_until), \
             {micros}(t.forget_at), t.previous_cause, t.previous_token, t.progress_sequence, t.digest"
        );
        Ok(Self {
            claim: format!("SELECT * FROM {}", call("claim", 10)),
            claim_in: format!("SELECT * FROM {} WHERE {MARKED}", call("claim", 10)),
            claims: format!("SELECT * FROM {}", call("claims", 9)),
            renew: format!("SELECT {}", call("renew", 8)),
            complete: format!("SELECT {}", call("complete", 10)),
            completions: format!("SELECT * FROM {}", call("completions", 7)),
            // No row, and nothing done, if the transaction is another than that of the claim.
            complete_in: format!(
                "SELECT f.outcome FROM {} AS f(outcome) WHERE pg_current_xact_id()::text = $11",
                call("complete", 10)
            ),
            complete_here: format!(
                "SELECT f.outcome FROM {} AS f(outcome) WHERE {MARKED}",
                call("complete", 10)
            ),
            abandon: format!("SELECT {}", call("abandon", 7)),
            settle: format!("SELECT {}", call("settle", 10)),
            evict: format!("SELECT {}", call("evict", 6)),
            get: format!(
                "SELECT {record}, t.progress, t.value, {micros}(clock_timestamp()) \
                 FROM \"{schema}\".\"{table}\" AS t WHERE t.key = $1"
            ),
            purge: format!("SELECT * FROM {}", call("purge", 1)),
            // Every row is looked at and counts, but only what is wanted is sent as a whole.
            list: format!(
                "SELECT {record}, CASE WHEN t.state = ANY (wanted) THEN t.progress END, \
                 CASE WHEN t.state = ANY (wanted) THEN t.value END, {micros}(moment.now), t.key, \
                 t.state \
                 FROM (SELECT clock_timestamp() AS now, string_to_array($3, ',') AS wanted OFFSET 0) \
                   AS moment, \
                 LATERAL (SELECT p.*, {}(p, moment.now) AS state \
                   FROM \"{schema}\".\"{table}\" AS p WHERE p.key > $1 ORDER BY p.key LIMIT $2) AS t \
                 ORDER BY t.key",
                function("state")
            ),
            watch: format!("SELECT {}", call("watch", 1)),
            // What failed may still be about to let the row go.
            unwatch: format!(
                "WITH patience AS MATERIALIZED (SELECT \
                   set_config('lock_timeout', coalesce($2, current_setting('lock_timeout')), true)) \
                 UPDATE \"{schema}\".\"{table}\" AS t SET watched_until = NULL FROM patience \
                 WHERE t.key = $1"
            ),
            schema: schema.to_owned(),
            table: table.to_owned(),
        })
    }

    /// The name of the schema.
    #[must_use]
    pub fn schema(&self) -> &str {
        &self.schema
    }

    /// The name of the table in it.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The channel on which the end of a watched attempt is notified. Listeners of one database hear each
    /// other's channels only if they ask for them.
    #[must_use]
    pub fn channel(&self) -> String {
        let mut name = Sha256::new();
        name.update(&self.schema);
        name.update(".");
        name.update(&self.table);
        format!("oncekey_{}", first_bytes_as_hex(&name.finalize()))
    }

    /// What is notified on the [`channel`](Self::channel) about a key. It does not tell the key.
    #[must_use]
    pub fn payload(key: &oncekey::Key) -> String {
        first_bytes_as_hex(&Sha256::digest(key.as_bytes()))
    }
}

fn first_bytes_as_hex(digest: &[u8]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_plain(name: &str, max_len: usize) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && name.len() <= max_len
}

fn unusable(what: &str, allowed: &str) -> StoreError {
    misconfigured(
        "set up the store",
        format!("the name of the {what} is not usable; take {allowed}, the first no digit"),
    )
}

pub(crate) fn misconfigured(
    operation: &'static str,
    message: impl Into<Cow<'static, str>>,
) -> StoreError {
    StoreError::new(ErrorKind::Misconfigured, operation).with_message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_plain_word_is_refused() {
        for name in ["", "1st", "a-b", "a b", "a\"b", "a;b", "a.b", "é", &"x".repeat(64)] {
            for refused in [Tables::new(name, "oncekey"), Tables::new("public", name)] {
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::Misconfigured, "{name}");
            }
        }
        assert!(Tables::new("public", "Keys").is_err());
        for (schema, table) in [("Billing", "order"), ("_x", "_y2"), ("public", &"x".repeat(40))] {
            assert!(Tables::new(schema, table).is_ok(), "{schema}.{table}");
        }
    }

    #[test]
    fn tables_have_channels_of_their_own() {
        let channel = |schema, table| Tables::new(schema, table).unwrap().channel();
        assert_eq!(channel("public", "oncekey"), channel("public", "oncekey"));
        assert_ne!(channel("public", "oncekey"), channel("public", "oncekey2"));
        assert_ne!(channel("a", "oncekey"), channel("b", "oncekey"));
        assert!(channel(&"x".repeat(63), "oncekey").len() <= 63);
    }
}
