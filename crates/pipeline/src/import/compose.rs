//! Compose files: services become services, and the one that is built becomes the box.

use super::draft::{Draft, Job, script};
use super::source::{duration, get, pairs, text, texts, variables};
use super::write::Out;
use crate::yaml::{Node, Place};

pub(super) fn read(root: &Node) -> Draft {
    let mut draft = Draft::default();
    for (key, at, _) in pairs(root) {
        if !matches!(key, "services" | "version" | "name") && !key.starts_with("x-") {
            draft.note(at, format!("`{key}`"));
        }
    }
    let mut job = Job { name: "build".to_owned(), ..Job::default() };
    let services: Vec<(&str, Place, &Node)> =
        get(root, "services").map(|node| pairs(node).collect()).unwrap_or_default();
    for (name, at, node) in ordered(&services) {
        let built = get(node, "build");
        if let Some(built) = built.filter(|_| job.steps.is_empty()) {
            draft.note(
                built.at,
                format!("service {name}: `build`; it became the pipeline: choose an image that can build it"),
            );
            app(&mut job, name, node, &mut draft);
        } else if get(node, "image").is_some() {
            let service = service(name, node, &mut draft);
            job.services.push(service);
        } else {
            draft.note(at, format!("service {name}: it has no image"));
        }
    }
    draft.jobs.push(job);
    draft
}

/// A service stands behind those that it depends on.
fn ordered<'a>(services: &[(&'a str, Place, &'a Node)]) -> Vec<(&'a str, Place, &'a Node)> {
    let mut waiting = services.to_vec();
    let mut out: Vec<(&str, Place, &Node)> = Vec::new();
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|(_, _, node)| {
            let depends = get(node, "depends_on");
            let names = depends.map(|node| {
                let keys = pairs(node).map(|(name, ..)| name.to_owned());
                texts(node).into_iter().chain(keys).collect::<Vec<_>>()
            });
            names.unwrap_or_default().iter().all(|name| !waiting.iter().any(|(other, ..)| other == name))
        });
        // In a circle the order of the file counts.
        out.push(waiting.remove(ready.unwrap_or(0)));
    }
    out
}

/// The service that is built from the source is what the pipeline is about.
fn app(job: &mut Job, name: &str, node: &Node, draft: &mut Draft) {
    let mut more = Vec::new();
    for (key, at, value) in pairs(node) {
        match key {
            "build" | "image" | "depends_on" | "command" => {}
            "environment" => {
                passed_through(name, value, draft);
                job.add_env(variables(value));
            }
            "working_dir" => more.push(("cwd".to_owned(), Out::text(text(value).unwrap_or_default()))),
            "user" => job.box_keys.push(("user".to_owned(), Out::text(text(value).unwrap_or_default()))),
            _ => draft.note(at, format!("service {name}: `{key}`")),
        }
    }
    let command = get(node, "command").map(|node| super::write_words(&texts(node)));
    let command = command.unwrap_or_else(|| "echo say here how it is built and tested".to_owned());
    job.steps.push(script(Some(name.to_owned()), &command, more));
}

/// Notes the variables without a value, which compose takes from around it.
fn passed_through(name: &str, environment: &Node, draft: &mut Draft) {
    let listed = environment.sequence().unwrap_or_default().iter();
    let listed = listed.filter_map(|item| Some((text(item).filter(|text| !text.contains('='))?, item.at)));
    let mapped = pairs(environment).filter(|(.., value)| value.is_null());
    let mapped = mapped.map(|(variable, at, _)| (variable.to_owned(), at));
    for (variable, at) in listed.chain(mapped).collect::<Vec<_>>() {
        let how = format!("write `{variable}: ${variable}` and give it as X_{variable}");
        draft.note(at, format!("service {name}: `environment: {variable}` has no value here: {how}"));
    }
}

/// `${NAME:-default}` and `${NAME-default}` become their default; other forms stay.
fn with_defaults(name: &str, written: &str, at: Place, draft: &mut Draft) -> String {
    let mut out = String::new();
    let mut rest = written;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((inner, behind)) = after.split_once('}') else { break };
        out.push_str(before);
        match inner.split_once(":-").or_else(|| inner.split_once('-')) {
            Some((variable, default)) => {
                out.push_str(default);
                draft.note(
                    at,
                    format!("service {name}: `${{{inner}}}` is taken as {default}, whatever {variable} is"),
                );
            }
            None => out.push_str(&format!("${{{inner}}}")),
        }
        rest = behind;
    }
    out + rest
}

