//! The `crosshost` binary: the operator's command.

mod cli;
mod commands;
mod conflists;
mod connect;
mod containers;
mod exit;
mod manual;
mod output;
mod permissions;
mod session;
mod store_access;
mod store_check;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use cli::Arguments;

fn main() -> ExitCode {
    let done = match Arguments::try_parse() {
        Ok(Arguments { command: None }) => Ok(Arguments::command().render_help().to_string()),
        Ok(Arguments {
            command: Some(command),
        }) => session::run(command),
        Err(refused) => Err(refused.into()),
    };
    match done {
        Ok(text) => output::print(&text),
        Err(error) => output::print_error(&*error),
    }
}
