//! What is made of the definition of the command line: completions and man pages.

use std::{fs, path::Path};

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::{
    cli::{Arguments, Shell},
    session::Result,
};

/// The section of commands for administrators.
const SECTION: &str = "8";

/// The completion script of a shell.
pub fn completion(shell: Shell) -> Result<String> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "crosshost", &mut script);
    Ok(String::from_utf8(script)?)
}

/// Writes a man page for each command into `folder`, which is made if it is missing. Says which.
pub fn pages(folder: &Path) -> Result<String> {
    let failed = |error| format!("{}: {error}", folder.display());
    fs::create_dir_all(folder).map_err(failed)?;
    // The build that made the pages is in their footer, so that the same source gives the same bytes.
    let mut command = Arguments::command().version(cni::build::VERSION);
    command.build();
    let mut written = String::new();
    pages_of(&command, folder, &mut written).map_err(failed)?;
    Ok(written)
}

fn pages_of(command: &clap::Command, folder: &Path, written: &mut String) -> std::io::Result<()> {
    let shown = command.get_subcommands().filter(|it| !it.is_hide_set());
    for subcommand in shown {
        pages_of(subcommand, folder, written)?;
    }
    let source = format!("crosshost {}", cni::build::VERSION);
    let man = Man::new(command.clone())
        .section(SECTION)
        .manual("crosshost")
        .source(source);
    let file = man.generate_to(folder)?;
    written.extend([file.display().to_string(), "\n".to_owned()]);
    Ok(())
}
