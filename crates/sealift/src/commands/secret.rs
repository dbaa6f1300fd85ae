//! `sealift secret`: the secrets that a server keeps for a project.
//!
//! Guarantees: a value comes from standard input or a file and goes to the server; it is in no argument, no message and
//! no output.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sealift_client::api::{List, NewSecret, SecretInfo};
use sealift_model::{ProjectName, SecretValue};
use serde_json::json;

use super::local::hidden_line;
use crate::cli::{Global, SecretCommand, SecretListArgs, SecretProject, SecretRmArgs, SecretSetArgs};
use crate::error::Error;
use crate::print::Printer;

/// A terminal hands over no more of one line, and drops the rest without a word.
const TERMINAL_LINE: usize = 4095;

pub(super) async fn secret(command: SecretCommand, global: &Global) -> Result<ExitCode, Error> {
    match command {
        SecretCommand::Set(args) => set(args, global).await,
        SecretCommand::List(args) => list(args, global).await,
        SecretCommand::Rm(args) => remove(args, global).await,
    }
}

async fn set(args: SecretSetArgs, global: &Global) -> Result<ExitCode, Error> {
    let project = project(args.project).await?;
    let value = match args.from_file {
        Some(path) => {
            let file = File::open(&path).map_err(|source| Error::Io {
                action: "open",
                path: path.clone(),
                source,
            })?;
            read(file, &path)?
        }
        None if io::stdin().is_terminal() => ask(&format!("{} for {project}: ", args.name)).await?,
        None => {
            let mut text = read(io::stdin().lock(), Path::new("standard input"))?;
            // `echo` and editors end with one.
            if text.ends_with('\n') {
                text.pop();
                if text.ends_with('\r') {
                    text.pop();
                }
            }
            text
        }
    };
    let value = SecretValue::try_from(value)
        .map_err(|error| Error::with_help(error.to_string(), "nothing was changed"))?;
    let path = format!("/v1/projects/{project}/secrets/{}", args.name);
    let info: SecretInfo = super::client(global)?.put(&path, &NewSecret { value }).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&info)?;
    } else {
        printer.line(&format!("{} is set for {project}, for runs that begin from now on", info.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(args: SecretListArgs, global: &Global) -> Result<ExitCode, Error> {
    let project = project(args.project).await?;
    let secrets: List<SecretInfo> =
        super::client(global)?.get(&format!("/v1/projects/{project}/secrets")).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&secrets)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = secrets
        .items
        .iter()
        .map(|secret| vec![secret.name.to_string(), secret.changed_at.to_string()])
        .collect();
    printer.table(&["SECRET", "CHANGED"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

async fn remove(args: SecretRmArgs, global: &Global) -> Result<ExitCode, Error> {
    let project = project(args.project).await?;
    super::client(global)?.delete(&format!("/v1/projects/{project}/secrets/{}", args.name)).await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&json!({ "name": args.name, "removed": true }))?;
    } else {
        printer.line(&format!("{} of {project} is removed", args.name))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The project that is named, else the one that a push from here would be of.
async fn project(named: SecretProject) -> Result<ProjectName, Error> {
    match named.project {
        Some(project) => Ok(project),
        None => super::push::project_of(Path::new(".")).await,
    }
}

async fn ask(question: &str) -> Result<String, Error> {
    let line = hidden_line(question).await;
    let line = line.map_err(|source| match source.kind() {
        io::ErrorKind::Interrupted => Error::plain("stopped; nothing was changed"),
        _ => Error::Io { action: "read", path: PathBuf::from("/dev/tty"), source },
    })?;
    if line.len() >= TERMINAL_LINE {
        return Err(Error::with_help(
            "a terminal takes no line as long as this; nothing was changed",
            "name a file with --from-file, or hand it to standard input",
        ));
    }
    text(line, Path::new("/dev/tty"))
}

/// Reads a little more than a secret may have, so that one which is too long is seen to be.
fn read(from: impl Read, path: &Path) -> Result<String, Error> {
    let mut bytes = Vec::new();
    from.take(SecretValue::LIMIT as u64 + 3).read_to_end(&mut bytes).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() > SecretValue::LIMIT + 2 {
        // It may have been cut in the middle of a character.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    text(bytes, path)
}

fn text(bytes: Vec<u8>, path: &Path) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| {
        Error::with_help(
            format!("what {} holds is not text in UTF-8, which a secret has to be", path.display()),
            "keep it in base64 and let a step decode it",
        )
    })
}
