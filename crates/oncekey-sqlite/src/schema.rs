//! The tables: their DDL, their version, and the check of both when a store opens.

use std::fmt::Write as _;
use std::time::Duration;

use oncekey::store::{ErrorKind, StoreError};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, TransactionBehavior, params};

use crate::busy;
use crate::columns;
use crate::error::{Purpose, misconfigured};

/// The version of the tables that this build reads and writes, and the only one so far.
pub(crate) const VERSION: i64 = 1;

const CHECK: Purpose = Purpose::new("check the schema");
const MIGRATE: Purpose = Purpose::new("migrate the schema");

/// The name of the table, checked, and the statements on it.
#[derive(Debug, Clone)]
pub(crate) struct Schema {
    table: String,
    pub(crate) select: String,
    pub(crate) insert: String,
    pub(crate) update: String,
    pub(crate) delete: String,
    pub(crate) page: String,
    pub(crate) due: String,
    pub(crate) read_meta: String,
    pub(crate) set_floor: String,
    /// Takes the write lock and changes nothing.
    pub(crate) lock: String,
}

/// The names of the rows of the second table.
pub(crate) const SCHEMA_VERSION: &str = "schema_version";
pub(crate) const TOKEN_FLOOR: &str = "token_floor";

impl Schema {
    /// # Errors
    /// `Misconfigured` when `table` is no plain name.
    pub(crate) fn new(table: &str) -> Result<Self, StoreError> {
        let mut chars = table.chars();
        let plain = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
            && table.len() <= 50
            && !table.to_ascii_lowercase().starts_with("sqlite_");
        if !plain {
            return Err(misconfigured(
                "set up the store",
                "the name of the table is not usable; take 1 to 50 letters, digits and underscores, \
                 not a digit first, and not `sqlite_` first",
            ));
        }
        let names = columns::NAMES.join(", ");
        let count = columns::NAMES.len();
        let places: Vec<_> = (2..2 + count).map(|n| format!("?{n}")).collect();
        let sets: Vec<_> = columns::NAMES
            .iter()
            .zip(&places)
            .map(|(name, place)| format!("{name} = {place}"))
            .collect();
        Ok(Self {
            table: table.to_owned(),
            select: format!("SELECT {names} FROM main.\"{table}\" WHERE key = ?1"),
            insert: format!(
                "INSERT INTO main.\"{table}\" (key, {names}) VALUES (?1, {})",
                places.join(", ")
            ),
            update: format!("UPDATE main.\"{table}\" SET {} WHERE key = ?1", sets.join(", ")),
            delete: format!("DELETE FROM main.\"{table}\" WHERE key = ?1"),
            page: format!(
                "SELECT key, {names} FROM main.\"{table}\" WHERE key > ?1 ORDER BY key LIMIT ?2"
            ),
            due: format!(
                "SELECT id, forget_at, key, {names} FROM main.\"{table}\" \
                 WHERE forget_at <= ?1 AND (forget_at, id) > (?2, ?3) \
                 ORDER BY forget_at, id LIMIT ?4"
            ),
            read_meta: format!("SELECT value FROM main.\"{table}_meta\" WHERE name = ?1"),
            set_floor: format!(
                "UPDATE main.\"{table}_meta\" SET value = ?1 WHERE name = '{TOKEN_FLOOR}'"
            ),
            lock: format!("UPDATE main.\"{table}_meta\" SET value = value WHERE 0"),
        })
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// What makes the tables.
    pub(crate) fn ddl(&self) -> String {
        let table = &self.table;
        format!(
            "CREATE TABLE \"{table}\" (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    format INTEGER NOT NULL,
    status TEXT NOT NULL,
    fingerprint_algorithm INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,
    attempt BLOB NOT NULL,
    token INTEGER NOT NULL,
    number INTEGER NOT NULL,
    deadline INTEGER,
    retained_until INTEGER,
    forget_at INTEGER NOT NULL,
    previous_cause TEXT,
    previous_token INTEGER,
    progress_sequence INTEGER,
    progress BLOB,
    digest BLOB,
    checksum BLOB NOT NULL,
    value BLOB
) STRICT;
CREATE INDEX \"{table}_forget_at\" ON \"{table}\" (forget_at);
CREATE TABLE \"{table}_meta\" (
    name TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO \"{table}_meta\" (name, value) VALUES
    ('{SCHEMA_VERSION}', {VERSION}),
    ('{TOKEN_FLOOR}', 0);
"
        )
    }

