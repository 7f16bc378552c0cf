//! Files and folders that this user may not write: a real user, and real permissions.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::env;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use oncekey_sqlite::SqliteStore;

use common::Database;

const PATH: &str = "ONCEKEY_TEST_PERMISSIONS";
const ROOT: u32 = 0;
const NOBODY: u32 = 65_534;

fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// In a process of its own, which is nobody's if this one may do everything.
#[test]
fn opens_as_told() {
    let Ok(path) = env::var(PATH) else { return };
    match SqliteStore::open(&path) {
        Ok(_) => println!("\n@opened"),
        Err(error) => println!("\n@{:?}: {error}", error.kind()),
    }
}

/// What a user without rights is told who opens it.
fn told(program: &Path, path: &Path) -> String {
    let mut command = Command::new(program);
    command.args(["opens_as_told", "--exact", "--nocapture"]).env(PATH, path);
    if fs::metadata("/proc/self").unwrap().uid() == ROOT {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let line = output.lines().find_map(|line| line.strip_prefix('@'));
    line.unwrap_or_else(|| panic!("it said nothing: {output}")).to_owned()
}

#[test]
fn what_may_not_be_written_is_refused_and_named() {
    let folder = tempfile::tempdir().unwrap();
    permit(folder.path(), 0o755);
    // Where this program is, others may not be allowed to look.
    let program = folder.path().join("program");
    fs::copy(env::current_exe().unwrap(), &program).unwrap();
    permit(&program, 0o755);

    for (file, within, parts) in [
        (0o666, 0o777, &["opened"][..]),
        (0o444, 0o777, &["Misconfigured", "read-only", "let this process write"]),
        (0o444, 0o555, &["Misconfigured", "read-only", "let this process write"]),
        (0o666, 0o555, &["Misconfigured", "read-only", "and its folder"]),
        (0o000, 0o777, &["Unavailable", "cannot be opened", "may write there"]),
    ] {
        let database = Database::new();
        // Its one connection takes away what it made beside the file, and would be this user's.
        database.builder().migrate().unwrap();
        permit(&database.path(), file);
        permit(database.folder.path(), within);
        let told = told(&program, &database.path());
        permit(database.folder.path(), 0o755);
        for part in parts {
            assert!(told.contains(part), "{file:o} in {within:o}: {told:?} lacks {part:?}");
        }
    }
    let database = Database::new();
    permit(database.folder.path(), 0o555);
    let told = told(&program, &database.path());
    permit(database.folder.path(), 0o755);
    assert!(told.contains("may write there"), "{told}");
}
