//! EDGE: `doctor`: what is wrong with this director, and with `--fix` what was mended.

use std::io::Write as _;

use super::{ConfigFile, Exit, Threads, read, runtime};
use crate::doctor::{Finding, examine, exit_code, look, render, to_json};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Mend what can be mended without harm elsewhere, until the next reboot; then look again.
    #[arg(long)]
    fix: bool,
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn doctor(arguments: &Arguments) -> Result<(), Exit> {
    let config = read(&arguments.file.config)?;
    let runtime = runtime(Threads::One)?;
    let mut found = examine(&config, &runtime.block_on(look::look(&config)));
    let mut out = std::io::stdout().lock();
    if arguments.fix {
        let safe: Vec<&Finding> = found.iter().filter(|finding| finding.mend.is_safe()).collect();
        for finding in &safe {
            let command = finding.mend.command();
            let said = match runtime.block_on(look::mend(&finding.mend)) {
                Ok(()) => format!("done: {command}"),
                Err(why) => format!("NOT done: {command}: {why}"),
            };
            if arguments.json {
                writeln!(std::io::stderr(), "{said}")?;
            } else {
                writeln!(out, "{said}")?;
            }
        }
        if !safe.is_empty() {
            if !arguments.json {
                writeln!(
                    out,
                    "It holds until the next reboot: settings that should stay go to /etc/sysctl.d.\n"
                )?;
            }
            found = examine(&config, &runtime.block_on(look::look(&config)));
        }
    }
    if arguments.json {
        writeln!(out, "{:#}", to_json(&found))?;
    } else {
        write!(out, "{}", render(&found))?;
    }
    match exit_code(&found) {
        0 => Ok(()),
        code => Err(Exit::new(code, "")),
    }
}
