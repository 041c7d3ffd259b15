//! The `crosshost` binary: the operator's command.

mod arguments;
mod command;
mod conflists;
mod doctor;
mod endpoint;
mod gc;
mod network;
mod node;
mod permissions;
mod port;
mod realms;
mod stores;
mod sync;
mod table;
mod watch;

use std::process::ExitCode;

use arguments::Arguments;
use clap::{CommandFactory as _, Parser as _};

fn main() -> ExitCode {
    let done = match Arguments::try_parse() {
        Ok(Arguments { command: None }) => Ok(Arguments::command().render_help().to_string()),
        Ok(Arguments {
            command: Some(command),
        }) => command::run(command),
        Err(refused) => Err(refused.into()),
    };
    match done {
        Ok(text) => table::print(&text),
        Err(error) => table::complain(&*error),
    }
}
