//! `sealift check`: what a wercker.yml would do, and all that is wrong with it. Nothing is run and nobody is asked.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use sealift_model::diagnostic::{Diagnostic, Severity};
use sealift_pipeline::config::settings::print_duration;
use sealift_pipeline::config::{
    self, BoxConfig, Config, Graph, GraphNode, Pipeline, Settings, StepConfig, Workflow, tree,
};
use sealift_pipeline::steps;
use serde_json::{Value, json};

use crate::cli::{CheckArgs, Global};
use crate::error::{Error, FAILED};
use crate::print::{Printer, Style, many, visible};

pub(super) fn check(args: &CheckArgs, global: &Global) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    if args.schema {
        let text = serde_json::to_string_pretty(&config::schema()).map_err(Error::Json)?;
        printer.line(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = if args.path.is_dir() { config::find_config(&args.path)? } else { args.path.clone() };
    let checked = match config::load(&path) {
        Ok(loaded) => {
            let mut found = loaded.diagnostics;
            found.extend(missing_steps(&loaded.config, &loaded.text, &path)?);
            Checked { path, text: loaded.text, config: Some(loaded.config), found }
        }
        Err(config::Error::Invalid { path, text, diagnostics }) => {
            Checked { path, text, config: None, found: diagnostics }
        }
        Err(error) => return Err(error.into()),
    };
    let checked =
        if args.strict { Checked { found: config::strict(checked.found), ..checked } } else { checked };
    if printer.is_json() {
        printer.json(&checked.json())?;
    } else {
        checked.print(&printer)?;
    }
    Ok(if checked.count(Severity::Error) > 0 { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// Steps that are nowhere, as warnings: the file is sound, and the step may be where the pipeline is run.
fn missing_steps(config: &Config, text: &str, path: &Path) -> Result<Vec<Diagnostic>, Error> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sources = super::local::step_sources()?;
    let mut found: Vec<Diagnostic> = Vec::new();
    for pipeline in &config.pipelines {
        let targets = pipeline.targets.iter().map(|(name, _)| Some(name.as_str()));
        for target in std::iter::once(None).chain(targets) {
            for missing in steps::check(config, text, &pipeline.name, target, dir, &sources) {
                let missing = Diagnostic { severity: Severity::Warning, ..missing };
                if !found.contains(&missing) {
                    found.push(missing);
                }
            }
        }
    }
    Ok(found)
}

struct Checked {
    path: PathBuf,
    text: String,
    /// None where the file as a whole cannot be used.
    config: Option<Config>,
    found: Vec<Diagnostic>,
}

impl Checked {
    fn of(&self, severity: Severity) -> impl Iterator<Item = &Diagnostic> {
        self.found.iter().filter(move |diagnostic| diagnostic.severity == severity)
    }

    fn count(&self, severity: Severity) -> usize {
        self.of(severity).count()
    }

    /// The tree of the file, and the findings beside it.
    fn json(&self) -> Value {
        let mut value = match &self.config {
            Some(config) => tree(config),
            None => json!({ "error": self.of(Severity::Error).next().map(|found| &found.message) }),
        };
        if let Value::Object(map) = &mut value {
            map.insert("warnings".into(), json!(self.of(Severity::Warning).collect::<Vec<_>>()));
            map.insert("errors".into(), json!(self.of(Severity::Error).collect::<Vec<_>>()));
        }
        value
    }

    fn print(&self, printer: &Printer) -> Result<(), Error> {
        let file = self.path.display().to_string();
        if let Some(config) = &self.config {
            let form = config.version.map_or_else(String::new, |version| format!(" (sealift: {version})"));
            printer.line(&printer.paint(Style::Title, &format!("{file}{form}")))?;
            for line in plan(config) {
                printer.line(&visible(&line))?;
            }
            printer.line("")?;
        }
        for found in &self.found {
            let style = match found.severity {
                Severity::Error => Style::Bad,
                Severity::Warning => Style::Careful,
            };
            let rendered = found.render(&file, &self.text);
            for line in rendered.lines() {
                printer.line(&printer.paint(style, &visible(line)))?;
            }
        }
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let summary = match (errors, warnings) {
            (0, 0) => printer.paint(Style::Good, "nothing is wrong"),
            _ => format!("{}, {}", many(errors as u64, "error"), many(warnings as u64, "warning")),
        };
        printer.line(&summary)
    }
}

/// What the file would do, line by line.
pub(super) fn plan(config: &Config) -> Vec<String> {
    let mut out = Vec::new();
    if let Some(default) = &config.default_box {
        out.push(format!("box       {}", image(default)));
    }
    if !config.services.is_empty() {
        out.push(format!("services  {}", images(&config.services)));
    }
    for pipeline in &config.pipelines {
        out.push(String::new());
        out.push(format!("pipeline {}", pipeline.name));
        plan_pipeline(pipeline, &mut out);
    }
    for workflow in &config.workflows {
        out.push(String::new());
        out.push(format!("workflow {}", workflow.name));
        plan_workflow(workflow, config, &mut out);
    }
    out
}

fn plan_pipeline(pipeline: &Pipeline, out: &mut Vec<String>) {
    if let Some(own) = &pipeline.own_box {
        out.push(format!("  box       {}", image(own)));
    }
    match pipeline.services.as_deref() {
        Some([]) => out.push("  services  none".to_owned()),
        Some(services) => out.push(format!("  services  {}", images(services))),
        None => {}
    }
    for (key, value) in facts(&pipeline.settings) {
        out.push(format!("  {key:9} {value}"));
    }
    if let Some(matrix) = &pipeline.settings.matrix {
        for cell in matrix.cells().unwrap_or_default() {
            let pairs: Vec<String> = cell.iter().map(|(name, value)| format!("{name}={value}")).collect();
            out.push(format!("  matrix    {}", pairs.join(" ")));
        }
    }
    let targets = pipeline.targets.iter().map(|(name, steps)| (format!("target {name}"), steps));
    let lists = [("steps".to_owned(), &pipeline.steps), ("after-steps".to_owned(), &pipeline.after_steps)];
    for (title, steps) in lists.into_iter().chain(targets) {
        if !steps.is_empty() {
            out.push(format!("  {title}"));
        }
        for (index, step) in steps.iter().enumerate() {
            out.push(format!("    {}. {}", index + 1, plan_step(step)));
        }
    }
}

fn plan_step(step: &StepConfig) -> String {
    let mut text = step.title().to_owned();
    if text != step.id {
        text = format!("{text} ({})", step.id);
    }
    let settings = &step.settings;
    let mut notes = Vec::new();
    notes.extend(settings.when.is_some().then(|| "conditional".to_owned()));
    notes.extend(settings.retry.as_ref().map(|retry| format!("{} attempts", retry.attempts)));
    notes.extend(settings.timeout.map(|timeout| format!("at most {}", print_duration(timeout))));
    notes.extend(settings.soft_fail.is_some().then(|| "may fail".to_owned()));
    if notes.is_empty() { text } else { format!("{text}: {}", notes.join(", ")) }
}

fn plan_workflow(workflow: &Workflow, config: &Config, out: &mut Vec<String>) {
    let Ok(graph) = workflow.graph(config) else {
        out.push("  cannot be run; see below".to_owned());
        return;
    };
    let width = graph.nodes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0);
    for node in &graph.nodes {
        out.push(format!("  {:width$}  {}", node.name, plan_node(node, &graph)).trim_end().to_owned());
    }
}

fn plan_node(node: &GraphNode, graph: &Graph) -> String {
    let mut notes = Vec::new();
    // A place is needed with all its cells.
    let mut after: Vec<&str> = Vec::new();
    for needed in graph.nodes.iter().filter(|other| node.needs.contains(&other.name)) {
        if !after.contains(&needed.place.as_str()) {
            after.push(&needed.place);
        }
    }
    if !after.is_empty() {
        notes.push(format!("after {}", after.join(", ")));
    }
    if node.pipeline != node.place {
        notes.push(format!("pipeline {}", node.pipeline));
    }
    let gates = facts(&node.settings).filter(|(key, _)| ["when", "approval", "group"].contains(key));
    notes.extend(gates.map(|(key, value)| format!("{key} {value}")));
    notes.join("; ")
}

/// Settings in few words.
fn facts(settings: &Settings) -> impl Iterator<Item = (&'static str, String)> {
    let when = settings.when.as_ref().map(|when| {
        let conditions = when.0.iter().map(|condition| {
            let kinds = [("branch", &condition.branch), ("tag", &condition.tag), ("path", &condition.path)];
            let said = kinds.into_iter().filter_map(|(kind, patterns)| {
                let patterns = patterns.as_ref()?;
                let out = patterns.exclude.iter().map(|pattern| format!("!{pattern}"));
                let all: Vec<String> = patterns.include.iter().cloned().chain(out).collect();
                Some(format!("{kind} {}", all.join(" ")))
            });
            said.collect::<Vec<_>>().join(" and ")
        });
        conditions.collect::<Vec<_>>().join(", or ")
    });
    let approval = settings
        .approval
        .as_ref()
        .filter(|approval| approval.wanted)
        .map(|approval| approval.question.clone().unwrap_or_else(|| "wanted".to_owned()));
    let secrets: Vec<&str> = settings.secrets.iter().map(|secret| secret.variable.as_str()).collect();
    [
        ("when", when),
        ("approval", approval),
        ("group", settings.concurrency.as_ref().map(|one| one.group.to_string())),
        ("timeout", settings.timeout.map(print_duration)),
        ("attempts", settings.retry.as_ref().map(|retry| retry.attempts.to_string())),
        ("cache", settings.cache.as_ref().map(|cache| cache.key.to_string())),
        ("secrets", (!secrets.is_empty()).then(|| secrets.join(" "))),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
}

/// The image with its variables as written.
fn image(config: &BoxConfig) -> String {
    let image = match config.id.as_str() {
        "" => "none".to_owned(),
        _ => config.image(&|name| Some(format!("${name}"))),
    };
    config.name.as_ref().map_or(image.clone(), |name| format!("{image} ({name})"))
}

fn images(services: &[BoxConfig]) -> String {
    services.iter().map(image).collect::<Vec<_>>().join(", ")
}
