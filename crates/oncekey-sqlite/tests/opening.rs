//! Opening: what is made, what is checked, and what each refusal says.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::fs;

use oncekey::store::{ErrorKind, StoreError};
use oncekey_sqlite::{SqliteStore, Synchronous, rusqlite};
use rusqlite::Connection;

use common::{Database, acquire, complete, get, key, number, replay};

#[track_caller]
fn refused(result: Result<SqliteStore, StoreError>, kind: ErrorKind, parts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

#[test]
fn a_new_file_gets_the_tables_and_the_log() {
    let database = Database::new();
    let store = database.open();
    let grant = acquire(&store, &key("a"), 1);
    let _ = complete(&store, &key("a"), grant, "result");
    let connection = database.connect();
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal");
    let sql = "SELECT count(*) FROM oncekey WHERE status = 'completed' AND value = x'726573756c74'";
    assert_eq!(number(&connection, sql), 1, "an operator can read the record");
}

#[test]
fn the_writer_waits_for_the_disk_unless_told_otherwise() {
    for (synchronous, level) in [(None, 2), (Some(Synchronous::Normal), 1)] {
        let database = Database::new();
        let mut builder = database.builder().on_connect(|connection| {
            // What the store needs is set after this, and wins.
            connection.pragma_update(None, "synchronous", 0)
        });
        if let Some(synchronous) = synchronous {
            builder = builder.synchronous(synchronous);
        }
        let store = builder.open().unwrap();
        let idempotency = oncekey::Idempotency::at_least_once(store.clone());
        let (key, fingerprint) = (key("a"), common::fingerprint());
        let run = store.run_in_transaction(&idempotency, &key, &fingerprint, |tx| {
            tx.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))
        });
        assert_eq!(*common::wait(run).unwrap().value(), level);
    }
}

