//! A folder for the files of one test.

use std::fs;
use std::path::{Path, PathBuf};

/// A directory of one test, removed with it.
pub(crate) struct Folder(PathBuf);

#[expect(clippy::unwrap_used, reason = "support of tests; without a file there is no test")]
impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("smtp-director-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join("smtp-director.toml");
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
