//! `sealift import`: a wercker.yml from another tool's file. What was not taken over goes to standard error.

use std::io::Write as _;
use std::process::ExitCode;

use sealift_pipeline::import::{self, Format};

use crate::cli::{Global, ImportArgs, Output, Tool};
use crate::error::Error;
use crate::print::{Printer, visible};

/// Larger than any file a person writes.
const MAX_BYTES: u64 = 1024 * 1024;

pub(super) fn import(args: &ImportArgs, global: &Global) -> Result<ExitCode, Error> {
    let read = |source| Error::Io { action: "read", path: args.file.clone(), source };
    if args.file.metadata().map_err(read)?.len() > MAX_BYTES {
        return Err(Error::plain(format!("{} is larger than {MAX_BYTES} bytes", args.file.display())));
    }
    let text = std::fs::read_to_string(&args.file).map_err(read)?;
    let name = args.file.display().to_string();
    let format = args.from.map(|tool| match tool {
        Tool::Gitlab => Format::Gitlab,
        Tool::Github => Format::Github,
        Tool::Woodpecker => Format::Woodpecker,
        Tool::Compose => Format::Compose,
    });
    let imported = import::import(&name, &text, format).map_err(|error| match error {
        import::Error::Read { diagnostics } => {
            Error::File { file: name.clone(), text: text.clone(), diagnostics }
        }
        import::Error::Unknown => Error::with_help(
            format!("cannot tell what tool {name} is for"),
            "say it with --from gitlab, github, woodpecker or compose",
        ),
        import::Error::Result { text, diagnostics } => {
            Error::File { file: format!("the wercker.yml from {name}"), text, diagnostics }
        }
    })?;
    if let Some(out) = &args.out {
        let write = |source| Error::Io { action: "make", path: out.clone(), source };
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(out).map_err(write)?;
        file.write_all(imported.text.as_bytes()).map_err(write)?;
    }
    let printer = Printer::new(global.output);
    if global.output == Output::Json {
        printer.json(&serde_json::json!({ "text": imported.text, "notes": imported.notes }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.out.is_none() {
        std::io::stdout().lock().write_all(imported.text.as_bytes()).map_err(Error::Print)?;
    }
    let mut stderr = std::io::stderr().lock();
    for note in &imported.notes {
        for line in note.render(&name, &text).lines() {
            // Where standard error is closed there is nobody to tell.
            writeln!(stderr, "{}", visible(line)).ok();
        }
    }
    if !imported.notes.is_empty() {
        writeln!(stderr, "not taken over, or not in whole: {}", imported.notes.len()).ok();
    }
    Ok(ExitCode::SUCCESS)
}
