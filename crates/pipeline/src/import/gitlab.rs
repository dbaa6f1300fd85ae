//! `.gitlab-ci.yml`: jobs in stages.

use super::draft::{Draft, Job, script};
use super::source::{duration, get, is_true, note, pairs, rename, text, texts, variables};
use super::write::Out;
use crate::yaml::{Meaning, Node, Place};

/// Keys at the top that are no jobs.
const TOP: [&str; 14] = [
    "stages",
    "variables",
    "default",
    "image",
    "services",
    "before_script",
    "after_script",
    "cache",
    "include",
    "workflow",
    "pages",
    "spec",
    "types",
    "retry",
];

/// Keys of a job that may also stand in `default` or at the top.
const INHERITED: [&str; 8] =
    ["image", "services", "before_script", "after_script", "cache", "retry", "timeout", "artifacts"];

pub(super) fn read(root: &Node) -> Draft {
    let mut draft = Draft::default();
    for (key, at, _) in pairs(root) {
        if matches!(key, "include" | "workflow" | "spec") {
            draft.note(at, format!("`{key}`"));
        }
    }
    let stages = get(root, "stages").or_else(|| get(root, "types")).map(texts);
    let mut stages = stages.unwrap_or_else(|| ["build", "test", "deploy"].map(str::to_owned).to_vec());
    stages.insert(0, ".pre".to_owned());
    stages.push(".post".to_owned());
    let mut placed: Vec<(String, Vec<String>)> =
        stages.into_iter().map(|stage| (stage, Vec::new())).collect();
    let mut explicit = false;
    let mut publishing = Vec::new();
    for (name, at, node) in pairs(root) {
        if name.starts_with('.') || (TOP.contains(&name) && name != "pages") || node.mapping().is_none() {
            continue;
        }
        let view = View::new(root, node, &mut draft);
        if view.get("trigger").is_some() {
            draft.note(at, format!("job {name}: `trigger`"));
            continue;
        }
        let stage = view.get("stage").and_then(text).unwrap_or_else(|| "test".to_owned());
        match placed.iter_mut().find(|(known, _)| *known == stage) {
            Some((_, jobs)) => jobs.push(name.to_owned()),
            None => placed.push((stage.clone(), vec![name.to_owned()])),
        }
        explicit |= view.get("needs").is_some();
        if view.get("artifacts").and_then(|artifacts| get(artifacts, "paths")).is_some() {
            publishing.push(name.to_owned());
        }
        let job = job(name, at, &view, root, &mut draft);
        draft.jobs.push(job);
    }
    link(&mut draft, root, &placed, explicit, &publishing);
    draft
}

/// What each job waits for and is given.
fn link(
    draft: &mut Draft,
    root: &Node,
    placed: &[(String, Vec<String>)],
    explicit: bool,
    publishing: &[String],
) {
    let names: Vec<String> = draft.jobs.iter().map(|job| job.name.clone()).collect();
    let mut order = Vec::new();
    let mut earlier: Vec<String> = Vec::new();
    for (_, jobs) in placed.iter().filter(|(_, jobs)| !jobs.is_empty()) {
        for name in jobs {
            let node = get(root, name);
            let listed = |key: &str| {
                let items = node.and_then(|node| get(node, key))?;
                let one = |item: &Node| text(item).or_else(|| get(item, "job").and_then(text));
                let items: Vec<String> =
                    items.sequence().unwrap_or_default().iter().filter_map(one).collect();
                Some(items.into_iter().filter(|item| names.contains(item)).collect::<Vec<_>>())
            };
            let needs = listed("needs");
            let given = listed("dependencies").or_else(|| needs.clone()).unwrap_or_else(|| earlier.clone());
            let Some(job) = draft.jobs.iter_mut().find(|job| job.name == *name) else { continue };
            job.artifacts = given.into_iter().filter(|name| publishing.contains(name)).collect();
            if explicit {
                // Without `needs`, all of the stages before.
                job.needs = needs.unwrap_or_else(|| earlier.clone());
            }
            order.push(name.clone());
        }
        earlier.extend(jobs.iter().cloned());
    }
    draft.jobs.sort_by_key(|job| order.iter().position(|name| *name == job.name));
    if !explicit {
        draft.stages = placed.iter().map(|(_, jobs)| jobs.clone()).collect();
    }
}

