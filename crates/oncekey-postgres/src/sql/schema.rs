//! The schema: its DDL, its version, and what the check at start compares.

use std::fmt::Write as _;

use oncekey::store::{ErrorKind, StoreError};
use sha2::{Digest, Sha256};

use super::fault::NO_WRITES;
use super::tables::{Tables, misconfigured};

/// The version of the schema that this build reads and writes, and the only one so far.
pub const VERSION: i32 = 1;

const VERSION_1: &str = concat!(
    include_str!("version_1/tables.sql"),
    include_str!("version_1/claim.sql"),
    include_str!("version_1/owner.sql"),
    include_str!("version_1/operator.sql"),
    include_str!("version_1/batches.sql"),
);

const CHECK: &str = "check the schema";

/// What an UNLOGGED table has not: a crash empties it, and every key would be granted again.
const LOGGED: &str = "rows that outlive a crash";

/// Name, type and whether it may be null, of each column of the records' table.
const COLUMNS: [(&str, &str, bool); 19] = [
    ("key", "bytea", false),
    ("format", "smallint", false),
    ("status", "text", false),
    ("fingerprint_algorithm", "smallint", false),
    ("fingerprint", "bytea", false),
    ("attempt", "bytea", false),
    ("token", "bigint", false),
    ("number", "bigint", false),
    ("deadline", "timestamp with time zone", true),
    ("retained_until", "timestamp with time zone", true),
    ("forget_at", "timestamp with time zone", false),
    ("previous_cause", "text", true),
    ("previous_token", "bigint", true),
    ("progress_sequence", "bigint", true),
    ("progress", "bytea", true),
    ("digest", "bytea", true),
    ("value", "bytea", true),
    ("sweep_at", "timestamp with time zone", false),
    ("watched_until", "timestamp with time zone", true),
];

/// What is found where the schema should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "these are all the cases there are")]
pub enum Finding {
    /// Neither of its tables is there.
    Nothing,
    /// A table has its name, and it is not one of ours.
    Foreign,
    /// It is there, with this version.
    Version(i32),
}

impl Tables {
    /// The statements that make the schema, as one script without a transaction of its own.
    #[must_use]
    pub fn ddl(&self) -> String {
        let mut ddl = String::new();
        if self.schema != Self::DEFAULT_SCHEMA {
            let _ = writeln!(ddl, "CREATE SCHEMA IF NOT EXISTS \"{}\";\n", self.schema);
        }
        ddl.push_str(&self.fill_in(VERSION_1));
        ddl
    }

    /// The same for a schema that is there: to make one needs a right on the whole database.
    #[must_use]
    pub fn ddl_within_schema(&self) -> String {
        self.fill_in(VERSION_1)
    }

    fn fill_in(&self, template: &str) -> String {
        let Self { schema, table, .. } = self;
        template
            .replace("{table_meta}", &format!("\"{schema}\".{table}_meta"))
            .replace("{table}", &format!("\"{schema}\".\"{table}\""))
            .replace("{name}", table)
            .replace("{fn}", &format!("\"{schema}\".{table}_v1"))
            .replace("{channel}", &self.channel())
    }

    /// Whether the schema, the table, the table with the version and its column are there, as `t` and
    /// `f`: for [`found`](Self::found). Takes no parameters.
    #[must_use]
    pub fn probe(&self) -> String {
        let Self { schema, table, .. } = self;
        format!(
            "SELECT concat_ws(' ', \
               EXISTS (SELECT FROM pg_namespace WHERE nspname = '{schema}'), \
               to_regclass('\"{schema}\".\"{table}\"') IS NOT NULL, \
               to_regclass('\"{schema}\".{table}_meta') IS NOT NULL, \
               EXISTS (SELECT FROM pg_attribute WHERE attname = 'version' AND NOT attisdropped \
                 AND attrelid = to_regclass('\"{schema}\".{table}_meta')))"
        )
    }

    /// What the [`probe`](Self::probe) found; `None` if the [`version`](Self::version) is to be read.
    #[must_use]
    pub fn found(probed: &str) -> Option<Finding> {
        match probed.split_once(' ').map_or("", |(_, tables)| tables) {
            "f f f" => Some(Finding::Nothing),
            "t t t" => None,
            _ => Some(Finding::Foreign),
        }
    }

    /// Whether the [`probe`](Self::probe) found the schema that the tables belong in.
    #[must_use]
    pub fn has_schema(probed: &str) -> bool {
        probed.starts_with('t')
    }

    /// Reads the version as text. Takes no parameters.
    #[must_use]
    pub fn version(&self) -> String {
        format!("SELECT max(version)::text FROM \"{}\".{}_meta", self.schema, self.table)
    }

