//! What contradicts itself, or would be ignored without a word.
//!
//! Owns the rules that clap cannot say, because they depend on the targets. Refuses to know values, which are read
//! elsewhere. Fails with a text that names both sides and the way out.

use super::Arguments;
use crate::job::{Secure, Speech, Target};

/// Looks at flags that were given beside the targets that they are for.
pub(super) fn look(arguments: &Arguments, targets: &[Target]) -> Result<(), String> {
    let smtp: Vec<&Target> = targets.iter().filter(|target| target.speech == Speech::Smtp).collect();
    if smtp.is_empty() {
        refuse(&of_smtp(arguments), "is of SMTP, and no target is smtp://, smtps:// or lmtp://")?;
    }
    if smtp.len() == targets.len() {
        refuse(&of_http(arguments), "is of HTTP, and no target is http:// or https://")?;
    }
    if arguments.hello.as_deref() == Some("helo") {
        refuse(&of_ehlo(arguments), "needs EHLO, yet --hello helo does not say it")?;
    }
    let from_first = targets.iter().any(|target| target.security == Secure::Yes);
    let starttls = arguments.starttls != "off";
    if starttls && !smtp.is_empty() && smtp.iter().all(|target| target.security == Secure::Yes) {
        return Err("--starttls: smtps:// is TLS from the first byte; say smtp:// or leave it out".to_owned());
    }
    if !starttls && !from_first {
        let rows = [
            (arguments.tls_ca.is_some(), "--tls-ca"),
            (arguments.tls_name.is_some(), "--tls-name"),
            (arguments.tls_resume, "--tls-resume"),
            (arguments.auth_file.is_some() && !arguments.auth_without_tls, "--auth-file"),
            (arguments.server_from.as_deref() == Some("cert"), "--server-from cert"),
            (ends_after(arguments, &["tls", "starttls"]), "an end after TLS"),
        ];
        refuse(
            &rows,
            "needs TLS: say --starttls required, smtps:// or https:// (--auth-without-tls shows passwords to all)",
        )?;
    }
    if ends_after(arguments, &["auth"]) && arguments.auth_file.is_none() {
        return Err("an end after auth needs --auth-file".to_owned());
    }
    let ends = arguments.connect_only || arguments.drop_after.is_some() || arguments.quit_after.is_some();
    if arguments.output.traces() && (ends || smtp.is_empty()) {
        return Err("--trace-listen waits for messages, and none are sent".to_owned());
    }
    let named = arguments.server_from.as_deref();
    if arguments.expect.is_some() && (named == Some("none") || named.is_none() && smtp.is_empty()) {
        return Err("--expect needs to know who answered: say --server-from header:NAME".to_owned());
    }
    if arguments.messages == Some(0) {
        return Err("--messages 0 is no load".to_owned());
    }
    Ok(())
}

fn refuse(rows: &[(bool, &str)], why: &str) -> Result<(), String> {
    match rows.iter().find(|(given, _)| *given) {
        Some((_, flag)) => Err(format!("{flag} {why}")),
        None => Ok(()),
    }
}

fn ends_after(arguments: &Arguments, phases: &[&str]) -> bool {
    let ends = [&arguments.drop_after, &arguments.quit_after];
    ends.into_iter().flatten().any(|phase| phases.contains(&phase.as_str()))
}

fn of_smtp(arguments: &Arguments) -> Vec<(bool, &'static str)> {
    let from = |kind: &str| arguments.server_from.as_deref().is_some_and(|from| from.starts_with(kind));
    vec![
        (arguments.hello.is_some(), "--hello"),
        (arguments.starttls != "off", "--starttls"),
        (arguments.pipeline != "auto", "--pipeline"),
        (arguments.bdat != "off", "--bdat"),
        (arguments.rset, "--rset"),
        (arguments.auth_file.is_some(), "--auth-file"),
        (arguments.no_size, "--no-size"),
        (arguments.eight_bit, "--8bitmime"),
        (arguments.smtputf8, "--smtputf8"),
        (arguments.connect_only, "--connect-only"),
        (arguments.drop_after.is_some(), "--drop-after"),
        (arguments.quit_after.is_some(), "--quit-after"),
        (arguments.same_body, "--same-body"),
        (arguments.corpus.is_some(), "--corpus"),
        (from("banner"), "--server-from banner"),
        (from("ehlo"), "--server-from ehlo"),
        (from("reply"), "--server-from reply"),
    ]
}

fn of_http(arguments: &Arguments) -> Vec<(bool, &'static str)> {
    vec![
        (arguments.close_each, "--close-each"),
        (!arguments.header.is_empty(), "--header"),
        (arguments.checksum, "--checksum"),
        (arguments.byte_count, "--byte-count"),
        (
            arguments.server_from.as_deref().is_some_and(|from| from.starts_with("header")),
            "--server-from header",
        ),
    ]
}

fn of_ehlo(arguments: &Arguments) -> Vec<(bool, &'static str)> {
    vec![
        (arguments.bdat.starts_with("required"), "--bdat required"),
        (arguments.auth_file.is_some(), "--auth-file"),
        (arguments.smtputf8, "--smtputf8"),
    ]
}