fn service(name: &str, node: &Node, draft: &mut Draft) -> Out {
    let image = get(node, "image");
    let id = image.and_then(text).unwrap_or_default();
    let id = image.map_or_else(String::new, |image| with_defaults(name, &id, image.at, draft));
    let mut out = vec![("id".to_owned(), Out::text(id))];
    out.push(("name".to_owned(), Out::text(name)));
    for (key, at, value) in pairs(node) {
        let one = text(value).unwrap_or_default();
        match key {
            "image" | "build" | "depends_on" => {}
            "command" => out.push(("cmd".to_owned(), Out::text(super::write_words(&texts(value))))),
            "entrypoint" => out.push(("entrypoint".to_owned(), Out::text(super::write_words(&texts(value))))),
            "environment" => {
                passed_through(name, value, draft);
                out.push(("env".to_owned(), Out::variables(&variables(value))));
            }
            "ports"
                if value.sequence().is_some_and(|items| items.iter().all(|item| text(item).is_some())) =>
            {
                out.push(("ports".to_owned(), Out::texts(texts(value))));
            }
            "user" => out.push(("user".to_owned(), Out::text(one))),
            "mem_limit" => memory(&mut out, &one, at, name, draft),
            "cpus" => out.push(("cpus".to_owned(), Out::text(one))),
            "healthcheck" => match ready(value) {
                Some(ready) => out.push(("ready".to_owned(), ready)),
                None => draft.note(at, format!("service {name}: `healthcheck`")),
            },
            "networks" => {
                let aliases: Vec<String> = pairs(value)
                    .filter_map(|(_, _, network)| get(network, "aliases"))
                    .flat_map(texts)
                    .collect();
                if !aliases.is_empty() {
                    out.push(("aliases".to_owned(), Out::texts(aliases)));
                }
            }
            "deploy" => {
                let limits = get(value, "resources").and_then(|node| get(node, "limits"));
                for (limit, at, value) in
                    limits.map(|node| pairs(node).collect::<Vec<_>>()).unwrap_or_default()
                {
                    let one = text(value).unwrap_or_default();
                    match limit {
                        "memory" => memory(&mut out, &one, at, name, draft),
                        "cpus" => out.push(("cpus".to_owned(), Out::text(one))),
                        _ => draft.note(at, format!("service {name}: `deploy: {limit}`")),
                    }
                }
            }
            _ => draft.note(at, format!("service {name}: `{key}`")),
        }
    }
    Out::Map(out)
}

fn memory(out: &mut Vec<(String, Out)>, written: &str, at: Place, name: &str, draft: &mut Draft) {
    let lower = written.to_ascii_lowercase();
    let short = lower.strip_suffix('b').unwrap_or(&lower);
    if crate::config::settings::parse_size(short).is_some_and(|bytes| bytes > 0) {
        out.push(("memory".to_owned(), Out::text(short)));
    } else {
        draft.note(at, format!("service {name}: the limit of memory {written}"));
    }
}

/// A health check's command, and as long as it may fail.
fn ready(node: &Node) -> Option<Out> {
    let test = get(node, "test")?;
    let words = texts(test);
    let command = match words.split_first() {
        Some((first, rest)) if first == "CMD" => super::write_words(rest),
        Some((first, [command])) if first == "CMD-SHELL" => command.clone(),
        Some((first, [])) if first != "NONE" => first.clone(),
        _ => return None,
    };
    let interval = get(node, "interval").and_then(text).and_then(|text| duration(&text, "s"));
    let interval = match interval {
        Some(text) => crate::config::settings::parse_duration(&text)?,
        // As compose has it.
        None => std::time::Duration::from_secs(30),
    };
    let retries: u32 = get(node, "retries").and_then(text).and_then(|text| text.parse().ok()).unwrap_or(3);
    let limit = interval.saturating_mul(retries.clamp(1, 100)).min(std::time::Duration::from_secs(3600));
    let limit = crate::config::settings::print_duration(limit);
    // Compose writes a dollar as two.
    Some(Out::map([("command", Out::text(command.replace("$$", "$"))), ("timeout", Out::text(limit))]))
}