    /// Makes the tables, or brings them to this build's version.
    pub(crate) fn migrate(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let failed = |error| MIGRATE.failed(error);
        let transaction =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        match self.found(&transaction)? {
            Found::Nothing => transaction.execute_batch(&self.ddl()).map_err(failed)?,
            Found::Foreign => return Err(self.foreign()),
            Found::Version(VERSION) => {}
            Found::Version(other) => return Err(self.other_version(other)),
        }
        transaction.commit().map_err(failed)
    }

    /// Refuses what is not the tables of this build.
    pub(crate) fn check(&self, connection: &Connection) -> Result<(), StoreError> {
        let table = &self.table;
        match self.found(connection)? {
            Found::Nothing => Err(misconfigured(
                CHECK.operation,
                format!(
                    "there is no table `{table}`; call `migrate` on the builder, or run what `ddl` \
                     prints"
                ),
            )),
            Found::Foreign => Err(self.foreign()),
            Found::Version(VERSION) => self.check_shape(connection),
            Found::Version(other) => Err(self.other_version(other)),
        }
    }

    /// Refuses a file that may only be read: SQLite opens it all the same, and says so at the first write.
    pub(crate) fn check_writable(&self, connection: &Connection) -> Result<(), StoreError> {
        busy::allow(Duration::ZERO);
        match connection.execute(&self.lock, []) {
            Ok(_) => Ok(()),
            // Somebody writes it, so it can be written.
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) => Ok(()),
            Err(error) => Err(CHECK.failed(error)),
        }
    }

    /// The version that the tables on `connection` have. Cheap enough for every transaction.
    pub(crate) fn check_version(&self, connection: &Connection) -> Result<(), StoreError> {
        match self.meta(connection, SCHEMA_VERSION) {
            Ok(Some(VERSION)) => Ok(()),
            Ok(other) => Err(self.other_version(other.unwrap_or(0))),
            Err(error) => Err(CHECK.failed(error)),
        }
    }

    pub(crate) fn meta(
        &self,
        connection: &Connection,
        name: &str,
    ) -> rusqlite::Result<Option<i64>> {
        connection.prepare_cached(&self.read_meta)?.query_row([name], |row| row.get(0)).optional()
    }

    fn found(&self, connection: &Connection) -> Result<Found, StoreError> {
        let failed = |error| CHECK.failed(error);
        let exists = |name: &str| {
            let sql = "SELECT count(*) FROM main.sqlite_schema WHERE lower(name) = lower(?1)";
            let count: rusqlite::Result<i64> = connection.query_row(sql, [name], |row| row.get(0));
            count.map(|count| count > 0)
        };
        let table = exists(&self.table).map_err(failed)?;
        let meta = exists(&format!("{}_meta", self.table)).map_err(failed)?;
        Ok(match (table, meta) {
            (false, false) => {
                let index = exists(&format!("{}_forget_at", self.table)).map_err(failed)?;
                if index { Found::Foreign } else { Found::Nothing }
            }
            (true, true) => match self.meta(connection, SCHEMA_VERSION) {
                Ok(Some(version)) => Found::Version(version),
                // A table of other columns, or a view.
                Ok(None) => Found::Foreign,
                Err(error) if CHECK.failed_kind(&error) == ErrorKind::Misconfigured => {
                    Found::Foreign
                }
                Err(error) => return Err(failed(error)),
            },
            _ => Found::Foreign,
        })
    }

    /// Compares the tables with what [`ddl`](Self::ddl) makes: whoever runs it by other means may have
    /// left something out, and a key that is not unique would be granted twice.
    fn check_shape(&self, connection: &Connection) -> Result<(), StoreError> {
        let wanted = Connection::open_in_memory()
            .and_then(|scratch| {
                scratch.execute_batch(&self.ddl())?;
                self.shape(&scratch)
            })
            .map_err(|error| CHECK.failed(error))?;
        let actual = self.shape(connection).map_err(|error| CHECK.failed(error))?;
        if let Some(missing) = wanted.iter().find(|item| !actual.contains(item)) {
            return Err(misconfigured(
                CHECK.operation,
                format!(
                    "the table `{}` is not as `ddl` makes it, it lacks: {missing}; run what `ddl` \
                     prints in a new database to compare",
                    self.table
                ),
            ));
        }
        if self.meta(connection, TOKEN_FLOOR).ok().flatten().is_none() {
            return Err(self.without_floor(CHECK.operation));
        }
        Ok(())
    }

    /// Each property of the tables that matters, as a line.
    fn shape(&self, connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let mut shape = Vec::new();
        for table in [self.table.clone(), format!("{}_meta", self.table)] {
            let sql = "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1, 'main')";
            let mut statement = connection.prepare(sql)?;
            let mut rows = statement.query(params![table])?;
            while let Some(row) = rows.next()? {
                let (name, kind): (String, String) = (row.get(0)?, row.get(1)?);
                let (not_null, primary): (bool, bool) = (row.get(2)?, row.get(3)?);
                let mut line = format!("column {table}.{name} {kind}");
                for (is, word) in [(not_null, " NOT NULL"), (primary, " PRIMARY KEY")] {
                    if is {
                        line.push_str(word);
                    }
                }
                shape.push(line);
            }
            let sql = "SELECT strict FROM pragma_table_list(?1) WHERE schema = 'main'";
            let strict: Option<bool> =
                connection.query_row(sql, params![table], |row| row.get(0)).optional()?;
            if strict == Some(true) {
                shape.push(format!("table {table} STRICT"));
            }
        }
        // The parts that make an index usable for the queries here, whatever its name.
        let sql = "SELECT list.\"unique\", list.partial, \
                     (SELECT group_concat(name) FROM pragma_index_info(list.name, 'main')) \
                   FROM pragma_index_list(?1, 'main') AS list";
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([&self.table])?;
        while let Some(row) = rows.next()? {
            let (unique, partial): (bool, bool) = (row.get(0)?, row.get(1)?);
            let columns: Option<String> = row.get(2)?;
            if !partial {
                let mut line = format!("index on {} (", self.table);
                let _ = write!(line, "{})", columns.unwrap_or_default());
                if unique {
                    line.push_str(" UNIQUE");
                }
                shape.push(line);
            }
        }
        Ok(shape)
    }

    pub(crate) fn without_floor(&self, operation: &'static str) -> StoreError {
        let table = &self.table;
        let message = format!(
            "the table `{table}_meta` lacks the row `{TOKEN_FLOOR}`; insert it as `ddl` does"
        );
        misconfigured(operation, message)
    }

    fn foreign(&self) -> StoreError {
        let table = &self.table;
        misconfigured(
            CHECK.operation,
            format!(
                "the database has something else named `{table}`, `{table}_meta` or \
                 `{table}_forget_at`; choose another name with `table`"
            ),
        )
    }

    fn other_version(&self, found: i64) -> StoreError {
        let table = &self.table;
        let advice = if found > VERSION {
            "upgrade oncekey-sqlite here"
        } else {
            "call `migrate` on the builder"
        };
        misconfigured(
            CHECK.operation,
            format!(
                "the table `{table}` has schema version {found}, and this build uses {VERSION}; \
                 {advice}"
            ),
        )
    }
}

enum Found {
    Nothing,
    Foreign,
    Version(i64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_no_plain_word_is_refused() {
        for name in ["", "1st", "a-b", "a b", "a\"b", "a;b", "sqlite_x", "SQLite_x", "é"] {
            let error = Schema::new(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{name}");
        }
        assert!(Schema::new(&"x".repeat(51)).is_err());
        for name in ["oncekey", "_x", "Keys2"] {
            assert!(Schema::new(name).is_ok(), "{name}");
        }
    }
}
