//! EDGE: asks Postfix and the kernel about an instance.
//!
//! Owns the commands. Refuses to change anything. Fails where `postconf` does, with its words.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::super::command::run;
use super::{Instance, PARAMETERS};
use crate::conf::Conf;
use crate::proc::listens;
use crate::report::QueueReport;
use crate::vitals::{self, Sockets};

/// Looks at an instance, with the VIPs and directors in mind.
pub(crate) fn look(directory: &Path, vips: &[IpAddr], directors: &[IpAddr]) -> Result<Instance, String> {
    let text = |arguments: &[&str]| {
        let path = directory.to_string_lossy();
        let words = ["postconf", "-c", path.as_ref()].into_iter().chain(arguments.iter().copied());
        run(&words.map(str::to_owned).collect::<Vec<_>>())
    };
    let conf = Conf::load(directory, None);
    let pairs = |said: &str| -> Vec<(String, String)> {
        let lines = said.lines().filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
    };
    let values = pairs(&text(&[&["-x"], &PARAMETERS[..]].concat())?);
    let written = pairs(&text(&PARAMETERS)?);
    // The columns of master(5), as postconf prints them: service, type, …, command.
    let services = text(&["-M"])?;
    let postscreen = services.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words.get(1) == Some(&"inet") && words.get(7) == Some(&"postscreen")
    });
    let service = if postscreen { "postscreen" } else { "smtpd" };
    let header = text(&["-P", &format!("smtp/inet/{service}_upstream_proxy_protocol")]);
    let header = header.ok().and_then(|said| Some(said.split_once('=')?.1.trim().to_owned()));
    let sockets = Sockets::read();
    let mut report = QueueReport::default();
    if let Ok(conf) = &conf {
        vitals::look(conf, sockets.as_ref(), &mut report);
    }
    let listening = |vip: &IpAddr| {
        let target = SocketAddr::new(*vip, 25);
        sockets.as_ref().is_none_or(|sockets| sockets.rows().iter().any(|row| listens(row, target)))
    };
    let list =
        values.iter().find(|(name, _)| name == "postscreen_access_list").map(|(_, list)| list.as_str());
    let permitted = directors.iter().filter(|director| {
        tables(list.unwrap_or_default()).iter().any(|table| permits(directory, table, **director))
    });
    Ok(Instance {
        directory: PathBuf::from(directory),
        running: report.master,
        values: values.clone(),
        written,
        postscreen,
        proxy_header: header.filter(|header| !header.is_empty()),
        permitted: permitted.copied().collect(),
        listening: vips.iter().filter(|vip| listening(vip)).copied().collect(),
    })
}

/// The tables of an access list, `type:name`; a name in braces may have commas in it.
fn tables(list: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut depth = 0_u32;
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match found.last_mut() {
            Some(word) if depth > 0 || !matches!(c, ' ' | ',' | '\t') => word.push(c),
            _ => found.push(String::new()),
        }
    }
    found.retain(|word| word.contains(':'));
    found
}

fn permits(directory: &Path, table: &str, director: IpAddr) -> bool {
    let directory = directory.to_string_lossy();
    let words = ["postmap", "-c", directory.as_ref(), "-q", &director.to_string(), table].map(str::to_owned);
    run(&words).is_ok_and(|said| said.trim().eq_ignore_ascii_case("permit"))
}
