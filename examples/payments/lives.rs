//! The lives of a service that is killed in the middle of its work, and started again each time.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use crate::journal::{Entry, Journal};
use crate::pace::Pace;

/// Names the folder of the play to the process that is one of its lives.
pub(crate) const FOLDER: &str = "PAYMENTS_FOLDER";

/// A service that is killed more often than this makes no progress.
const MAX_LIVES: usize = 100;

/// A folder of the play's own, removed with all that is in it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("payments-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is the system's to clean up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Where the play writes down what outlives a life.
pub(crate) fn journal_in(folder: &Path) -> PathBuf {
    folder.join("journal.jsonl")
}

/// Runs `life` again and again, until one of them ends by itself.
pub(crate) fn live_and_live_again(
    folder: &Path,
    pace: Pace,
    life: impl Fn() -> std::io::Result<Command>,
) -> Result<ExitStatus, Box<dyn Error>> {
    for _ in 0..MAX_LIVES {
        let status = life()?.env(FOLDER, folder).status()?;
        if !was_killed(status) {
            return Ok(status);
        }
        eprintln!("the service was killed in mid-charge; it is started again");
        Journal::open(&journal_in(folder), pace)?.write(Entry::Killed);
    }
    Err(format!("the service was killed {MAX_LIVES} times; a larger --kill-every helps").into())
}

#[cfg(unix)]
fn was_killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status).is_some()
}

#[cfg(not(unix))]
fn was_killed(status: ExitStatus) -> bool {
    // What `abort` leaves behind.
    !matches!(status.code(), Some(0..=2))
}
