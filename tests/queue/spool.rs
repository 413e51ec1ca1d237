//! Spools that no Postfix has made: what a scan makes of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use postfix::report::Trouble;

use super::{look, report};
use crate::scratch::Folder;

/// A configuration directory and folders like those of a spool, in one folder.
pub(crate) struct Spool(Folder);

impl Spool {
    pub(crate) fn new(test: &str) -> Self {
        let folder = Folder::new(test);
        for queue in ["incoming", "active", "deferred", "hold", "maildrop", "corrupt"] {
            fs::create_dir_all(folder.path().join("queue").join(queue)).unwrap();
        }
        fs::create_dir_all(folder.path().join("etc")).unwrap();
        let main =
            format!("compatibility_level = 3.6\nqueue_directory = {}/queue\n", folder.path().display());
        fs::write(folder.path().join("etc/main.cf"), main).unwrap();
        fs::write(folder.path().join("etc/master.cf"), "smtp inet n - n - 7 smtpd\n").unwrap();
        Self(folder)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.path().join("etc")
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn queue(&self, name: &str) -> PathBuf {
        self.0.path().join("queue").join(name)
    }

    /// Messages that came so many seconds ago.
    pub(crate) fn add(&self, queue: &str, count: u64, age: i64) {
        for inode in 0..count {
            fs::write(self.queue(queue).join(long_id(age, inode)), "").unwrap();
        }
    }
}

/// The name of a message that came so many seconds ago, of a made-up inode.
pub(crate) fn long_id(age: i64, inode: u64) -> String {
    #[expect(clippy::disallowed_methods, reason = "queue ids are made of the wall clock")]
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seconds = now.as_secs().saturating_add_signed(-age);
    let digits = |mut number: u64, base: u64, width: usize| {
        let mut text = Vec::new();
        while number > 0 || text.len() < width {
            let digit = usize::try_from(number % base).unwrap();
            text.push(b"0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"[digit]);
            number /= base;
        }
        text.reverse();
        String::from_utf8(text).unwrap()
    };
    format!("{}{}z{}", digits(seconds, 52, 6), digits(0, 52, 4), digits(inode + 1, 51, 1))
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn what_is_no_message_is_counted_apart_and_never_followed() {
    let spool = Spool::new("odd-names");
    spool.add("active", 2, 100);
    let active = spool.queue("active");
    let elsewhere = spool.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    for inode in 0..50 {
        fs::write(elsewhere.join(long_id(5000, inode)), "").unwrap();
    }
    symlink("/etc/passwd", active.join(long_id(9000, 1))).unwrap(); // a queue id, but a link
    symlink(&elsewhere, active.join("A")).unwrap(); // a hash folder, but a link
    symlink(&active, spool.queue("deferred").join("0")).unwrap(); // a loop
    fs::create_dir(active.join("folder")).unwrap();
    for name in ["core", "1795397243.4711", ".hidden", "a b", "\u{1b}[2J"] {
        fs::write(active.join(name), "").unwrap();
    }
    let found = look(&spool.config(), &[]);
    assert_eq!((found.active, found.deferred, found.other), (Some(2), Some(0), Some(9)));
    assert!((100..110).contains(&found.oldest.unwrap()), "{found:?}");
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn hashed_queues_are_counted_at_any_depth_that_postfix_has() {
    let spool = Spool::new("hashed");
    for (depth, below) in ["", "A", "A/B", "A/B/C"].iter().enumerate() {
        let folder = spool.queue("deferred").join(below);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(long_id(60 * (i64::try_from(depth).unwrap() + 1), 1)), "").unwrap();
    }
    fs::create_dir_all(spool.queue("deferred").join("A/B/C/D/E")).unwrap();
    let found = look(&spool.config(), &[]);
    assert_eq!((found.deferred, found.other), (Some(4), Some(1)));
    assert!((240..250).contains(&found.oldest_deferred.unwrap()), "{found:?}");
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn dates_that_make_no_sense_are_no_ages() {
    let spool = Spool::new("dates");
    spool.add("deferred", 3, 50);
    spool.add("deferred", 1, -3600); // from the future
    fs::write(spool.queue("deferred").join("0000010000z1"), "").unwrap(); // from 1970
    spool.add("active", 1, -100_000_000);
    let found = look(&spool.config(), &[]);
    assert_eq!((found.deferred, found.active, found.ages_exact), (Some(5), Some(1), Some(false)));
    assert!((50..60).contains(&found.oldest_deferred.unwrap()), "{found:?}");
    assert_eq!(found.oldest, None, "nothing is known, which is not 0");
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn what_is_no_spool_is_no_empty_queue() {
    let spool = Spool::new("no-spool");
    fs::remove_dir(spool.queue("deferred")).unwrap();
    let found = look(&spool.config(), &["--source", "scan"]);
    assert_eq!((found.trouble, found.active), (Some(Trouble::NoSpool), None));
    assert_eq!(report(&spool.config(), &[]).status.code(), Some(69));
    symlink(spool.folder(), spool.queue("deferred")).unwrap();
    assert_eq!(look(&spool.config(), &[]).trouble, Some(Trouble::NoSpool));
    // A configuration that is none.
    let output = report(&spool.folder().join("nowhere"), &[]);
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("postconf fails"), "{output:?}");
}

#[test]
#[ignore = "needs root and Postfix: tests/run"]
fn files_that_vanish_meanwhile_are_normal() {
    let spool = Spool::new("vanish");
    spool.add("incoming", 500, 100); // old enough to be asked
    let going = AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while going.load(Ordering::Relaxed) {
                spool.add("incoming", 200, 200);
                for inode in 0..200 {
                    // A name holds the second in which it was made: some are not there any more.
                    let name = long_id(200, inode);
                    let _ =
                        fs::rename(spool.queue("incoming").join(&name), spool.queue("active").join(&name));
                    let _ = fs::remove_file(spool.queue("active").join(&name));
                }
            }
        });
        for _ in 0..40 {
            let found = look(&spool.config(), &["--source", "scan"]);
            assert_eq!(found.trouble, None);
            assert!(found.incoming.unwrap() >= 500);
        }
        going.store(false, Ordering::Relaxed);
    });
}
