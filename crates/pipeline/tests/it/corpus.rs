//! The corpus: real wercker.yml files and the trees that the reference CLI made of them (`EXPECT.json`), and made-up
//! edge cases (`EDGE.json`). It is not part of the project; `SEALIFT_CORPUS` names the folder.

use std::path::PathBuf;

use sealift_pipeline::config::{self, BoxConfig, Config, StepConfig};
use serde_json::{Map, Value, json};

fn corpus() -> Option<PathBuf> {
    let dir = std::env::var_os("SEALIFT_CORPUS").map(PathBuf::from);
    if dir.is_none() {
        println!("SKIPPED: set SEALIFT_CORPUS to the folder of the wercker corpus to run this test");
    }
    dir
}

fn read(dir: &std::path::Path, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(dir.join(name)).unwrap()).unwrap()
}

/// The configuration in the form of the corpus: empty things are left out.
fn tree(config: &Config) -> Value {
    let mut pipelines = Map::new();
    for pipeline in &config.pipelines {
        let mut out = Map::new();
        put(&mut out, "box", pipeline.own_box.as_ref().map(box_tree));
        put(&mut out, "services", pipeline.services.as_deref().and_then(list(box_tree)));
        out.insert("steps".into(), pipeline.steps.iter().map(step_tree).collect());
        put(&mut out, "after-steps", list(step_tree)(&pipeline.after_steps));
        put(&mut out, "base-path", pipeline.base_path.as_ref().filter(|p| !p.is_empty()).map(|p| json!(p)));
        put(&mut out, "docker", pipeline.docker.then_some(json!(true)));
        let targets: Map<_, _> = pipeline
            .targets
            .iter()
            .map(|(name, steps)| (name.clone(), steps.iter().map(step_tree).collect()))
            .collect();
        put(&mut out, "targets", (!targets.is_empty()).then_some(Value::Object(targets)));
        pipelines.insert(pipeline.name.clone(), Value::Object(out));
    }
    let mut out = Map::new();
    put(&mut out, "box", config.default_box.as_ref().map(box_tree));
    put(&mut out, "services", list(box_tree)(&config.services));
    put(&mut out, "command-timeout", config.command_timeout.map(|n| json!(n)));
    put(&mut out, "no-response-timeout", config.no_response_timeout.map(|n| json!(n)));
    put(&mut out, "source-dir", config.source_dir.as_ref().map(|d| json!(d)));
    put(&mut out, "ignore-file", config.ignore_file.as_ref().map(|f| json!(f)));
    out.insert("pipelines".into(), Value::Object(pipelines));
    Value::Object(out)
}

fn put(map: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value);
    }
}

fn list<T>(one: fn(&T) -> Value) -> impl Fn(&[T]) -> Option<Value> {
    move |items: &[T]| (!items.is_empty()).then(|| items.iter().map(one).collect())
}

fn box_tree(config: &BoxConfig) -> Value {
    let mut out = Map::new();
    out.insert("id".into(), json!(config.id));
    for (key, value) in [
        ("tag", &config.tag),
        ("name", &config.name),
        ("cmd", &config.cmd),
        ("entrypoint", &config.entrypoint),
    ] {
        put(&mut out, key, value.as_ref().map(|v| json!(v)));
    }
    if !config.env.is_empty() {
        let env: Map<_, _> = config.env.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        out.insert("env".into(), Value::Object(env));
    }
    put(&mut out, "ports", (!config.ports.is_empty()).then(|| json!(config.ports)));
    for (key, value) in &config.options {
        out.insert(key.clone(), json!(value));
    }
    Value::Object(out)
}

fn step_tree(step: &StepConfig) -> Value {
    let mut out = Map::new();
    out.insert("id".into(), json!(step.id));
    out.insert("name".into(), json!(step.name));
    out.insert("owner".into(), json!(step.owner));
    put(&mut out, "version", step.version.as_ref().map(|v| json!(v)));
    for (key, value) in [("display", &step.display), ("cwd", &step.cwd), ("checkpoint", &step.checkpoint)] {
        put(&mut out, key, value.as_ref().filter(|v| !v.is_empty()).map(|v| json!(v)));
    }
    let data: Map<_, _> = step.properties.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    put(&mut out, "data", (!data.is_empty()).then_some(Value::Object(data)));
    Value::Object(out)
}

#[test]
fn real_files_mean_what_they_meant() {
    let Some(dir) = corpus() else { return };
    let mut wrong = Vec::new();
    for (file, expected) in read(&dir, "EXPECT.json").as_object().unwrap() {
        let text = std::fs::read_to_string(dir.join(file)).unwrap();
        match (config::parse(&text), expected.get("error")) {
            (Err(found), Some(_)) => assert!(found.iter().all(|d| d.line > 0), "{file}"),
            (Ok((config, _)), None) if tree(&config) == *expected => {}
            (Ok((config, _)), _) => wrong.push(format!("{file}\n ours {}\n want {expected}", tree(&config))),
            (Err(found), _) => wrong.push(format!("{file} refused: {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn edge_cases_are_accepted_and_refused_alike() {
    let Some(dir) = corpus() else { return };
    let mut wrong = Vec::new();
    for case in read(&dir, "EDGE.json").as_object().unwrap().values() {
        let text = case["yaml"].as_str().unwrap();
        let accepted = case["check_config_rc"] == 0;
        match config::parse(text) {
            // Digests are an addition of ours; workflows are checked by whoever runs them.
            Ok(_) if !accepted && (text.contains("@sha256") || text.contains("workflows:")) => {}
            Ok((config, _)) if accepted && tree(&config) == case["parse"] => {}
            Ok((config, _)) => {
                wrong.push(format!("{text}\n ours {}\n want {}", tree(&config), case["parse"]));
            }
            Err(_) if !accepted => {}
            Err(found) => wrong.push(format!("{text}\n refused: {found:?}")),
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
