//! EDGE: arguments in, exit code out. The only place that ends the process.

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "the last word of a command goes to standard error")]
fn main() -> ExitCode {
    match smtp_director::cli::main(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.message.is_empty() {
                eprintln!("smtp-director: {}", exit.message.trim_end());
            }
            ExitCode::from(exit.code)
        }
    }
}
