//! Woodpecker's workflows: steps that each name an image and share a directory.
//!
//! Steps of one image, one after the other, become one pipeline; where the image changes the next pipeline is given the
//! directory as the one before left it.

use super::draft::{Draft, Job, script};
use super::source::{get, note, pairs, rename, text, texts, variables};
use super::write::Out;
use crate::yaml::{Node, Place};

pub(super) fn read(root: &Node) -> Draft {
    let mut draft = Draft::default();
    for (key, at, _) in pairs(root) {
        if !matches!(key, "steps" | "pipeline" | "services" | "matrix" | "when" | "variables") {
            draft.note(at, format!("`{key}`"));
        }
    }
    let mut services = Vec::new();
    for (name, _, node) in named(get(root, "services")) {
        let mut out = vec![("id".to_owned(), Out::Text(image(node)))];
        out.push(("name".to_owned(), Out::Text(name)));
        for (key, at, value) in pairs(node) {
            match key {
                "image" | "name" => {}
                "environment" => out.push(("env".to_owned(), Out::variables(&variables(value)))),
                "commands" => out.push(("cmd".to_owned(), Out::text(texts(value).join(" && ")))),
                "ports" => draft.note(at, "`ports` of a service: all its ports can be reached"),
                _ => draft.note(at, format!("`{key}` of a service")),
            }
        }
        services.push(Out::Map(out));
    }
    for (name, at, node) in named(get(root, "steps").or_else(|| get(root, "pipeline"))) {
        step(&name, at, node, &mut draft);
    }
    let matrix = get(root, "matrix").map(matrix);
    let when = get(root, "when").and_then(|node| when(node, "the file", &mut draft));
    if let Some(at) = get(root, "matrix").map(|node| node.at).filter(|_| draft.jobs.len() > 1) {
        draft.note(
            at,
            "`matrix` with several images: each pipeline waits for all combinations of the one before",
        );
    }
    let mut before: Option<String> = None;
    for job in &mut draft.jobs {
        job.services.clone_from(&services);
        job.keys.extend(matrix.clone().map(|matrix| ("matrix".to_owned(), matrix)));
        job.keys.extend(when.clone().map(|when| ("when".to_owned(), when)));
        if let Some(before) = before.replace(job.name.clone()) {
            job.artifacts.push(before);
        }
    }
    draft
}

/// Steps or services: a map by name, or a list whose entries have one.
fn named(node: Option<&Node>) -> Vec<(String, Place, &Node)> {
    let Some(node) = node else { return Vec::new() };
    match node.sequence() {
        Some(items) => items
            .iter()
            .enumerate()
            .map(|(index, item)| {
                let name = get(item, "name").and_then(text);
                (name.unwrap_or_else(|| format!("step-{}", index + 1)), item.at, item)
            })
            .collect(),
        None => pairs(node).map(|(name, at, node)| (name.to_owned(), at, node)).collect(),
    }
}

fn image(node: &Node) -> String {
    get(node, "image").and_then(text).map(|image| code(&image)).unwrap_or_default()
}

