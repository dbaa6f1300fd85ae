//! `sealift steps`: the steps that are part of Sealift, and what each can be given.

use std::process::ExitCode;

use sealift_model::diagnostic::{chain, nearest};
use sealift_pipeline::steps::{BUILTINS, Builtin, Manifest};
use serde_json::{Value, json};

use crate::cli::{Global, StepsArgs};
use crate::error::Error;
use crate::print::{Printer, Style};

pub(super) fn steps(args: &StepsArgs, global: &Global) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    match &args.name {
        Some(name) => one(name, &printer)?,
        None => all(&printer)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn manifest(step: &Builtin) -> Result<Manifest, Error> {
    step.manifest().map_err(|error| Error::plain(format!("{}: {}", step.name, chain(&error))))
}

fn all(printer: &Printer) -> Result<(), Error> {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for step in BUILTINS {
        let manifest = manifest(step)?;
        rows.push(vec![step.name.to_owned(), manifest.summary.clone().unwrap_or_default()]);
        values.push(as_json(step, &manifest));
    }
    if printer.is_json() {
        return printer.json(&json!({ "items": values }));
    }
    printer.table(&["STEP", "WHAT IT DOES"], &rows)
}

fn one(name: &str, printer: &Printer) -> Result<(), Error> {
    let step = BUILTINS.iter().find(|step| step.name == name).ok_or_else(|| {
        let near = nearest(name, BUILTINS.iter().map(|step| step.name));
        let help = near.map_or_else(
            || "`sealift steps` lists those there are".to_owned(),
            |near| format!("did you mean {near}?"),
        );
        Error::with_help(format!("{name} is no step of Sealift's own"), help)
    })?;
    let manifest = manifest(step)?;
    if printer.is_json() {
        return printer.json(&as_json(step, &manifest));
    }
    printer.line(&printer.paint(Style::Title, step.name))?;
    if let Some(summary) = &manifest.summary {
        printer.line(summary)?;
    }
    let mut rows = Vec::new();
    for property in &manifest.properties {
        let default = match (&property.default, property.required) {
            (Some(default), _) => format!("default {default:?}"),
            (None, true) => "required".to_owned(),
            (None, false) => String::new(),
        };
        rows.push(vec![property.name.clone(), default, property.description.clone().unwrap_or_default()]);
    }
    if rows.is_empty() {
        return Ok(());
    }
    printer.line("")?;
    printer.table(&["PROPERTY", "", "WHAT IT IS"], &rows)
}

fn as_json(step: &Builtin, manifest: &Manifest) -> Value {
    let properties: Vec<Value> = manifest
        .properties
        .iter()
        .map(|property| {
            json!({
                "name": property.name,
                "type": property.kind,
                "required": property.required,
                "default": property.default,
                "description": property.description,
            })
        })
        .collect();
    json!({
        "name": step.name,
        "owners": step.owners,
        "version": manifest.version,
        "summary": manifest.summary,
        "properties": properties,
    })
}