/// A stray write of the process could reach what is mapped.
#[test]
fn the_file_is_not_mapped() {
    let database = Database::new();
    let builder = database
        .builder()
        .on_connect(|connection| connection.pragma_update(None, "mmap_size", 1 << 20));
    let store = builder.open().unwrap();
    let idempotency = oncekey::Idempotency::at_least_once(store.clone());
    let (key, fingerprint) = (key("a"), common::fingerprint());
    let run = store.run_in_transaction(&idempotency, &key, &fingerprint, |tx| {
        tx.query_row("PRAGMA mmap_size", [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(*common::wait(run).unwrap().value(), 0);
}

#[test]
fn the_file_is_not_mapped_into_memory() {
    let database = Database::new();
    let builder = database.builder().on_connect(|connection| {
        // What the store needs is set after this, and wins.
        connection.pragma_update(None, "mmap_size", 1 << 20)
    });
    let store = builder.open().unwrap();
    let idempotency = oncekey::Idempotency::at_least_once(store.clone());
    let (key, fingerprint) = (key("a"), common::fingerprint());
    let run = store.run_in_transaction(&idempotency, &key, &fingerprint, |tx| {
        tx.query_row("PRAGMA mmap_size", [], |row| row.get::<_, i64>(0))
    });
    assert_eq!(*common::wait(run).unwrap().value(), 0);
}

#[test]
fn a_missing_folder_is_named() {
    let database = Database::new();
    let path = database.folder.path().join("missing").join("db.sqlite3");
    refused(
        SqliteStore::open(path),
        ErrorKind::Misconfigured,
        &["does not exist", "make it first"],
    );
    refused(SqliteStore::open(database.folder.path()), ErrorKind::Misconfigured, &["is a folder"]);
}

#[test]
fn a_file_that_must_be_there_is_missed() {
    let database = Database::new();
    let open = || database.builder().migrate_on_open(false).open();
    refused(open(), ErrorKind::Misconfigured, &["there is no file", "`migrate`"]);
    assert!(!database.path().exists());
    drop(database.connect().execute_batch("CREATE TABLE other (x)"));
    refused(open(), ErrorKind::Misconfigured, &["no table `oncekey`", "`migrate`", "`ddl`"]);
    database.builder().migrate().unwrap();
    database.builder().migrate().unwrap();
    assert!(open().is_ok());
}

#[test]
fn no_file_at_all_is_no_place_for_it() {
    refused(SqliteStore::open(":memory:"), ErrorKind::Misconfigured, &["`memory`", "WAL"]);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let database = Database::new();
    let text = "not a database, and longer than a header of one hundred bytes. ".repeat(99);
    fs::write(database.path(), &text).unwrap();
    refused(SqliteStore::open(database.path()), ErrorKind::Corrupt, &["no SQLite database"]);
    assert_eq!(fs::read_to_string(database.path()).unwrap(), text);
}

#[test]
fn something_else_of_that_name_is_refused() {
    for other in [
        "CREATE TABLE oncekey (id INTEGER PRIMARY KEY, name TEXT)",
        "CREATE TABLE t (x); CREATE VIEW OnceKey AS SELECT * FROM t",
        "CREATE TABLE oncekey_meta (name TEXT, value TEXT)",
        "CREATE TABLE oncekey (x); CREATE TABLE oncekey_meta (y)",
        "CREATE TABLE oncekey (x); CREATE TABLE oncekey_meta (name TEXT, value TEXT)",
    ] {
        let database = Database::new();
        database.connect().execute_batch(other).unwrap();
        let parts = ["something else named `oncekey`", "`table`"];
        refused(SqliteStore::open(database.path()), ErrorKind::Misconfigured, &parts);
        assert!(database.builder().table("keys").open().is_ok());
    }
}

#[test]
fn another_version_of_the_tables_is_refused() {
    let database = Database::new();
    drop(database.open());
    let sql = "UPDATE oncekey_meta SET value = 2 WHERE name = 'schema_version'";
    database.connect().execute_batch(sql).unwrap();
    let parts = ["version 2", "uses 1", "upgrade oncekey-sqlite"];
    refused(SqliteStore::open(database.path()), ErrorKind::Misconfigured, &parts);
    let error = database.builder().migrate().unwrap_err();
    assert!(error.to_string().contains("version 2"), "{error}");
}

#[test]
fn what_ddl_prints_is_what_open_makes() {
    let (printed, made) = (Database::new(), Database::new());
    let ddl = printed.builder().table("order").ddl().unwrap();
    printed.connect().execute_batch(&ddl).unwrap();
    let open = printed.builder().table("order").migrate_on_open(false).open().unwrap();
    let grant = acquire(&open, &key("a"), 1);
    let _ = complete(&open, &key("a"), grant, "result");
    assert_eq!(replay(&open, &key("a")), "result");

    drop(made.builder().table("order").open().unwrap());
    let schema = |connection: Connection| -> Vec<(String, Option<String>)> {
        let sql = "SELECT name, sql FROM sqlite_schema ORDER BY name";
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    assert_eq!(schema(printed.connect()), schema(made.connect()));
}

#[test]
fn a_table_that_lacks_something_is_refused() {
    let ddl = SqliteStore::builder("x").ddl().unwrap();
    for (from, to, lack) in [
        ("key BLOB NOT NULL UNIQUE", "key BLOB NOT NULL", "index on oncekey (key) UNIQUE"),
        ("value BLOB\n", "value TEXT\n", "column oncekey.value BLOB"),
        (") STRICT;\nCREATE INDEX", ");\nCREATE INDEX", "table oncekey STRICT"),
        ("ON \"oncekey\" (forget_at)", "ON \"oncekey\" (token)", "index on oncekey (forget_at)"),
        (",\n    ('token_floor', 0)", "", "token_floor"),
    ] {
        let changed = ddl.replace(from, to);
        assert_ne!(ddl, changed, "{from}");
        let database = Database::new();
        database.connect().execute_batch(&changed).unwrap();
        refused(SqliteStore::open(database.path()), ErrorKind::Misconfigured, &["lacks", lack]);
    }
}

#[test]
fn a_name_that_is_no_plain_word_reaches_no_statement() {
    let database = Database::new();
    for name in ["", "a b", "x; DROP TABLE y", "\"", "sqlite_x"] {
        let open = database.builder().table(name).open();
        refused(open, ErrorKind::Misconfigured, &["name of the table"]);
        assert!(database.builder().table(name).ddl().is_err());
    }
    assert!(!database.path().exists());
}

#[test]
fn two_tables_in_one_file_have_keys_of_their_own() {
    let database = Database::new();
    let first = database.open();
    let second = database.builder().table("second").open().unwrap();
    let _ = acquire(&first, &key("a"), 1);
    assert!(get(&second, &key("a")).is_none());
    let _ = acquire(&second, &key("a"), 2);
}

#[test]
fn many_may_open_a_new_file_at_once() {
    let database = Database::new();
    std::thread::scope(|scope| {
        for attempt in 0..8 {
            let database = &database;
            scope.spawn(move || {
                let store = database.open();
                let _ = acquire(&store, &key(format!("{attempt}")), attempt);
            });
        }
    });
    assert_eq!(number(&database.connect(), "SELECT count(*) FROM oncekey"), 8);
}
