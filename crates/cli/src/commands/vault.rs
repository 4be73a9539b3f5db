//! `pgrotate vault ENV`

use std::io::{IsTerminal, Read};

use pgrotate_core::provider::Login;
use pgrotate_core::{Error, Kind, Result, Secret};

use crate::app::{App, known};
use crate::display;
use crate::exit::{Failure, Status};

/// Make a local vault of record that holds the password that works now
///
/// The password is asked for, or read from stdin; it is tried on the server before anything is
/// written.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The environment
    #[arg(value_name = "ENV")]
    environment: String,
}

pub(crate) async fn run(app: &App, args: Args) -> Result<Status, Failure> {
    let config = app.config()?;
    let environment = known(&config, &args.environment)?;
    let rotation = app.rotation(&config, &environment)?;
    let current = ask(&rotation.target.to_string())?;
    if rotation.verifier.login(&current).await? == Login::Refused {
        let error = Error::new(Kind::Refused, format!("make {}", rotation.vault.id()))
            .because(format!("{} refuses this password; nothing was written", rotation.target));
        return Err(error.into());
    }
    rotation.vault.create(&current).await?;
    let mark = rotation.key.fingerprint(&current);
    display::out(&format!("made {} with the password that works now ({mark})\n", rotation.vault.id()));
    Ok(Status::Done)
}

/// Never an argument: those are in the shell's history and in the list of processes.
fn ask(target: &str) -> Result<Secret> {
    let refuse = |why: &str| Error::new(Kind::Config, "read the password").because(why.to_owned());
    let text = if std::io::stdin().is_terminal() {
        let prompt = dialoguer::Password::new().with_prompt(format!("Present password of {target}"));
        prompt.interact().map_err(|_| refuse("it was not typed"))?
    } else {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(|_| refuse("stdin can't be read"))?;
        text.truncate(text.trim_end_matches(['\r', '\n']).len());
        text
    };
    if text.is_empty() { Err(refuse("there is none on stdin")) } else { Ok(Secret::new(text)) }
}
