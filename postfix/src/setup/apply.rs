//! EDGE: makes changes, reads each back, and takes all back when one fails; undoes them.
//!
//! Owns the order of record and change: nothing is changed before the record of it is on the disk. Refuses to decide
//! what is to be done. A process that is killed half-way leaves a record from which `up` goes on and `down` goes back.

use std::fs::{self, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::change::{Change, Undo, dotted, shown};
use super::command::run;
use super::look::{SETTINGS, look, setting};
use super::mail::ConfFile;
use super::mail::edit::{again, postconf, read, replace, revert, runs};
use super::plan::Step;
use super::record::Record;
use super::store::Store;
use super::wish::Wish;

/// Why nothing is done, or nothing is left of what was.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) what: String,
    /// It is a matter of rights.
    pub(crate) denied: bool,
    /// What could not be taken back, and stays in the record.
    pub(crate) left: Vec<String>,
}

impl Failure {
    fn new(what: String) -> Self {
        Self { what, denied: false, left: Vec::new() }
    }
}

/// Tells what is done, a line each.
pub(crate) type Tell<'a> = &'a mut dyn FnMut(&str);

/// Makes the steps that are missing.
pub(crate) fn up(store: &Store, wish: &Wish, steps: &[Step], tell: Tell<'_>) -> Result<(), Failure> {
    let missing: Vec<_> = steps.iter().filter(|step| !step.so).collect();
    for step in &missing {
        permitted(&step.change)?;
    }
    let before = store.load().map_err(Failure::new)?;
    let mut record = before.clone();
    record.begin(wish, steps);
    if record != before {
        store.save(&record).map_err(|why| Failure::new(format!("the record cannot be written: {why}")))?;
    }
    let mut made = Vec::new();
    for step in missing {
        made.push(&step.change);
        if let Err(mut failure) = make(&step.change, tell) {
            tell("taking back what was done");
            for change in made.iter().rev() {
                if let Err(why) = take_back(change, tell) {
                    failure.left.push(why);
                }
            }
            // The record of before, unless something of now is still there.
            if failure.left.is_empty()
                && let Err(why) = store.save(&before)
            {
                failure.left.push(why);
            }
            return Err(failure);
        }
    }
    Ok(())
}

/// Undoes what only these VIPs need. What cannot be undone stays in the record.
pub(crate) fn down(
    store: &Store,
    record: &mut Record,
    vips: &[IpAddr],
    tell: Tell<'_>,
) -> Result<(), Failure> {
    let mut left = Vec::new();
    for change in record.release(vips) {
        match take_back(&change, tell) {
            Ok(()) => record.forget(&change),
            Err(why) => left.push(why),
        }
    }
    store.save(record).map_err(|why| Failure::new(format!("the record cannot be written: {why}")))?;
    if left.is_empty() {
        Ok(())
    } else {
        Err(Failure { left, ..Failure::new("not all could be undone".to_owned()) })
    }
}

/// Whether a setting can be written, before anything is done: in many containers it cannot.
fn permitted(change: &Change) -> Result<(), Failure> {
    let Change::Setting { key, .. } = change else { return Ok(()) };
    let path = Path::new(SETTINGS).join(key);
    match OpenOptions::new().write(true).open(&path) {
        Ok(_) => Ok(()),
        // It comes with the module.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Failure {
            denied: true,
            ..Failure::new(format!(
                "{} cannot be set here ({error}). In a container, set it where the container is started",
                dotted(key)
            ))
        }),
    }
}

fn make(change: &Change, tell: Tell<'_>) -> Result<(), Failure> {
    let made = match change {
        Change::Setting { key, after, .. } => write_setting(key, after, tell),
        Change::Conf { .. } => write_conf(change, tell),
        other => other.commands().iter().try_for_each(|words| told(words, tell)),
    };
    made.map_err(|what| Failure { denied: what.contains("Operation not permitted"), ..Failure::new(what) })?;
    let so = match change {
        Change::Setting { key, after, .. } => setting(key).as_ref() == Some(after),
        Change::Conf { directory, file, after, .. } => {
            read(&directory.join(file.name())).map_err(Failure::new)? == *after
        }
        other => other.is_so(&look().map_err(Failure::new)?),
    };
    if so { Ok(()) } else { Err(Failure::new(format!("{} was done, and is not so", change.target()))) }
}

fn told(words: &[String], tell: Tell<'_>) -> Result<(), String> {
    tell(&shown(words));
    run(words).map(drop)
}

/// Puts in place what `postconf` made of a copy, and has a running Postfix follow: what is there then is what the record
/// says, so that it can be taken back.
fn write_conf(change: &Change, tell: Tell<'_>) -> Result<(), String> {
    let Change::Conf { directory, file, settings, before, after, restart } = change else { return Ok(()) };
    tell(&shown(&postconf(directory, *file, settings)));
    let path = directory.join(file.name());
    if read(&path)? != *before {
        return Err(format!("{} was changed by somebody in this moment", path.display()));
    }
    replace(&path, after)?;
    follow(directory, *restart, tell)
}

fn follow(directory: &Path, restart: bool, tell: Tell<'_>) -> Result<(), String> {
    if !runs(directory) {
        return Ok(());
    }
    again(directory, restart).iter().try_for_each(|words| told(words, tell))
}

/// Gives a file of Postfix back to the byte, unless somebody has changed it since.
fn give_conf_back(change: &Change, tell: Tell<'_>) -> Result<(), String> {
    let Change::Conf { directory, file, settings, before, after, restart } = change else { return Ok(()) };
    let path = directory.join(file.name());
    let now = match read(&path) {
        Ok(now) => now,
        // It went with its Postfix.
        Err(_) if !path.exists() => return Ok(()),
        Err(why) => return Err(why),
    };
    if now == *before {
        return Ok(());
    }
    if now != *after {
        tell(&format!("{} was changed by somebody since: only what is ours in it goes", path.display()));
        if *file == ConfFile::Master {
            tell(&format!("take out by hand: {}", settings.join("; ")));
            return Ok(());
        }
        revert(directory, settings, before)?.iter().try_for_each(|words| told(words, tell))?;
        return follow(directory, *restart, tell);
    }
    tell(&format!("# {} is given back as it was", path.display()));
    replace(&path, before)?;
    follow(directory, *restart, tell)
}

fn take_back(change: &Change, tell: Tell<'_>) -> Result<(), String> {
    if matches!(change, Change::Conf { .. }) {
        return give_conf_back(change, tell);
    }
    match change.undo(&look()?) {
        Undo::Nothing => Ok(()),
        Undo::Foreign(why) => {
            tell(&why);
            Ok(())
        }
        Undo::GiveBack => {
            match change {
                Change::Setting { key, before, .. } => write_setting(key, before, tell)?,
                other => {
                    for words in other.undo_commands() {
                        told(&words, tell)?;
                    }
                }
            }
            match change.undo(&look()?) {
                Undo::GiveBack => Err(format!("{} was undone, and is still so", change.target())),
                _ => Ok(()),
            }
        }
    }
}

fn write_setting(key: &str, value: &str, tell: Tell<'_>) -> Result<(), String> {
    tell(&format!("sysctl -w {}={value}", dotted(key)));
    fs::write(Path::new(SETTINGS).join(key), value).map_err(|error| format!("{}: {error}", dotted(key)))
}