fn step(name: &str, at: Place, node: &Node, draft: &mut Draft) {
    if get(node, "settings").is_some() {
        draft.note(at, format!("step {name}: plugins; say with commands what {} does", image(node)));
        return;
    }
    let mut more = Vec::new();
    let mut secrets = Vec::new();
    for (key, at, value) in pairs(node) {
        match key {
            "image" | "name" | "commands" => {}
            "environment" => {
                let mut env = Vec::new();
                for (name, given) in variables(value) {
                    let secret = get(value, &name).and_then(|node| get(node, "from_secret")).and_then(text);
                    match secret {
                        Some(secret) => secrets.push((secret, name)),
                        None => env.push((name, code(&given))),
                    }
                }
                if !env.is_empty() {
                    more.push(("env".to_owned(), Out::variables(&env)));
                }
            }
            "secrets" => {
                secrets.extend(texts(value).into_iter().map(|name| (name.clone(), name.to_uppercase())));
            }
            "when" => more.extend(when(value, name, draft).map(|when| ("when".to_owned(), when))),
            "failure" if text(value).as_deref() == Some("ignore") => {
                more.push(("soft-fail".to_owned(), Out::Plain("true".to_owned())));
            }
            "failure" => {}
            "directory" => more.push(("cwd".to_owned(), Out::text(text(value).unwrap_or_default()))),
            "depends_on" => {
                draft.note(at, format!("step {name}: `depends_on`; steps run in the order of the file"));
            }
            _ => draft.note(at, format!("step {name}: `{key}`")),
        }
    }
    let commands = texts(get(node, "commands").unwrap_or(node));
    let lines = code(&super::lines(&commands));
    for unknown in super::source::unknown(&lines) {
        draft.note(at, format!("step {name}: the variable {unknown}"));
    }
    let image = image(node);
    let made = script(Some(name.to_owned()), &lines, more);
    match draft.jobs.last_mut().filter(|job| job.image.as_deref() == Some(&image)) {
        Some(job) => {
            job.steps.push(made);
            job.secrets.extend(secrets);
        }
        None => draft.jobs.push(Job {
            name: name.to_owned(),
            image: Some(image),
            steps: vec![made],
            secrets,
            ..Job::default()
        }),
    }
}

/// Axes at the top, or `include` with whole cells.
fn matrix(node: &Node) -> Out {
    let cell = |node: &Node| {
        let pair = |(name, _, value): (&str, Place, &Node)| {
            (name.to_owned(), Out::text(text(value).unwrap_or_default()))
        };
        Out::Map(pairs(node).map(pair).collect())
    };
    let pair = |(name, _, value): (&str, Place, &Node)| {
        let items = value.sequence().unwrap_or_default();
        let out = if name == "include" {
            Out::List(items.iter().map(cell).collect())
        } else {
            Out::texts(texts(value))
        };
        (name.to_owned(), out)
    };
    Out::Map(pairs(node).map(pair).collect())
}

fn when(node: &Node, whose: &str, draft: &mut Draft) -> Option<Out> {
    let items = node.sequence().unwrap_or(std::slice::from_ref(node));
    let mut any = Vec::new();
    for item in items {
        let mut all = Vec::new();
        let mut dropped = false;
        for (key, at, value) in pairs(item) {
            match key {
                "branch" | "path" => {
                    let include = get(value, "include").map(texts).unwrap_or_default();
                    let exclude = get(value, "exclude").map(texts).unwrap_or_default();
                    let out = exclude.into_iter().map(|pattern| format!("!{pattern}"));
                    let patterns = texts(value).into_iter().chain(include).chain(out);
                    all.push((key.to_owned(), Out::texts(patterns)));
                }
                "event" => {
                    let events = texts(value);
                    if events.iter().all(|event| event == "tag") {
                        all.push(("tag".to_owned(), Out::text("**")));
                    } else if !events.iter().any(|event| event == "push") {
                        dropped = true;
                        draft.notes.push(note(at, format!("{whose}: `event: {}`", events.join(", "))));
                    }
                }
                _ => draft.note(at, format!("{whose}: `when: {key}`")),
            }
        }
        if !dropped {
            any.push(Out::Map(all));
        }
    }
    // One that asks for nothing matches always.
    let always = any.iter().any(|one| matches!(one, Out::Map(pairs) if pairs.is_empty()));
    match any.len() {
        _ if always => None,
        0 => None,
        1 => any.pop(),
        _ => Some(Out::List(any)),
    }
}

/// Woodpecker's names of variables that we have, too.
fn code(text: &str) -> String {
    rename(text, &|name| {
        Some(match name {
            "CI_COMMIT_SHA" => "WERCKER_GIT_COMMIT",
            "CI_COMMIT_BRANCH" => "WERCKER_GIT_BRANCH",
            "CI_COMMIT_TAG" => "WERCKER_GIT_TAG",
            "CI_WORKSPACE" => "WERCKER_SOURCE_DIR",
            "CI_REPO_NAME" => "WERCKER_GIT_REPOSITORY",
            _ => return None,
        })
    })
}
