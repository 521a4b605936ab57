//! What every command knows: whose daemon to ask, and how to answer.

use std::{
    io::{BufRead, IsTerminal},
    path::PathBuf,
};

use ouisync_api::{
    client::{Client, ClientError},
    data::Done,
    error::{ErrorBody, ErrorKind},
};
use ouisync_daemon::home::default_home;

use crate::{
    command_line::{DONE, Outcome},
    output,
};

/// The options that all commands share.
#[derive(Debug)]
pub(crate) struct Context {
    home: Option<PathBuf>,
    /// Answer with one JSON document.
    pub(crate) json: bool,
}

impl Context {
    pub(crate) fn new(home: Option<PathBuf>, json: bool) -> Self {
        Self { home, json }
    }

    /// The home given, or the user's own.
    pub(crate) fn home(&self) -> Result<PathBuf, ErrorBody> {
        let home = match &self.home {
            Some(home) => home.clone(),
            None => default_home().map_err(|error| usage(error.to_string(), "Give --home DIR."))?,
        };
        std::path::absolute(&home)
            .map_err(|error| usage(format!("{}: {error}", home.display()), "Give --home DIR."))
    }

    /// Ends a command that has nothing to tell but that it was done.
    pub(crate) fn done(&self, words: &str) -> Outcome {
        if self.json {
            output::json(&Done::OK)?;
        } else {
            output::line(words)?;
        }
        DONE
    }

    /// A client of the home's daemon.
    pub(crate) fn client(&self) -> Result<Client, ErrorBody> {
        Client::open(&self.home()?).map_err(refused)
    }
}

/// A client's error in the shared form.
pub(crate) fn refused(error: ClientError) -> ErrorBody {
    error.body()
}

/// A wrong use of the command.
pub(crate) fn usage(message: impl Into<String>, hint: impl Into<String>) -> ErrorBody {
    ErrorBody::new(ErrorKind::Invalid, message, hint)
}

fn unconfirmed() -> ErrorBody {
    usage(
        "this lets history go, and nobody confirmed it",
        "See it with --preview, and give --yes to do it without a question.",
    )
    .keeping("Nothing was changed.")
}

/// Refuses to let history go where nobody can be asked.
pub(crate) fn check_somebody_is_there() -> Result<(), ErrorBody> {
    if std::io::stdin().is_terminal() {
        Ok(())
    } else {
        Err(unconfirmed())
    }
}

/// Asks whoever sits at the terminal whether history may go: `loss` says which, `question` asks to type 'yes'.
pub(crate) fn confirm(loss: &str, question: &str) -> Result<(), ErrorBody> {
    check_somebody_is_there()?;
    output::note(loss);
    output::note(question);
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && answer.trim() == "yes" {
        Ok(())
    } else {
        Err(unconfirmed())
    }
}

/// A failure of this machine.
pub(crate) fn failure(message: impl Into<String>) -> ErrorBody {
    ErrorBody::new(
        ErrorKind::Internal,
        message,
        "See the message; nothing was changed.",
    )
}

/// A path as the daemon takes it: absolute, UTF-8.
pub(crate) fn absolute(path: &std::path::Path) -> Result<String, ErrorBody> {
    let absolute = std::path::absolute(path)
        .map_err(|error| usage(format!("{}: {error}", path.display()), "Give another path."))?;
    // The daemon refuses '..', since what it means depends on links.
    let resolved = match (
        absolute
            .components()
            .any(|part| part == std::path::Component::ParentDir),
        absolute.canonicalize(),
    ) {
        (true, Ok(canonical)) => canonical,
        _ => absolute,
    };
    resolved.into_os_string().into_string().map_err(|path| {
        usage(
            format!("{} is not UTF-8", path.display()),
            "Rename the directory or choose another.",
        )
    })
}
