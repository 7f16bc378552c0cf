//! Whether the file that is open is still the one at its path.
//!
//! A file that was removed, moved or replaced can be written as long as it is open, and SQLite does so in WAL
//! mode. But whoever opens the path then sees nothing of it, and would be granted the same keys.

use std::path::{Path, PathBuf};

use rusqlite::{Error, ffi};

/// The file at a path, as it was when it was opened.
#[derive(Debug)]
pub(crate) struct OpenFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl OpenFile {
    pub(crate) fn of(path: &Path) -> Self {
        // The working directory may change.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let inode = inode_at(&path).ok();
        Self { path, inode }
    }

    /// Fails if the path is known to have another file now, or none.
    pub(crate) fn check(&self) -> rusqlite::Result<()> {
        let Some(inode) = self.inode else { return Ok(()) };
        let moved = match inode_at(&self.path) {
            Ok(now) => now != inode,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if moved {
            return Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_READONLY_DBMOVED), None));
        }
        Ok(())
    }
}

/// What tells the file at `path` from others, as SQLite tells them.
#[cfg(unix)]
fn inode_at(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map(|metadata| metadata.ino())
}

/// Elsewhere, a file that is open stays where it is.
#[cfg(not(unix))]
fn inode_at(_path: &Path) -> std::io::Result<u64> {
    Ok(0)
}
