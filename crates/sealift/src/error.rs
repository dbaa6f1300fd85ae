//! What goes wrong on the command line, how it is shown, and the exit code it gives.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use sealift_client::Address;
use sealift_model::diagnostic::{Diagnostic, chain};

use crate::cli::Output;

/// The run or release that was asked for failed.
pub(crate) const FAILED: u8 = 1;
const NO_SERVER: u8 = 3;
const OTHER: u8 = 4;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start")]
    Runtime(#[source] io::Error),
    #[error("no Sealift server answers at {address}")]
    NoServer { address: Address, source: io::Error },
    #[error(transparent)]
    Client(sealift_client::Error),
    #[error("cannot {action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write to standard output")]
    Print(#[source] io::Error),
    #[error("cannot print JSON")]
    Json(#[source] serde_json::Error),
    /// A file that a person wrote, with the places.
    #[error("{file} cannot be used")]
    File { file: String, text: String, diagnostics: Vec<Diagnostic> },
    #[error(transparent)]
    Config(sealift_pipeline::config::Error),
    #[error(transparent)]
    Engine(#[from] sealift_pipeline::EngineError),
    #[error(transparent)]
    Run(#[from] sealift_pipeline::Error),
    #[error(transparent)]
    Workflow(sealift_pipeline::WorkflowError),
    #[error(transparent)]
    Enrolment(#[from] sealift_agent::enrolment::Error),
    #[error("cannot speak TLS")]
    Tls(#[source] sealift_access::TlsError),
    #[error(transparent)]
    Agent(#[from] sealift_agent::Error),
    #[error(transparent)]
    Server(#[from] sealift_server::Error),
    #[error("cannot open the store {}", path.display())]
    Store { path: PathBuf, source: sealift_store::Error },
    #[error(transparent)]
    Etcd(sealift_store::etcd::OpenError),
    /// A signal ended it before all was put away.
    #[error("{left}")]
    Stopped { left: String, code: u8 },
    /// Said in full, with what to do.
    #[error("{message}")]
    Plain { message: String, help: Option<String> },
}

impl Error {
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Error::Plain { message: message.into(), help: None }
    }

    pub(crate) fn with_help(message: impl Into<String>, help: impl Into<String>) -> Self {
        Error::Plain { message: message.into(), help: Some(help.into()) }
    }

    fn help(&self) -> Option<String> {
        match self {
            Error::NoServer { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("it is another user's; ask as that user".into())
            }
            Error::NoServer { .. } => {
                Some("start one with: sealift dev   (or name another with --server or SEALIFT_SERVER)".into())
            }
            Error::Plain { help, .. } => help.clone(),
            Error::Server(sealift_server::Error::Transfer(unusable)) => {
                crate::commands::store::unusable(unusable)
            }
            Error::Client(sealift_client::Error::Untrusted { .. }) => Some(
                "its certificate is of another authority than --ca says, or not for this name (sealift server --tls-name)"
                    .into(),
            ),
            Error::Enrolment(sealift_agent::enrolment::Error::Join(sealift_client::Error::Refused { failure, .. })) => {
                failure.help.clone()
            }
            Error::Stopped { .. } => Some("the next `sealift run` removes them".into()),
            Error::Client(sealift_client::Error::Refused { failure, .. }) => failure.help.clone(),
            Error::Config(sealift_pipeline::config::Error::NotFound { .. }) => Some(
                "write a wercker.yml there; a small one:\n\n    box: debian:12\n    build:\n      steps:\n        - script:\n            code: make\n"
                    .into(),
            ),
            _ => None,
        }
    }

    fn code(&self) -> u8 {
        match self {
            Error::NoServer { .. } => NO_SERVER,
            Error::Stopped { code, .. } => *code,
            _ => OTHER,
        }
    }
}

impl From<sealift_client::Error> for Error {
    fn from(error: sealift_client::Error) -> Self {
        match error {
            sealift_client::Error::Connect { address, source } => Error::NoServer { address, source },
            other => Error::Client(other),
        }
    }
}

impl From<sealift_pipeline::config::Error> for Error {
    fn from(error: sealift_pipeline::config::Error) -> Self {
        match error {
            sealift_pipeline::config::Error::Invalid { path, text, diagnostics } => {
                Error::File { file: path.display().to_string(), text, diagnostics }
            }
            other => Error::Config(other),
        }
    }
}

/// Shows an error on standard error, and gives its exit code.
pub(crate) fn report(error: &Error, output: Output) -> ExitCode {
    // Whoever reads us, `head` for one, has what he wanted.
    if matches!(error, Error::Print(source) if source.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let mut text = String::new();
    if let Error::File { file, text: source, diagnostics } = error {
        for diagnostic in diagnostics {
            text.push_str(&diagnostic.render(file, source));
            text.push('\n');
        }
    }
    let message = chain(error);
    let mut stderr = io::stderr().lock();
    // Where standard error is closed there is nobody to tell.
    match output {
        Output::Text => {
            writeln!(stderr, "{text}error: {message}").ok();
            if let Some(help) = error.help() {
                writeln!(stderr, "  help: {help}").ok();
            }
        }
        Output::Json => {
            let diagnostics = match error {
                Error::File { diagnostics, .. } => diagnostics.clone(),
                _ => Vec::new(),
            };
            let value = serde_json::json!({
                "error": { "message": message, "help": error.help(), "diagnostics": diagnostics }
            });
            writeln!(stderr, "{value}").ok();
        }
    }
    ExitCode::from(error.code())
}