/// A job with what it extends and inherits, the nearest first.
struct View<'a> {
    layers: Vec<&'a Node>,
}

impl<'a> View<'a> {
    fn new(root: &'a Node, job: &'a Node, draft: &mut Draft) -> View<'a> {
        let mut layers = vec![job];
        let mut next = 0;
        // Bounded, because jobs may extend each other in circles.
        while let Some(layer) = layers.get(next).copied().filter(|_| next < 10) {
            next += 1;
            let Some(extends) = get(layer, "extends") else { continue };
            // Of several the last one counts most.
            for name in texts(extends).iter().rev() {
                match get(root, name) {
                    Some(other) => layers.push(other),
                    None => draft.note(extends.at, format!("`extends: {name}`: not in this file")),
                }
            }
        }
        View { layers }
    }

    /// The value of a key of the job itself.
    fn get(&self, key: &str) -> Option<&'a Node> {
        self.layers.iter().find_map(|layer| get(layer, key))
    }

    /// The value of a key, or what all jobs have.
    fn inherited(&self, root: &'a Node, key: &str) -> Option<&'a Node> {
        self.get(key)
            .or_else(|| get(root, "default").and_then(|all| get(all, key)))
            .or_else(|| get(root, key))
    }
}

fn job(name: &str, at: Place, view: &View<'_>, root: &Node, draft: &mut Draft) -> Job {
    let mut job = Job { name: name.to_owned(), ..Job::default() };
    job.add_env(get(root, "variables").map(variables).unwrap_or_default());
    for layer in view.layers.iter().rev() {
        job.add_env(get(layer, "variables").map(variables).unwrap_or_default());
    }
    for (_, value) in &mut job.env {
        *value = code(value);
    }
    if let Some(image) = view.inherited(root, "image") {
        for (key, at, value) in pairs(image).filter(|(key, ..)| *key != "name") {
            // An empty entry point is none, as in a box.
            if key != "entrypoint" || texts(value).iter().any(|word| !word.is_empty()) {
                draft.note(at, format!("job {name}: `image: {key}`"));
            }
        }
        job.image = text(image).or_else(|| get(image, "name").and_then(text)).map(|image| code(&image));
    } else {
        draft.note(at, format!("job {name}: it names no image, so it gets {}", super::draft::DEFAULT_IMAGE));
    }
    for service in view.inherited(root, "services").and_then(Node::sequence).unwrap_or_default() {
        let (service, notes) = service_of(service);
        job.services.extend(service);
        draft.notes.extend(notes);
    }
    let lines = |key: &str| view.inherited(root, key).map(texts).filter(|lines| !lines.is_empty());
    for (title, key) in [(Some("before_script"), "before_script"), (None, "script")] {
        if let Some(lines) = lines(key) {
            reference(view.inherited(root, key), draft);
            for unknown in super::source::unknown(&code(&lines.join("\n"))) {
                let at = view.inherited(root, key).map_or(at, |node| node.at);
                draft.note(at, format!("job {name}: the variable {unknown}"));
            }
            job.steps.push(script(title.map(str::to_owned), &code(&super::lines(&lines)), Vec::new()));
        }
    }
    if let Some(lines) = lines("after_script") {
        job.after.push(script(None, &code(&super::lines(&lines)), Vec::new()));
    }
    settings(&mut job, view, root, draft);
    for layer in &view.layers {
        for (key, at, _) in pairs(layer) {
            let known = INHERITED.contains(&key)
                || matches!(
                    key,
                    "script"
                        | "stage"
                        | "extends"
                        | "needs"
                        | "dependencies"
                        | "variables"
                        | "only"
                        | "except"
                        | "rules"
                        | "when"
                        | "allow_failure"
                        | "parallel"
                        | "resource_group"
                );
            if !known {
                draft.note(at, format!("job {name}: `{key}`"));
            }
        }
    }
    job
}

/// `!reference` looks like a list in the list.
fn reference(node: Option<&Node>, draft: &mut Draft) {
    for item in node.and_then(Node::sequence).unwrap_or_default() {
        let first = item.sequence().and_then(|items| items.first()).and_then(Node::text);
        if first.is_some_and(|first| first.starts_with('.')) {
            draft.note(item.at, "`!reference` was taken as commands: write them out");
        }
    }
}