    /// Reads the properties that matter as text, a line each, for [`compare`](Self::compare). Takes no
    /// parameters.
    #[must_use]
    pub fn shape(&self) -> String {
        let Self { schema, table, .. } = self;
        let functions = format!("{table}_v{VERSION}_").replace('_', "\\_") + "%";
        format!(
            "SELECT string_agg(line, chr(10) ORDER BY line) FROM ( \
               SELECT 'the column ' || attname || ' ' || format_type(atttypid, atttypmod) || \
                 CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END AS line \
               FROM pg_attribute WHERE attrelid = to_regclass('\"{schema}\".\"{table}\"') \
                 AND attnum > 0 AND NOT attisdropped \
               UNION ALL \
               SELECT 'an index ' || CASE WHEN indisunique THEN 'UNIQUE ' ELSE '' END || 'on (' || \
                 (SELECT string_agg(a.attname, ', ' ORDER BY k.ord) \
                  FROM unnest(i.indkey) WITH ORDINALITY AS k(attnum, ord) \
                  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) || ')' \
               FROM pg_index i WHERE indrelid = to_regclass('\"{schema}\".\"{table}\"') \
                 AND indisvalid AND indimmediate AND indpred IS NULL AND indexprs IS NULL \
               UNION ALL \
               SELECT '{LOGGED}' FROM pg_class \
               WHERE oid = to_regclass('\"{schema}\".\"{table}\"') AND relpersistence = 'p' \
               UNION ALL \
               SELECT 'the function ' || proname || ' ' || \
                 encode(sha256(convert_to(btrim(regexp_replace(prosrc, '\\s+', ' ', 'g')), 'UTF8')), 'hex') \
               FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
               WHERE nspname = '{schema}' AND proname LIKE '{functions}' \
               UNION ALL \
               SELECT 'the right to ' || name FROM unnest(ARRAY['SELECT','INSERT','UPDATE','DELETE']) AS name \
               WHERE has_table_privilege(to_regclass('\"{schema}\".\"{table}\"'), name) \
               UNION ALL \
               SELECT 'the right to EXECUTE' FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
               WHERE nspname = '{schema}' AND proname LIKE '{functions}' \
               HAVING bool_and(has_function_privilege(p.oid, 'EXECUTE')) \
               UNION ALL \
               SELECT 'writes' \
               WHERE NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off' \
               UNION ALL \
               SELECT 'a server of version 14 or newer' \
               WHERE current_setting('server_version_num')::int >= 140000 \
             ) AS lines"
        )
    }

    /// Compares a [`shape`](Self::shape) with what the DDL makes: whoever runs it by other means may have
    /// left something out, and a key that is not unique would be granted twice.
    ///
    /// # Errors
    /// [`Misconfigured`](ErrorKind::Misconfigured), naming the first thing that lacks;
    /// [`Unavailable`](ErrorKind::Unavailable) if the server takes no writes.
    pub fn compare(&self, shape: &str) -> Result<(), StoreError> {
        let Self { schema, table, .. } = self;
        let has = |line: &str| shape.lines().any(|have| have == line);
        let mut missing = None;
        for (name, kind, nullable) in COLUMNS {
            let line =
                format!("the column {name} {kind}{}", if nullable { "" } else { " NOT NULL" });
            if !has(&line) {
                missing.get_or_insert(line);
            }
        }
        for line in ["an index UNIQUE on (key)", "an index on (sweep_at)", LOGGED] {
            if !has(line) {
                missing.get_or_insert(line.to_owned());
            }
        }
        for (name, body) in self.functions() {
            let digest: String =
                Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect();
            if !has(&format!("the function {name} {digest}")) {
                missing.get_or_insert(format!("the function {name}, as this build makes it"));
            }
        }
        if !has("a server of version 14 or newer") {
            missing = Some("a server of version 14 or newer".to_owned());
        }
        let right = ["SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE"]
            .into_iter()
            .find(|name| !has(&format!("the right to {name}")));
        match (missing, right) {
            (None, None) if !has("writes") => {
                Err(StoreError::new(ErrorKind::Unavailable, CHECK).with_message(NO_WRITES))
            }
            (None, None) => Ok(()),
            (None, Some(name)) => Err(misconfigured(
                CHECK,
                format!(
                    "this role lacks the right to {name} on {schema}.{table} or its functions; grant it \
                     EXECUTE on the functions, and SELECT, INSERT, UPDATE and DELETE on the tables"
                ),
            )),
            (Some(missing), _) => Err(misconfigured(
                CHECK,
                format!(
                    "the table {schema}.{table} is not as `ddl` makes it, it lacks: {missing}; run what \
                     `ddl` prints in a new schema to compare"
                ),
            )),
        }
    }

    /// Each function's name and body, white space made equal.
    fn functions(&self) -> Vec<(String, String)> {
        let ddl = self.fill_in(VERSION_1);
        let prefix = format!("CREATE FUNCTION \"{}\".", self.schema);
        ddl.split(&prefix)
            .skip(1)
            .filter_map(|function| {
                let name = function.split('(').next()?;
                let body = function.split("$$").nth(1)?;
                let words: Vec<_> = body.split_ascii_whitespace().collect();
                Some((name.to_owned(), words.join(" ")))
            })
            .collect()
    }

    /// What to say of a schema that is not the one of this build.
    ///
    /// # Errors
    /// [`Misconfigured`](oncekey::store::ErrorKind::Misconfigured) for everything but this version.
    pub fn expect_version(&self, finding: Finding) -> Result<(), StoreError> {
        let Self { schema, table, .. } = self;
        Err(misconfigured(
            CHECK,
            match finding {
                Finding::Version(VERSION) => return Ok(()),
                Finding::Nothing => format!(
                    "there is no table {schema}.{table}; call `migrate`, or run what `ddl` prints"
                ),
                Finding::Foreign => format!(
                    "the database has something else named {table} or {table}_meta in {schema}; \
                     choose another name with `table` or `schema`"
                ),
                Finding::Version(found) => format!(
                    "the table {schema}.{table} has schema version {found}, and this build uses \
                     {VERSION}; {}",
                    if found > VERSION {
                        "upgrade oncekey-postgres here"
                    } else {
                        "call `migrate`"
                    }
                ),
            },
        ))
    }
}
