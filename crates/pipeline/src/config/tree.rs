//! A configuration as JSON, for programs: `sealift check --output json`.
//!
//! Guarantees: the keys are those of the file; what was not written is left out, and keys of Sealift's own form stand
//! there only where they are used.

use serde_json::{Map, Value, json};

use super::settings::{Cell, Probe, RetryOn, SoftFail, print_duration};
use super::when::{Patterns, When};
use super::{BoxConfig, Config, Pipeline, Ready, Settings, StepConfig, StepSettings, Workflow};

/// The configuration as a tree; empty things are left out.
#[must_use]
pub fn tree(config: &Config) -> Value {
    let mut out = Map::new();
    put(&mut out, "sealift", config.version.map(|version| json!(version)));
    put(&mut out, "box", config.default_box.as_ref().map(box_tree));
    put(&mut out, "services", list(&config.services, box_tree));
    put(&mut out, "command-timeout", config.command_timeout.map(|n| json!(n)));
    put(&mut out, "no-response-timeout", config.no_response_timeout.map(|n| json!(n)));
    put(&mut out, "source-dir", config.source_dir.as_ref().map(|d| json!(d)));
    put(&mut out, "ignore-file", config.ignore_file.as_ref().map(|f| json!(f)));
    let pipelines = config.pipelines.iter().map(|one| (one.name.clone(), pipeline_tree(one))).collect();
    out.insert("pipelines".into(), Value::Object(pipelines));
    put(&mut out, "workflows", list(&config.workflows, workflow_tree));
    Value::Object(out)
}

