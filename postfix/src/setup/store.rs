//! EDGE: the folder of the record: one process at a time, and a file that is whole or the old one.
//!
//! Owns [`Store`]. Refuses to know what is in a record. A record that cannot be read or written is an error before
//! anything is changed.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::record::Record;

const FILE: &str = "record.json";
/// Most bytes of a record.
const MOST: u64 = 16 << 20;

/// The folder, locked for as long as this lives.
pub(crate) struct Store {
    folder: PathBuf,
    /// The lock is on the folder itself, so that nothing is left behind of it.
    lock: File,
}

/// Why there is no store.
#[derive(Debug)]
pub(crate) enum Refused {
    /// Another process has it.
    Busy,
    Io(String),
}

/// The record, read without a lock: what a look needs.
pub(crate) fn peek(folder: &Path) -> Result<Record, String> {
    let path = folder.join(FILE);
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(MOST).read_to_string(&mut text));
    match read {
        Ok(_) => Record::parse(&text).map_err(|why| format!("{}: {why}", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

impl Store {
    pub(crate) fn open(folder: &Path) -> Result<Self, Refused> {
        let failed = |error: io::Error| Refused::Io(format!("{}: {error}", folder.display()));
        loop {
            match fs::create_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
                _ => {}
            }
            let lock = File::open(folder).map_err(failed)?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Refused::Busy),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Whoever had it before may have removed the folder that we opened.
            let ours = lock.metadata().map_err(failed)?;
            let there = fs::metadata(folder);
            if there.is_ok_and(|there| there.ino() == ours.ino() && there.dev() == ours.dev()) {
                return Ok(Self { folder: folder.to_owned(), lock });
            }
        }
    }

    pub(crate) fn load(&self) -> Result<Record, String> {
        peek(&self.folder)
    }

    /// Writes the record so that it outlives a power cut; an empty one leaves no file.
    pub(crate) fn save(&self, record: &Record) -> Result<(), String> {
        let path = self.folder.join(FILE);
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        if record.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = record.render()?;
        let new = self.folder.join("record.new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            self.lock.sync_all()
        });
        written.map_err(|error| {
            let _ = fs::remove_file(&new);
            failed(error)
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Only an empty folder goes.
        let _ = fs::remove_dir(&self.folder);
    }
}
