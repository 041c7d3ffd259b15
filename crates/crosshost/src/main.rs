//! The `crosshost` binary: the operator's command.

mod command;
mod doctor;
mod endpoint;
mod gc;
mod network;
mod node;
mod port;
mod realms;
mod sync;
mod table;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    match command::run(std::env::args_os().skip(1)) {
        Ok(text) => table::print(&text),
        Err(error) => table::complain(&*error),
    }
}
