//! EDGE: has `postconf` write settings, and gives a file back as it was.
//!
//! Owns how a file of Postfix is changed: `postconf` does it, first on a copy, so that the result is known and written
//! down before the file itself changes. A file that somebody else has changed since is left alone.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use super::super::change::Change;
use super::super::command::run;
use super::{ConfFile, Instance, Setting};

/// Most bytes of a file of Postfix.
const MOST: u64 = 4 << 20;

/// What the settings of an instance make of its files. `scratch` is a folder for the copies.
pub(crate) fn prepare(of: &Instance, settings: &[Setting], scratch: &Path) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    for file in [ConfFile::Main, ConfFile::Master] {
        let here: Vec<_> = settings.iter().filter(|setting| setting.file == file).collect();
        if here.is_empty() {
            continue;
        }
        let copies = scratch.join("postfix");
        let failed = |error: std::io::Error| format!("{}: {error}", copies.display());
        fs::create_dir_all(&copies).map_err(failed)?;
        let texts: Vec<_> = here.iter().map(|setting| setting.text.clone()).collect();
        let result = copy(of, &copies).and_then(|()| {
            run(&postconf(&copies, file, &texts))?;
            read(&copies.join(file.name()))
        });
        let _ = fs::remove_dir_all(&copies);
        changes.push(Change::Conf {
            directory: of.directory.clone(),
            file,
            settings: texts,
            before: read(&of.directory.join(file.name()))?,
            after: result?,
            restart: here.iter().any(|setting| setting.restart),
        });
    }
    Ok(changes)
}

fn copy(of: &Instance, to: &Path) -> Result<(), String> {
    for file in [ConfFile::Main, ConfFile::Master] {
        let text = read(&of.directory.join(file.name()))?;
        fs::write(to.join(file.name()), text).map_err(|error| format!("{}: {error}", to.display()))?;
    }
    Ok(())
}

/// The command that changes a file.
pub(crate) fn postconf(directory: &Path, file: ConfFile, settings: &[String]) -> Vec<String> {
    let mut words = ["postconf", "-c", &directory.to_string_lossy(), file.flag()].map(str::to_owned).to_vec();
    words.extend(settings.iter().cloned());
    words
}

/// The commands that make a running Postfix follow.
pub(crate) fn again(directory: &Path, restart: bool) -> Vec<Vec<String>> {
    let directory = directory.to_string_lossy();
    let one = |verb: &str| ["postfix", "-c", directory.as_ref(), verb].map(str::to_owned).to_vec();
    if restart { vec![one("stop"), one("start")] } else { vec![one("reload")] }
}

/// Reads a file that is text, as both files of Postfix are.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST + 1).read_to_string(&mut text));
    match read {
        Ok(count) if count as u64 > MOST => Err(format!("{}: too long", path.display())),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// A folder for copies that nobody else can have prepared.
pub(crate) fn scratch() -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("smtp-realserver-{}", std::process::id()));
    let made = fs::DirBuilder::new().mode(0o700).create(&folder);
    made.map(|()| folder.clone()).map_err(|error| format!("{}: {error}", folder.display()))
}

/// The commands that take our settings out of a main.cf that somebody else has changed too: each that is still ours
/// gets what it was. A main.cf that still named the VIP would keep Postfix from starting once the address is gone.
pub(crate) fn revert(
    directory: &Path,
    settings: &[String],
    before: &str,
) -> Result<Vec<Vec<String>>, String> {
    let folder = scratch()?;
    let commands = fs::write(folder.join("main.cf"), before)
        .and_then(|()| fs::write(folder.join("master.cf"), ""))
        .map_err(|error| format!("{}: {error}", folder.display()))
        .and_then(|()| {
            let pairs = settings.iter().filter_map(|setting| setting.split_once('='));
            pairs.map(|(name, ours)| taken_out(directory, &folder, name, ours)).collect::<Result<Vec<_>, _>>()
        });
    let _ = fs::remove_dir_all(&folder);
    Ok(commands?.into_iter().flatten().collect())
}

fn taken_out(directory: &Path, old: &Path, name: &str, ours: &str) -> Result<Option<Vec<String>>, String> {
    let ask = |folder: &Path| {
        let said = run(&["postconf", "-c", &folder.to_string_lossy(), "-n", name].map(str::to_owned))?;
        Ok::<_, String>(said.split_once('=').map(|(_, value)| value.trim().to_owned()))
    };
    if ask(directory)?.as_deref() != Some(ours) {
        return Ok(None);
    }
    let words = match ask(old)? {
        Some(value) => ["postconf", "-c", &directory.to_string_lossy(), "-e", &format!("{name}={value}")]
            .map(str::to_owned),
        None => ["postconf", "-c", &directory.to_string_lossy(), "-X", name].map(str::to_owned),
    };
    Ok(Some(words.to_vec()))
}

/// Puts a text in the place of a file at once, with its owner and rights.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let there = fs::metadata(path).map_err(failed)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".smtp-realserver");
    let new = PathBuf::from(new);
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.set_permissions(there.permissions())?;
        chown(&new, Some(there.uid()), Some(there.gid()))?;
        file.sync_all()?;
        fs::rename(&new, path)
    });
    written.map_err(|error| {
        let _ = fs::remove_file(&new);
        failed(error)
    })
}

/// Whether the Postfix of a directory runs, as its own program says.
pub(crate) fn runs(directory: &Path) -> bool {
    let directory = directory.to_string_lossy();
    run(&["postfix", "-c", directory.as_ref(), "status"].map(str::to_owned)).is_ok()
}
