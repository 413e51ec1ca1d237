//! EDGE: writes and removes the files of `persist`, and looks for traces of managers.
//!
//! Owns the rule that a file of somebody else, or one of ours that was changed, is never touched: where there is one,
//! nothing is written at all. Refuses to know what is in a text but its mark.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::{ALL, Owner, Text, Traces, owner};

/// Most bytes of a file that may be ours.
const MOST: u64 = 1 << 20;

/// What the box has of managers.
pub(crate) fn traces(root: &Path) -> Traces {
    let there = |path: &str| below(root, path).exists();
    let netplan = fs::read_dir(below(root, "/etc/netplan")).is_ok_and(|entries| {
        // A file of ours is no sign of theirs.
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.ends_with(".yaml") && !name.contains("smtp-realserver")
        })
    });
    let interfaces = fs::read_to_string(below(root, "/etc/network/interfaces"));
    Traces {
        netplan,
        network_manager: there("/run/NetworkManager"),
        networkd: there("/run/systemd/netif/links"),
        interfaces: interfaces.is_ok(),
        interfaces_d: interfaces.is_ok_and(|text| {
            text.lines().any(|line| line.trim_start().starts_with("source") && line.contains("interfaces.d"))
        }),
    }
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Whose the file of a path is; `None` where there is none.
fn owner_of(path: &Path) -> Result<Option<(Owner, String)>, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text));
    match read {
        Ok(_) => Ok(Some((owner(&text), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // Not a text: not ours.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some((Owner::Other, text))),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// Writes all, or nothing. Files of ours that this manager does not need go. Returns what was done, a line each.
pub(crate) fn write(root: &Path, texts: &[Text]) -> Result<Vec<String>, String> {
    let mut done = Vec::new();
    let mut before = Vec::new();
    for path in ALL {
        let path = below(root, path);
        let found = owner_of(&path)?;
        let wanted = texts.iter().any(|text| below(root, &text.path) == path);
        match &found {
            Some((Owner::Other, _)) if wanted => {
                return Err(format!("{} is there and not ours: nothing is written", path.display()));
            }
            Some((Owner::Changed, _)) if wanted => {
                return Err(format!("{} was changed by hand: nothing is written", path.display()));
            }
            _ => before.push((path, found.filter(|(owner, _)| *owner == Owner::Ours).map(|(_, text)| text))),
        }
    }
    let written: Result<(), String> = texts.iter().try_for_each(|text| {
        let path = below(root, &text.path);
        if before.iter().any(|(known, old)| *known == path && old.as_ref() == Some(&text.text)) {
            return Ok(());
        }
        put(&path, &text.text, text.private)?;
        done.push(format!("wrote {}", path.display()));
        Ok(())
    });
    if let Err(why) = written {
        for (path, old) in &before {
            let _ = match old {
                Some(old) => put(path, old, false),
                None if texts.iter().any(|text| below(root, &text.path) == *path) => {
                    remove_ours(path).map(drop)
                }
                None => Ok(()),
            };
        }
        return Err(format!("{why}: nothing of it is left"));
    }
    for (path, _) in before {
        if !texts.iter().any(|text| below(root, &text.path) == path) && remove_ours(&path)? {
            done.push(format!("removed {}", path.display()));
        }
    }
    Ok(done)
}

/// Removes what is ours. Returns what was done, and what was left alone, a line each.
pub(crate) fn remove(root: &Path) -> Result<Vec<String>, String> {
    let mut done = Vec::new();
    for path in ALL {
        let path = below(root, path);
        if let Some((Owner::Changed, _)) = owner_of(&path)? {
            done.push(format!("{} was changed by hand: left alone", path.display()));
        } else if remove_ours(&path)? {
            done.push(format!("removed {}", path.display()));
        }
    }
    Ok(done)
}

fn remove_ours(path: &Path) -> Result<bool, String> {
    match owner_of(path)? {
        Some((Owner::Ours, _)) => {
            fs::remove_file(path).map(|()| true).map_err(|error| format!("{}: {error}", path.display()))
        }
        _ => Ok(false),
    }
}

fn put(path: &Path, text: &str, private: bool) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let folder = path.parent().ok_or_else(|| format!("{}: no folder", path.display()))?;
    fs::create_dir_all(folder).map_err(failed)?;
    // Hidden, so that no manager reads it half-way.
    let new = folder.join(".smtp-realserver.new");
    let mode = if private { 0o600 } else { 0o644 };
    let options = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new);
    let written = options.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(error)
    })
}