fn service_of(node: &Node) -> (Option<Out>, Vec<sealift_model::diagnostic::Diagnostic>) {
    if let Some(image) = text(node) {
        return (Some(Out::text(code(&image))), Vec::new());
    }
    let mut out = Vec::new();
    let mut notes = Vec::new();
    for (key, at, value) in pairs(node) {
        let words = texts(value);
        match key {
            "name" => out.insert(0, ("id".to_owned(), Out::text(code(&text(value).unwrap_or_default())))),
            "alias" => {
                out.push((
                    "aliases".to_owned(),
                    Out::texts(words.iter().flat_map(|one| one.split([' ', ','])).map(str::to_owned)),
                ));
            }
            "command" => out.push(("cmd".to_owned(), Out::text(super::write_words(&words)))),
            "entrypoint" => out.push(("entrypoint".to_owned(), Out::text(super::write_words(&words)))),
            "variables" => out.push(("env".to_owned(), Out::variables(&variables(value)))),
            _ => notes.push(note(at, format!("`{key}` of a service"))),
        }
    }
    (Some(Out::Map(out)), notes)
}

fn settings(job: &mut Job, view: &View<'_>, root: &Node, draft: &mut Draft) {
    let name = job.name.clone();
    if let Some(limit) = view.inherited(root, "timeout") {
        match text(limit).and_then(|text| duration(&text, "s")) {
            Some(limit) => job.set("timeout", Out::text(limit)),
            None => draft.note(limit.at, format!("job {name}: `timeout`")),
        }
    }
    if let Some(retry) = view.inherited(root, "retry") {
        let max = get(retry, "max").or(Some(retry)).and_then(text).and_then(|text| text.parse::<u32>().ok());
        if let Some(max) = max.filter(|max| (1..10).contains(max)) {
            job.set("retry", Out::Plain(max.to_string()));
        }
        if let Some(when) = get(retry, "when") {
            draft.note(when.at, format!("job {name}: `retry: when`; it is tried again after any failure"));
        }
    }
    if let Some(soft) = view.get("allow_failure") {
        let codes = get(soft, "exit_codes").map(texts).unwrap_or_default();
        if !codes.is_empty() {
            job.set("soft-fail", Out::List(codes.into_iter().map(Out::Plain).collect()));
        } else if is_true(soft) {
            job.set("soft-fail", Out::Plain("true".to_owned()));
        }
    }
    conditions(job, view, draft);
    if let Some(group) = view.get("resource_group").and_then(text) {
        job.set("concurrency", Out::text(code(&group)));
    }
    if let Some(parallel) = view.get("parallel") {
        match get(parallel, "matrix").and_then(matrix) {
            Some(matrix) => job.set("matrix", matrix),
            None => draft.note(parallel.at, format!("job {name}: `parallel`")),
        }
    }
    if let Some(cache) = view.inherited(root, "cache") {
        caches(job, cache, draft);
    }
    if let Some(artifacts) = view.inherited(root, "artifacts") {
        for (key, at, value) in pairs(artifacts) {
            match key {
                "paths" => job.set("publish", Out::texts(texts(value))),
                _ => draft.note(at, format!("job {name}: `artifacts: {key}`")),
            }
        }
    }
}

