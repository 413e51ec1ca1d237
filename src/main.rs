//! EDGE: arguments in, exit code out. The only place that ends the process.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    match smtp_director::cli::main(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.message.is_empty() {
                // As ldirectord it has the words of that.
                let called = std::env::args_os().next().unwrap_or_default();
                let as_another = Path::new(&called).file_name().is_some_and(|name| name == "ldirectord");
                let head = if as_another { "" } else { "smtp-director: " };
                // Where even this cannot be written, the exit code still tells.
                let _ = writeln!(std::io::stderr(), "{head}{}", exit.message.trim_end());
            }
            ExitCode::from(exit.code)
        }
    }
}
