//! What others did to the file, the path or the connection: refused and named, and never a grant too many.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use oncekey::store::{ErrorKind, Evict, Expected, Fenced, State, Store, StoreError};
use oncekey_sqlite::{SqliteStore, rusqlite};

use common::{Database, acquire, claim, completion, get, key, number, replay, try_complete, wait};

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, kind: ErrorKind, parts: &[&str]) {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

/// SQLite says that all went well, and wrote nothing.
#[test]
fn a_trigger_that_swallows_rows_grants_nothing() {
    let database = Database::new();
    let store = database.open();
    let grant = acquire(&store, &key("known"), 1);
    for event in ["INSERT", "UPDATE", "DELETE"] {
        let sql = format!(
            "CREATE TRIGGER swallow_{event} BEFORE {event} ON oncekey BEGIN SELECT RAISE(IGNORE); END"
        );
        database.connect().execute_batch(&sql).unwrap();
    }
    let parts = ["trigger", "drop it"];
    for attempt in 2..4 {
        let claimed = wait(store.claim(&key("new"), &claim(attempt)));
        refused(claimed, ErrorKind::Misconfigured, &parts);
        assert!(get(&store, &key("new")).is_none());
    }
    let completed = try_complete(&store, &key("known"), grant, completion("result"));
    refused(completed, ErrorKind::Misconfigured, &parts);
    assert_eq!(get(&store, &key("known")).unwrap().state, State::Live);
    let evict = Evict { expected: Expected::Any, force: true };
    refused(wait(store.evict(&key("known"), &evict)), ErrorKind::Misconfigured, &parts);
    database.connect().execute_batch("DROP TRIGGER swallow_UPDATE").unwrap();
    assert_eq!(
        try_complete(&store, &key("known"), grant, completion("result")).unwrap(),
        Fenced::Applied
    );
    assert_eq!(replay(&store, &key("known")), "result");
}

/// Without it, tokens would go back with the clock.
#[test]
fn a_floor_that_vanished_is_missed() {
    let database = Database::new();
    let store = database.open();
    database
        .connect()
        .execute_batch("DELETE FROM oncekey_meta WHERE name = 'token_floor'")
        .unwrap();
    refused(wait(store.claim(&key("a"), &claim(1))), ErrorKind::Misconfigured, &["token_floor"]);
    assert!(get(&store, &key("a")).is_none());
}

#[test]
fn a_floor_that_is_no_token_is_refused() {
    for floor in ["-1", "9007199254740992", "9223372036854775807"] {
        let database = Database::new();
        let store = database.open();
        let sql = format!("UPDATE oncekey_meta SET value = {floor} WHERE name = 'token_floor'");
        database.connect().execute_batch(&sql).unwrap();
        let claimed = wait(store.claim(&key("a"), &claim(1)));
        refused(claimed, ErrorKind::Corrupt, &["token_floor"]);
        assert!(get(&store, &key("a")).is_none(), "{floor}");
    }
}

/// SQLite would take its parameters from it: no locks, another file, nothing on the disk.
#[test]
fn a_uri_is_no_path() {
    let database = Database::new();
    let path = database.path();
    for uri in [
        format!("file:{}", path.display()),
        format!("file:{}?nolock=1", path.display()),
        format!("FILE:{}", path.display()),
    ] {
        let open = SqliteStore::builder(&uri).open();
        if uri.starts_with("file:") {
            refused(open, ErrorKind::Misconfigured, &["URI", "path"]);
            refused(SqliteStore::builder(&uri).migrate(), ErrorKind::Misconfigured, &["URI"]);
        } else {
            refused(open, ErrorKind::Misconfigured, &["does not exist"]);
        }
    }
    assert!(!path.exists());
}

#[test]
fn a_path_that_is_none_is_named() {
    let database = Database::new();
    let path = database.folder.path().join("a\0b");
    refused(SqliteStore::open(path), ErrorKind::Misconfigured, &["path"]);
}

#[test]
fn a_setup_that_fails_is_named() {
    let database = Database::new();
    let builder = database.builder().on_connect(|_| Err(rusqlite::Error::InvalidQuery));
    refused(builder.open(), ErrorKind::Misconfigured, &["on_connect"]);
    let builder = database.builder().on_connect(|connection| connection.execute_batch("nonsense"));
    refused(builder.open(), ErrorKind::Misconfigured, &["on_connect"]);
}

/// Be it that it can be undone, or not.
#[test]
fn a_setup_that_locks_everybody_out_is_undone_or_refused() {
    let database = Database::new();
    let exclusive = |connection: &mut rusqlite::Connection| {
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")
    };
    let store = database.builder().on_connect(exclusive).open().unwrap();
    let _ = acquire(&store, &key("a"), 1);
    let _ = acquire(&database.open(), &key("b"), 2);
    assert_eq!(number(&database.connect(), "SELECT count(*) FROM oncekey"), 2);

    let database = Database::new();
    let in_wal = |connection: &mut rusqlite::Connection| {
        connection.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; CREATE TABLE other (x)",
        )
    };
    let open = database.builder().on_connect(in_wal).open();
    refused(open, ErrorKind::Misconfigured, &["on_connect", "`exclusive`"]);
}

#[test]
fn a_name_that_the_index_needs_may_be_taken() {
    let database = Database::new();
    database.connect().execute_batch("CREATE TABLE oncekey_forget_at (x)").unwrap();
    let parts = ["something else named", "`oncekey_forget_at`", "`table`"];
    refused(SqliteStore::open(database.path()), ErrorKind::Misconfigured, &parts);
    assert!(database.builder().table("keys").open().is_ok());
}

/// Whoever opens the file anew sees nothing of what is written to the one that has no name any more.
#[cfg(unix)]
#[test]
fn a_file_that_was_removed_or_replaced_grants_nothing() {
    use oncekey::RunError;

    let (key, claim) = (key("a"), claim(1));
    for replaced in [false, true] {
        let database = Database::new();
        let old = database.open();
        let idempotency = oncekey::Idempotency::at_most_once(old.clone());
        for file in ["db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm"] {
            std::fs::remove_file(database.folder.path().join(file)).unwrap();
        }
        let new = replaced.then(|| database.open());
        refused(
            wait(old.claim(&key, &claim)),
            ErrorKind::Misconfigured,
            &["moved", "open the store again"],
        );
        let fingerprint = common::fingerprint();
        let run = old.run_in_transaction(&idempotency, &key, &fingerprint, |_| Ok::<_, ()>(7));
        let Err(RunError::Store(error)) = wait(run) else { panic!("it must not run") };
        refused::<()>(Err(error), ErrorKind::Misconfigured, &["moved"]);
        if let Some(new) = new {
            let _ = acquire(&new, &key, 2);
        }
    }
}

/// A path that is relative is that of the time of opening.
#[cfg(unix)]
#[test]
fn a_working_directory_that_changes_moves_nothing() {
    let database = Database::new();
    let here = std::env::current_dir().unwrap();
    std::env::set_current_dir(database.folder.path()).unwrap();
    let store = SqliteStore::open("db.sqlite3").unwrap();
    std::env::set_current_dir(here).unwrap();
    let _ = acquire(&store, &key("a"), 1);
}