fn pipeline_tree(pipeline: &Pipeline) -> Value {
    let mut out = Map::new();
    put(&mut out, "box", pipeline.own_box.as_ref().map(box_tree));
    put(&mut out, "services", pipeline.services.as_deref().and_then(|services| list(services, box_tree)));
    out.insert("steps".into(), pipeline.steps.iter().map(step_tree).collect());
    put(&mut out, "after-steps", list(&pipeline.after_steps, step_tree));
    put(&mut out, "base-path", text(pipeline.base_path.as_ref()));
    put(&mut out, "docker", pipeline.docker.then_some(json!(true)));
    let targets: Map<_, _> = pipeline
        .targets
        .iter()
        .map(|(name, steps)| (name.clone(), steps.iter().map(step_tree).collect()))
        .collect();
    put(&mut out, "targets", (!targets.is_empty()).then_some(Value::Object(targets)));
    settings_tree(&mut out, &pipeline.settings);
    Value::Object(out)
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

fn list<T>(items: &[T], one: fn(&T) -> Value) -> Option<Value> {
    (!items.is_empty()).then(|| items.iter().map(one).collect())
}

fn texts(items: &[String]) -> Option<Value> {
    (!items.is_empty()).then(|| json!(items))
}

fn text(text: Option<&String>) -> Option<Value> {
    text.filter(|text| !text.is_empty()).map(|text| json!(text))
}

fn map(pairs: &[(String, String)]) -> Value {
    Value::Object(pairs.iter().map(|(name, value)| (name.clone(), json!(value))).collect())
}

fn box_tree(config: &BoxConfig) -> Value {
    let mut out = Map::new();
    out.insert("id".into(), json!(config.id));
    for (key, value) in [
        ("tag", &config.tag),
        ("name", &config.name),
        ("cmd", &config.cmd),
        ("entrypoint", &config.entrypoint),
        ("user", &config.user),
    ] {
        put(&mut out, key, value.as_ref().map(|v| json!(v)));
    }
    put(&mut out, "env", (!config.env.is_empty()).then(|| map(&config.env)));
    put(&mut out, "ports", texts(&config.ports));
    for (key, value) in &config.options {
        out.insert(key.clone(), json!(value));
    }
    put(&mut out, "ready", config.ready.as_deref().map(ready_tree));
    put(&mut out, "aliases", texts(&config.aliases));
    put(&mut out, "memory", config.memory.map(|bytes| json!(bytes)));
    put(&mut out, "cpus", config.cpu_millis.map(|millis| json!(f64::from(millis) / 1000.0)));
    Value::Object(out)
}

fn ready_tree(ready: &Ready) -> Value {
    let timeout = print_duration(ready.timeout);
    match &ready.probe {
        Probe::Port(port) => json!({ "port": port, "timeout": timeout }),
        Probe::Log(line) => json!({ "log": line, "timeout": timeout }),
        Probe::Command(command) => json!({ "command": command, "timeout": timeout }),
    }
}

fn step_tree(step: &StepConfig) -> Value {
    let mut out = Map::new();
    out.insert("id".into(), json!(step.id));
    out.insert("name".into(), json!(step.name));
    out.insert("owner".into(), json!(step.owner));
    put(&mut out, "version", step.version.as_ref().map(|v| json!(v)));
    for (key, value) in [("display", &step.display), ("cwd", &step.cwd), ("checkpoint", &step.checkpoint)] {
        put(&mut out, key, text(value.as_ref()));
    }
    put(&mut out, "data", (!step.properties.is_empty()).then(|| map(&step.properties)));
    let StepSettings { when, retry, soft_fail, timeout, env } = step.settings.as_ref();
    put(&mut out, "when", when.as_ref().map(when_tree));
    put(&mut out, "retry", retry.as_ref().map(retry_tree));
    put(&mut out, "soft-fail", soft_fail.as_ref().map(soft_fail_tree));
    put(&mut out, "timeout", timeout.map(|timeout| json!(print_duration(timeout))));
    put(&mut out, "env", (!env.is_empty()).then(|| map(env)));
    Value::Object(out)
}

fn when_tree(when: &When) -> Value {
    let patterns = |patterns: &Patterns| {
        let out = patterns.exclude.iter().map(|pattern| format!("!{pattern}"));
        json!(patterns.include.iter().cloned().chain(out).collect::<Vec<_>>())
    };
    let conditions = when.0.iter().map(|condition| {
        let mut out = Map::new();
        put(&mut out, "branch", condition.branch.as_ref().map(patterns));
        put(&mut out, "tag", condition.tag.as_ref().map(patterns));
        put(&mut out, "path", condition.path.as_ref().map(patterns));
        Value::Object(out)
    });
    conditions.collect()
}

fn retry_tree(retry: &super::settings::Retry) -> Value {
    let on: Vec<&str> = retry
        .on
        .iter()
        .map(|on| match on {
            RetryOn::Failed => "failed",
            RetryOn::TimedOut => "timed-out",
        })
        .collect();
    json!({ "attempts": retry.attempts, "delay": print_duration(retry.delay), "on": on })
}

fn soft_fail_tree(soft: &SoftFail) -> Value {
    match soft {
        SoftFail::Never => json!(false),
        SoftFail::Any => json!(true),
        SoftFail::ExitCodes(codes) => json!(codes),
    }
}

fn settings_tree(out: &mut Map<String, Value>, settings: &Settings) {
    put(out, "when", settings.when.as_ref().map(when_tree));
    put(out, "matrix", settings.matrix.as_ref().map(matrix_tree));
    put(out, "timeout", settings.timeout.map(|timeout| json!(print_duration(timeout))));
    put(out, "retry", settings.retry.as_ref().map(retry_tree));
    put(out, "soft-fail", settings.soft_fail.as_ref().map(soft_fail_tree));
    let secrets = list(&settings.secrets, |one| json!({ "from": one.from, "as": one.variable }));
    put(out, "secrets", secrets);
    let cache = settings.cache.as_ref().map(|cache| {
        let mut out = Map::new();
        out.insert("key".into(), json!(cache.key.to_string()));
        put(&mut out, "fallback", list(&cache.fallback, |key| json!(key.to_string())));
        out.insert("paths".into(), json!(cache.paths));
        put(&mut out, "keep-on-failure", cache.keep_on_failure.then_some(json!(true)));
        Value::Object(out)
    });
    put(out, "cache", cache);
    put(out, "artifacts", settings.artifacts.as_ref().map(|one| json!({ "from": one.from })));
    put(out, "publish", texts(&settings.publish));
    let approval = settings.approval.as_ref().map(|approval| match &approval.question {
        Some(question) => json!(question),
        None => json!(approval.wanted),
    });
    put(out, "approval", approval);
    let concurrency = settings
        .concurrency
        .as_ref()
        .map(|one| json!({ "group": one.group.to_string(), "cancel-superseded": one.cancel_superseded }));
    put(out, "concurrency", concurrency);
    put(out, "needs", texts(&settings.needs));
}

fn matrix_tree(matrix: &super::settings::Matrix) -> Value {
    let mut out = Map::new();
    for (name, values) in &matrix.axes {
        out.insert(name.clone(), json!(values));
    }
    let cells = |cells: &[Cell]| list(cells, |cell| map(cell));
    put(&mut out, "exclude", cells(&matrix.exclude));
    put(&mut out, "include", cells(&matrix.include));
    Value::Object(out)
}

/// Workflows keep the names that the reference's own tree has for them.
fn workflow_tree(workflow: &Workflow) -> Value {
    let places = workflow.pipelines.iter().map(|place| {
        let mut out = Map::new();
        out.insert("Name".into(), json!(place.name));
        let other = if place.pipeline == place.name { "" } else { place.pipeline.as_str() };
        out.insert("PipelineName".into(), json!(other));
        out.insert("Requires".into(), texts(&place.requires).unwrap_or(Value::Null));
        out.insert("ArtifactPipeline".into(), json!(place.artifact_pipeline.as_deref().unwrap_or_default()));
        out.insert("EnvFile".into(), json!(place.env_file.as_deref().unwrap_or_default()));
        settings_tree(&mut out, &place.settings);
        Value::Object(out)
    });
    json!({ "Name": workflow.name, "Pipelines": places.collect::<Vec<_>>() })
}