/// `when: manual`, `only`, `except` and `rules`.
fn conditions(job: &mut Job, view: &View<'_>, draft: &mut Draft) {
    let name = job.name.clone();
    let mut manual = false;
    match view.get("when").and_then(text).as_deref() {
        None | Some("on_success") => {}
        Some("manual") => manual = true,
        Some(other) => {
            let at = view.get("when").map(|node| node.at).unwrap_or_default();
            draft.note(at, format!("job {name}: `when: {other}`"));
        }
    }
    let unsaid = draft.notes.len();
    let (mut branches, mut tags, mut paths) = (Vec::new(), Vec::new(), Vec::new());
    for (key, sign) in [("only", ""), ("except", "!")] {
        let Some(node) = view.get(key) else { continue };
        let refs = if node.mapping().is_some() { get(node, "refs") } else { Some(node) };
        for reference in refs.map(texts).unwrap_or_default() {
            match (reference.as_str(), glob(&reference)) {
                ("branches", _) => branches.push(format!("{sign}**")),
                ("tags", _) => tags.push(format!("{sign}**")),
                ("merge_requests" | "web" | "schedules" | "pushes" | "triggers" | "api" | "pipelines", _)
                | (_, None) => {
                    draft.note(node.at, format!("job {name}: `{key}: {reference}`"));
                }
                (_, Some(glob)) => branches.push(format!("{sign}{glob}")),
            }
        }
        paths.extend(
            get(node, "changes").map(texts).unwrap_or_default().iter().map(|path| format!("{sign}{path}")),
        );
        for (inner, at, _) in pairs(node).filter(|(inner, ..)| !matches!(*inner, "refs" | "changes")) {
            draft.note(at, format!("job {name}: `{key}: {inner}`"));
        }
    }
    let mut any = Vec::new();
    // A run is of a branch or of a tag, so these are two ways to match; what only excludes is none.
    tags.retain(|tag| !tag.starts_with('!'));
    for (kind, patterns) in [("branch", branches), ("tag", tags)] {
        if !patterns.is_empty() {
            any.push(condition(kind, patterns, &paths));
        }
    }
    if any.is_empty() && !paths.is_empty() {
        any.push(Out::map([("path", Out::texts(paths))]));
    }
    for rule in view.get("rules").and_then(Node::sequence).unwrap_or_default() {
        let changes =
            get(rule, "changes").map(|node| texts(get(node, "paths").unwrap_or(node))).unwrap_or_default();
        let when = get(rule, "when").and_then(text).unwrap_or_default();
        let test = get(rule, "if").and_then(text);
        let read = test.as_deref().map_or(Some(None), |test| rule_test(test).map(Some));
        match (read, when.as_str()) {
            (_, "never") | (None, _) => {
                let what = test.unwrap_or_else(|| "a rule".to_owned());
                draft.note(rule.at, format!("job {name}: rule `{what}` {when}").trim_end().to_owned());
                continue;
            }
            (Some(Some((kind, pattern))), _) => any.push(condition(kind, vec![pattern], &changes)),
            (Some(None), _) if !changes.is_empty() => any.push(Out::map([("path", Out::texts(changes))])),
            // A last rule without a test: in all other cases.
            (Some(None), _) if any.is_empty() => {}
            (Some(None), _) => any.clear(),
        }
        manual |= when == "manual";
        for (key, at, value) in pairs(rule) {
            match key {
                "if" | "changes" | "when" => {}
                "allow_failure" if is_true(value) => job.set("soft-fail", Out::Plain("true".to_owned())),
                "allow_failure" => {}
                _ => draft.note(at, format!("job {name}: `rules: {key}`")),
            }
        }
    }
    // What was asked for and cannot be said must not run more often than it did.
    if draft.notes.len() > unsaid && any.is_empty() {
        manual = true;
    }
    match any.len() {
        0 => {}
        1 => any.into_iter().for_each(|one| job.set("when", one)),
        _ => job.set("when", Out::List(any)),
    }
    if manual {
        job.set("approval", Out::Plain("true".to_owned()));
    }
}

fn condition(kind: &str, patterns: Vec<String>, paths: &[String]) -> Out {
    let mut pairs = vec![(kind.to_owned(), Out::texts(patterns))];
    if !paths.is_empty() {
        pairs.push(("path".to_owned(), Out::texts(paths.to_vec())));
    }
    Out::Map(pairs)
}

/// The tests that say something of the branch or the tag alone.
fn rule_test(test: &str) -> Option<(&'static str, String)> {
    let test = test.trim();
    let variable = test.split([' ', '=', '!']).next().unwrap_or(test);
    let kind = match variable {
        "$CI_COMMIT_BRANCH" | "$CI_COMMIT_REF_NAME" => "branch",
        "$CI_COMMIT_TAG" => "tag",
        _ => return None,
    };
    let rest = test.strip_prefix(variable)?.trim();
    let quoted =
        |text: &str| Some(text.trim().strip_prefix(['"', '\''])?.strip_suffix(['"', '\''])?.to_owned());
    let pattern = if rest.is_empty() {
        "**".to_owned()
    } else if let Some(value) = rest.strip_prefix("==") {
        match value.trim() {
            "$CI_DEFAULT_BRANCH" => "main".to_owned(),
            value => quoted(value)?,
        }
    } else if let Some(value) = rest.strip_prefix("!=") {
        format!("!{}", quoted(value)?)
    } else {
        glob(rest.strip_prefix("=~")?.trim())?
    };
    Some((kind, pattern))
}

