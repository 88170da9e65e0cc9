//! `larder completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Arguments;
use crate::exit::Exit;
use crate::output::Output;

/// Write completions for a shell
///
/// Example: larder completions bash > ~/.local/share/bash-completion/completions/larder
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes completions to standard output.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<Exit> {
    let mut out = Output::new();
    std::io::Write::write_all(&mut out, &script(args.shell))?;
    std::io::Write::flush(&mut out)?;
    Ok(Exit::Success)
}

/// Makes the script in memory: the generator ends the process when it cannot write.
fn script(shell: Shell) -> Vec<u8> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "larder", &mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = String::from_utf8_lossy(&script(shell)).into_owned();
            assert!(script.contains("snapshots") && script.contains("exclude-if-present"));
        }
    }
}
