//! EDGE: arguments in, exit code out. The only place that ends the process.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match postfix::cli::main(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.message.is_empty() {
                // Where even this cannot be written, the exit code still tells.
                let _ = writeln!(std::io::stderr(), "smtp-realserver: {}", exit.message.trim_end());
            }
            ExitCode::from(exit.code)
        }
    }
}