/// A name, or a regular expression that is no more than a beginning or a whole.
fn glob(reference: &str) -> Option<String> {
    let Some(inner) = reference.strip_prefix('/') else {
        return (!reference.contains(['@', '$'])).then(|| reference.to_owned());
    };
    let inner = inner.strip_suffix('/')?.replace("\\/", "/").replace("\\.", ".");
    let begins = inner.strip_prefix('^');
    let body = begins.unwrap_or(&inner);
    let (body, ends) = body.strip_suffix('$').map_or((body, false), |body| (body, true));
    let body = body.strip_suffix(".*").unwrap_or(body);
    let open = if inner.ends_with(".*$") { false } else { ends };
    if body.chars().any(|c| "\\[](){}*+?|^$".contains(c)) {
        return None;
    }
    Some(format!("{}{body}{}", if begins.is_some() { "" } else { "**" }, if open { "" } else { "**" }))
}

/// One map of variables; several maps only where each gives a whole cell.
fn matrix(node: &Node) -> Option<Out> {
    let maps = node.sequence()?;
    let axes = |map: &Node| {
        Out::Map(pairs(map).map(|(name, _, values)| (name.to_owned(), Out::texts(texts(values)))).collect())
    };
    if let [one] = maps {
        return Some(axes(one));
    }
    let mut cells = Vec::new();
    for map in maps {
        let mut cell = Vec::new();
        for (name, _, values) in pairs(map) {
            let [value] = texts(values).try_into().ok()?;
            cell.push((name.to_owned(), Out::Text(value)));
        }
        cells.push(Out::Map(cell));
    }
    Some(Out::map([("include", Out::List(cells))]))
}

fn caches(job: &mut Job, node: &Node, draft: &mut Draft) {
    let list = node.sequence();
    if list.is_some_and(|list| list.len() > 1) {
        draft.note(node.at, format!("job {}: all caches but the first", job.name));
    }
    let Some(cache) = list.map_or(Some(node), |list| list.first()) else { return };
    let Some(paths) = get(cache, "paths").map(texts).filter(|paths| !paths.is_empty()) else { return };
    let key = get(cache, "key");
    let files = key.and_then(|key| get(key, "files")).map(texts);
    let prefix = key.and_then(|key| get(key, "prefix")).and_then(text).map(|prefix| code(&prefix) + "-");
    let key = match files {
        Some(files) => format!("{}{{{{ checksum {} }}}}", prefix.unwrap_or_default(), files.join(" ")),
        None => key.and_then(text).map_or_else(|| "default".to_owned(), |key| code(&key)),
    };
    let key = templated(&key);
    let mut out = vec![("key".to_owned(), Out::Text(key)), ("paths".to_owned(), Out::texts(paths))];
    if get(cache, "when").and_then(text).is_some_and(|when| when == "always") {
        out.push(("keep-on-failure".to_owned(), Out::Plain("true".to_owned())));
    }
    for (key, at, value) in pairs(cache) {
        match key {
            "key" | "paths" | "when" => {}
            "fallback_keys" => {
                let keys = texts(value).iter().map(|key| templated(&code(key))).collect::<Vec<_>>();
                out.push(("fallback".to_owned(), Out::texts(keys)));
            }
            "untracked" if value.meaning() == Some(Meaning::Bool(false)) => {}
            _ => draft.note(at, format!("job {}: `cache: {key}`", job.name)),
        }
    }
    job.set("cache", Out::Map(out));
}

/// `$NAME` as `${NAME}`: keys of caches know no other form.
fn templated(text: &str) -> String {
    super::braced(text)
}

/// GitLab's names of variables that we have, too.
fn code(text: &str) -> String {
    rename(text, &|name| {
        Some(match name {
            "CI_COMMIT_SHA" => "WERCKER_GIT_COMMIT",
            "CI_COMMIT_BRANCH" | "CI_COMMIT_REF_NAME" => "WERCKER_GIT_BRANCH",
            "CI_COMMIT_TAG" => "WERCKER_GIT_TAG",
            "CI_PROJECT_DIR" => "WERCKER_SOURCE_DIR",
            "CI_PROJECT_NAME" => "WERCKER_GIT_REPOSITORY",
            _ => return None,
        })
    })
}
