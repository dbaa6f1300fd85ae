//! GitHub workflows: jobs of steps.

use super::draft::{Draft, Job, script};
use super::source::{get, is_true, pairs, text, texts, variables};
use super::write::Out;
use crate::yaml::{Node, Place};

pub(super) fn read(root: &Node) -> Draft {
    let mut draft = Draft::default();
    let mut top = Vec::new();
    for (key, at, value) in pairs(root) {
        match key {
            "name" | "run-name" | "jobs" | "defaults" | "env" => {}
            "on" => top.extend(events(value, &mut draft)),
            // Of all jobs together: within one of them it would make the others wait.
            "concurrency" if get(root, "jobs").is_some_and(|jobs| pairs(jobs).count() == 1) => {}
            "concurrency" => {
                draft.note(at, "`concurrency` of all jobs together; a pipeline can have its own");
            }
            _ => draft.note(at, format!("`{key}`")),
        }
    }
    for (name, at, node) in get(root, "jobs").map(|jobs| pairs(jobs).collect::<Vec<_>>()).unwrap_or_default()
    {
        if let Some(uses) = get(node, "uses") {
            draft.note(uses.at, format!("job {name}: `uses`, a workflow of another file"));
            continue;
        }
        let job = Reader { draft: &mut draft, job: Job { name: name.to_owned(), ..Job::default() } };
        let job = job.read(root, node, at, &top);
        draft.jobs.push(job);
    }
    let publishing: Vec<String> = draft
        .jobs
        .iter()
        .filter(|job| job.keys.iter().any(|(key, _)| key == "publish"))
        .map(|job| job.name.clone())
        .collect();
    let names: Vec<String> = draft.jobs.iter().map(|job| job.name.clone()).collect();
    for job in &mut draft.jobs {
        job.needs.retain(|name| names.contains(name));
        // Whoever asks for uploads gets those of all that it needs.
        let wanted = std::mem::take(&mut job.artifacts);
        if !wanted.is_empty() {
            job.artifacts = job.needs.iter().filter(|name| publishing.contains(name)).cloned().collect();
        }
    }
    draft
}

/// The condition that `on:` is for all jobs.
fn events(node: &Node, draft: &mut Draft) -> Option<(String, Out)> {
    for name in texts(node).into_iter().filter(|name| name != "push") {
        draft.note(node.at, format!("`on: {name}`: whoever starts a run decides when"));
    }
    let mut any = Vec::new();
    for (event, at, value) in pairs(node) {
        if event != "push" {
            draft.note(at, format!("`on: {event}`: whoever starts a run decides when"));
            continue;
        }
        let patterns = |key: &str| {
            let out = get(value, &format!("{key}-ignore")).map(texts).unwrap_or_default();
            let out = out.into_iter().map(|pattern| format!("!{pattern}"));
            let both: Vec<String> = get(value, key)
                .or_else(|| get(value, key))
                .map(texts)
                .unwrap_or_default()
                .into_iter()
                .chain(out)
                .collect();
            both
        };
        let paths = patterns("paths");
        for (kind, key) in [("branch", "branches"), ("tag", "tags")] {
            let list = patterns(key);
            if list.is_empty() {
                continue;
            }
            let mut all = vec![(kind.to_owned(), Out::texts(list))];
            if kind == "branch" && !paths.is_empty() {
                all.push(("path".to_owned(), Out::texts(paths.clone())));
            }
            any.push(Out::Map(all));
        }
        if any.is_empty() && !paths.is_empty() {
            any.push(Out::map([("path", Out::texts(paths))]));
        }
    }
    match any.len() {
        0 => None,
        1 => any.pop().map(|one| ("when".to_owned(), one)),
        _ => Some(("when".to_owned(), Out::List(any))),
    }
}

struct Reader<'a> {
    draft: &'a mut Draft,
    job: Job,
}

impl Reader<'_> {
    fn note(&mut self, at: Place, what: &str) {
        self.draft.note(at, format!("job {}: {what}", self.job.name));
    }

    fn read(mut self, root: &Node, node: &Node, at: Place, top: &[(String, Out)]) -> Job {
        self.job.keys.extend(top.iter().cloned());
        let only = get(root, "jobs").is_some_and(|jobs| pairs(jobs).count() == 1);
        let concurrency = get(node, "concurrency").or_else(|| get(root, "concurrency").filter(|_| only));
        for env in [get(root, "env"), get(node, "env")].into_iter().flatten() {
            self.env(env);
        }
        for (key, at, value) in pairs(node) {
            match key {
                "name" | "steps" | "env" | "defaults" | "concurrency" => {}
                "runs-on" => self.runner(at, value, get(node, "container").is_some()),
                "container" => self.container(value),
                "services" => {
                    for (name, _, service) in pairs(value) {
                        let service = self.service(name, service);
                        self.job.services.push(service);
                    }
                }
                "needs" => self.job.needs = texts(value),
                "strategy" => self.strategy(value),
                "timeout-minutes" => self.minutes(at, value),
                "continue-on-error" if is_true(value) => {
                    self.job.set("soft-fail", Out::Plain("true".to_owned()));
                }
                "continue-on-error" => {}
                "if" => match text(value).as_deref().and_then(condition) {
                    // A pipeline has one `when`; the job's own is the narrower one.
                    Some(pairs) if !pairs.is_empty() => {
                        self.job.keys.retain(|(key, _)| key != "when");
                        self.job.set("when", Out::Map(pairs));
                    }
                    Some(_) => {}
                    None => {
                        // It must not run more often than it did.
                        let test = text(value).unwrap_or_default();
                        let what = if test.contains("always()") {
                            ""
                        } else {
                            self.job.set("approval", Out::Plain("true".to_owned()));
                            "; a person has to agree instead"
                        };
                        self.note(at, &format!("`if: {test}`{what}"));
                    }
                },
                "environment" => {
                    self.note(at, "`environment`; where somebody has to agree, write `approval: true`");
                }
                _ => self.note(at, &format!("`{key}`")),
            }
        }
        if let Some(node) = concurrency {
            self.concurrency(node);
        }
        if get(node, "runs-on").is_none() && get(node, "container").is_none() {
            self.note(at, "it names neither a runner nor a container");
        }
        let directory = |of: &Node| {
            get(of, "defaults")
                .and_then(|one| get(one, "run"))
                .and_then(|one| get(one, "working-directory"))
                .and_then(text)
        };
        let directory = directory(node).or_else(|| directory(root));
        for step in get(node, "steps").and_then(Node::sequence).unwrap_or_default() {
            self.step(step, directory.as_deref());
        }
        self.job
    }

    fn runner(&mut self, at: Place, value: &Node, contained: bool) {
        if contained {
            return;
        }
        let label = texts(value).join(" ");
        let label = self.expression(&label, at);
        let version = label
            .strip_prefix("ubuntu-")
            .filter(|version| version.chars().all(|c| c.is_ascii_digit() || c == '.'));
        self.job.image = Some(format!("ubuntu:{}", version.unwrap_or("24.04")));
        self.note(at, &format!("`runs-on: {label}`; choose an image that has the tools it needs"));
    }

    fn container(&mut self, node: &Node) {
        let image = text(node).or_else(|| get(node, "image").and_then(text)).unwrap_or_default();
        self.job.image = Some(self.expression(&image, node.at));
        for (key, at, value) in pairs(node) {
            match key {
                "image" => {}
                "env" => self.env(value),
                _ => self.note(at, &format!("`container: {key}`")),
            }
        }
    }

    fn service(&mut self, name: &str, node: &Node) -> Out {
        let image = get(node, "image").and_then(text).unwrap_or_default();
        let image = self.expression(&image, node.at);
        let mut out = vec![("id".to_owned(), Out::Text(image)), ("name".to_owned(), Out::text(name))];
        for (key, at, value) in pairs(node) {
            match key {
                "image" => {}
                "env" => {
                    let env: Vec<(String, String)> = variables(value)
                        .into_iter()
                        .map(|(name, value)| (name, self.expression(&value, at)))
                        .collect();
                    out.push(("env".to_owned(), Out::variables(&env)));
                }
                "ports" => out.push(("ports".to_owned(), Out::texts(texts(value)))),
                "options" => match text(value).as_deref().and_then(health) {
                    Some(command) => {
                        out.push(("ready".to_owned(), Out::map([("command", Out::Text(command))])));
                    }
                    None => self.note(at, &format!("`options` of service {name}")),
                },
                _ => self.note(at, &format!("`{key}` of service {name}")),
            }
        }
        Out::Map(out)
    }

    fn strategy(&mut self, node: &Node) {
        for (key, at, value) in pairs(node) {
            if key != "matrix" {
                self.note(at, &format!("`strategy: {key}`"));
                continue;
            }
            let mut out = Vec::new();
            for (name, at, values) in pairs(value) {
                let Some(items) = values.sequence() else {
                    self.note(at, &format!("`matrix: {name}` is worked out by an expression"));
                    continue;
                };
                if name == "include" || name == "exclude" {
                    let cell = |node: &Node| {
                        let pair = |(name, _, value): (&str, Place, &Node)| {
                            (variable(name), Out::text(text(value).unwrap_or_default()))
                        };
                        Out::Map(pairs(node).map(pair).collect())
                    };
                    if name == "include" {
                        self.note(at, "`matrix: include` adds combinations here, and never widens others");
                    }
                    out.push((name.to_owned(), Out::List(items.iter().map(cell).collect())));
                } else if items.iter().all(|item| text(item).is_some()) {
                    out.push((variable(name), Out::texts(texts(values))));
                } else {
                    self.note(at, &format!("`matrix: {name}` has values that are no texts"));
                }
            }
            let axes: Vec<String> = out.iter().map(|(name, _)| name.clone()).collect();
            for (name, value) in &mut out {
                let Out::List(cells) = value else { continue };
                let all = cells.len();
                // What is left out has to be there.
                cells.retain(|cell| match cell {
                    Out::Map(pairs) if name == "exclude" => pairs.iter().all(|(axis, _)| axes.contains(axis)),
                    _ => true,
                });
                if cells.len() < all {
                    self.note(at, "a part of `matrix: exclude`");
                }
            }
            out.retain(|(_, value)| !matches!(value, Out::List(items) if items.is_empty()));
            if !out.is_empty() {
                self.job.set("matrix", Out::Map(out));
            }
        }
    }

    fn minutes(&mut self, at: Place, value: &Node) {
        match text(value).and_then(|text| text.parse::<u64>().ok()).filter(|minutes| *minutes > 0) {
            Some(minutes) => self.job.set("timeout", Out::text(format!("{minutes}m"))),
            None => self.note(at, "`timeout-minutes`"),
        }
    }

    fn concurrency(&mut self, node: &Node) {
        let group = text(node).or_else(|| get(node, "group").and_then(text)).unwrap_or_default();
        let group = self.key(&group, node.at).replace("${WERCKER_GIT_BRANCH}", "{{ branch }}");
        let cancel = get(node, "cancel-in-progress").is_some_and(is_true);
        let mut out = vec![("group".to_owned(), Out::Text(group))];
        if cancel {
            out.push(("cancel-superseded".to_owned(), Out::Plain("true".to_owned())));
        }
        self.job.set("concurrency", Out::Map(out));
    }

    /// Variables of the job: a value that is a secret alone becomes one.
    fn env(&mut self, node: &Node) {
        let mut env = Vec::new();
        for (name, value) in variables(node) {
            match secret(&value) {
                Some(from) => self.job.secrets.push((from, name)),
                None => env.push((name, self.expression(&value, node.at))),
            }
        }
        self.job.add_env(env);
    }

    fn step(&mut self, node: &Node, directory: Option<&str>) {
        if let Some(uses) = get(node, "uses") {
            self.action(node, uses);
            return;
        }
        let Some(run) = get(node, "run") else { return };
        let code = text(run).unwrap_or_default();
        for (file, instead) in [
            ("GITHUB_ENV", "`export` it, which lives on to the next step"),
            ("GITHUB_PATH", "`export PATH`, which lives on to the next step"),
            ("GITHUB_OUTPUT", "`export` it for the next steps, or write it to a file for other pipelines"),
            ("GITHUB_STEP_SUMMARY", "write to $WERCKER_REPORT_MESSAGE_FILE"),
        ] {
            if code.contains(file) {
                self.note(run.at, &format!("`${file}`: {instead}"));
            }
        }
        let mut more = Vec::new();
        let mut last = false;
        let directory =
            get(node, "working-directory").and_then(text).or_else(|| directory.map(str::to_owned));
        more.extend(directory.map(|dir| ("cwd".to_owned(), Out::text(self.expression(&dir, node.at)))));
        for (key, at, value) in pairs(node) {
            match key {
                "run" | "name" | "id" | "working-directory" => {}
                "shell"
                    if text(value)
                        .is_some_and(|shell| shell.starts_with("bash") || shell.starts_with("sh")) => {}
                "env" => {
                    let mut env = Vec::new();
                    for (name, value) in variables(value) {
                        match secret(&value) {
                            Some(from) => self.job.secrets.push((from, name)),
                            None => env.push((name, self.expression(&value, at))),
                        }
                    }
                    if !env.is_empty() {
                        more.push(("env".to_owned(), Out::variables(&env)));
                    }
                }
                "continue-on-error" if is_true(value) => {
                    more.push(("soft-fail".to_owned(), Out::Plain("true".to_owned())));
                }
                "timeout-minutes" => {
                    more.extend(
                        text(value).map(|minutes| ("timeout".to_owned(), Out::text(format!("{minutes}m")))),
                    );
                }
                "if" => {
                    let test = text(value).unwrap_or_default();
                    match condition(&test) {
                        _ if test.contains("always()") => last = true,
                        Some(pairs) if !pairs.is_empty() => more.push(("when".to_owned(), Out::Map(pairs))),
                        Some(_) => {}
                        // What asks for the event may be a deploy; it must not run more often than it did.
                        None if ["github.", "inputs.", "secrets."].iter().any(|word| test.contains(word)) => {
                            self.note(at, &format!("`if: {test}`: the step is left out"));
                            return;
                        }
                        None => self.note(at, &format!("`if: {test}` of a step")),
                    }
                }
                _ => self.note(at, &format!("`{key}` of a step")),
            }
        }
        let code = self.expression(&text(run).unwrap_or_default(), run.at);
        let name = get(node, "name").and_then(text);
        let name = name.map(|name| self.expression(&name, node.at));
        let made = script(name, &code, more);
        if last { self.job.after.push(made) } else { self.job.steps.push(made) }
    }

    /// What the best known actions do, other keys do here.
    fn action(&mut self, node: &Node, uses: &Node) {
        let action = text(uses).unwrap_or_default();
        let name = action.split('@').next().unwrap_or_default();
        let given = |key: &str| get(node, "with").and_then(|with| get(with, key)).and_then(text);
        let lines = |text: String| {
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        match name {
            "actions/checkout" if get(node, "with").is_none() => {}
            "actions/checkout" => {
                self.note(uses.at, "`with` of actions/checkout: the source is there already");
            }
            "actions/cache" => {
                let outside = |path: &String| path.starts_with(['~', '/']) || path.contains("..");
                let (out, paths): (Vec<String>, Vec<String>) =
                    given("path").map(lines).unwrap_or_default().into_iter().partition(outside);
                for path in out {
                    let text = format!(
                        "`path: {path}` of actions/cache lies outside the source: use $WERCKER_CACHE_DIR"
                    );
                    self.note(uses.at, &text);
                }
                let key = given("key").map(|key| self.key(&key, uses.at));
                let Some(key) = key.filter(|_| !paths.is_empty() && !self.has("cache")) else {
                    self.note(uses.at, "`actions/cache`: a pipeline has one cache, of paths in its source");
                    return;
                };
                let mut out = vec![("key".to_owned(), Out::Text(key))];
                let fallback = given("restore-keys").map(lines).unwrap_or_default();
                if !fallback.is_empty() {
                    let keys: Vec<String> = fallback.iter().map(|key| self.key(key, uses.at)).collect();
                    out.push(("fallback".to_owned(), Out::texts(keys)));
                }
                out.push(("paths".to_owned(), Out::texts(paths)));
                self.job.set("cache", Out::Map(out));
            }
            "actions/upload-artifact" if !self.has("publish") => {
                let paths = given("path").map(lines).unwrap_or_default();
                if !paths.is_empty() {
                    self.job.set("publish", Out::texts(paths));
                }
            }
            "actions/download-artifact" => self.job.artifacts.push(String::new()),
            _ if name.contains("/setup-") => {
                self.note(uses.at, &format!("`uses: {action}`; choose an image that has it"));
            }
            _ => self.note(uses.at, &format!("`uses: {action}`; say with commands what it does")),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.job.keys.iter().any(|(known, _)| known == key)
    }

    /// Fills in `${{ .. }}` with what means the same here; what is not known stays, with a note.
    fn expression(&mut self, text: &str, at: Place) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${{") {
            out.push_str(before);
            let Some((inner, tail)) = after.split_once("}}") else {
                out.push_str("${{");
                rest = after;
                break;
            };
            let inner = inner.trim();
            match self.value(inner) {
                Some(value) => out.push_str(&value),
                None => {
                    self.note(at, &format!("the expression `{inner}`"));
                    // A shell stumbles over it, which is better than going on with nothing.
                    out.push_str(&format!("${{{{ {inner} }}}}"));
                }
            }
            rest = tail;
        }
        out.push_str(rest);
        out
    }

    /// An expression in a key, where what is not known becomes plain text.
    fn key(&mut self, text: &str, at: Place) -> String {
        let parts: Vec<String> = text
            .split_inclusive("}}")
            .map(|part| match part.strip_suffix("}}").and_then(|part| part.split_once("${{")) {
                Some((before, inner)) => match checksum(inner.trim()) {
                    Some(sum) => format!("{before}{sum}"),
                    None => part.to_owned(),
                },
                None => part.to_owned(),
            })
            .collect();
        let mut text = self.expression(&parts.concat(), at);
        while let Some((before, after)) = text.split_once("${{") {
            let (inner, tail) = after.split_once("}}").unwrap_or((after, ""));
            let plain: String = inner.chars().filter(char::is_ascii_alphanumeric).collect();
            text = format!("{before}{plain}{tail}");
        }
        text
    }

    fn value(&mut self, inner: &str) -> Option<String> {
        let fixed = match inner {
            "github.sha" => "${WERCKER_GIT_COMMIT}",
            "github.ref" | "github.ref_name" | "github.head_ref" => "${WERCKER_GIT_BRANCH}",
            "github.workspace" => "${WERCKER_SOURCE_DIR}",
            "github.run_id" => "${WERCKER_RUN_ID}",
            "github.workflow" => "workflow",
            "runner.os" => "Linux",
            "runner.temp" => "/tmp",
            _ => "",
        };
        if !fixed.is_empty() {
            return Some(fixed.to_owned());
        }
        let (scope, name) = inner.split_once('.')?;
        if name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-') {
            return None;
        }
        match scope {
            "matrix" => Some(format!("${{{}}}", variable(name))),
            "env" | "vars" => Some(format!("${{{name}}}")),
            "secrets" if name != "GITHUB_TOKEN" => {
                self.job.secrets.push((name.to_owned(), name.to_owned()));
                Some(format!("${{{name}}}"))
            }
            _ => None,
        }
    }
}

/// The name of a matrix's axis as a variable.
fn variable(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

/// The secret that a value is, and nothing else.
fn secret(value: &str) -> Option<String> {
    let inner = value.trim().strip_prefix("${{")?.strip_suffix("}}")?.trim();
    let name = inner.strip_prefix("secrets.")?;
    (crate::config::template::is_variable(name) && name != "GITHUB_TOKEN").then(|| name.to_owned())
}

/// A test that says something of the branch or the tag alone, as pairs of `when`.
fn condition(test: &str) -> Option<Vec<(String, Out)>> {
    let test = test.trim().trim_start_matches("${{").trim_end_matches("}}").trim();
    let mut all = Vec::new();
    for part in test.split("&&").map(str::trim) {
        let quoted = |text: &str| Some(text.trim().strip_prefix('\'')?.strip_suffix('\'')?.to_owned());
        if matches!(part, "success()" | "github.event_name == 'push'") {
            continue;
        }
        if let Some(rest) =
            part.strip_prefix("startsWith(github.ref,").and_then(|rest| rest.strip_suffix(')'))
        {
            let start = quoted(rest)?;
            let (kind, start) = reference(&start)?;
            all.push((kind.to_owned(), Out::text(format!("{start}**"))));
        } else if let Some((left, right)) = part.split_once("==") {
            let value = quoted(right)?;
            let (kind, name) = match left.trim() {
                "github.ref" => reference(&value)?,
                "github.ref_name" => ("branch", value.as_str()),
                _ => return None,
            };
            all.push((kind.to_owned(), Out::text(name)));
        } else {
            return None;
        }
    }
    let kinds: Vec<&String> = all.iter().map(|(kind, _)| kind).collect();
    let twice =
        kinds.iter().enumerate().any(|(index, kind)| kinds.iter().skip(index + 1).any(|other| other == kind));
    (!twice).then_some(all)
}

fn reference(full: &str) -> Option<(&'static str, &str)> {
    full.strip_prefix("refs/heads/")
        .map(|name| ("branch", name))
        .or_else(|| full.strip_prefix("refs/tags/").map(|name| ("tag", name)))
}

/// The command of `--health-cmd` in a service's options.
fn health(options: &str) -> Option<String> {
    let (_, rest) = options.split_once("--health-cmd")?;
    let rest = rest.trim_start_matches(['=', ' ']);
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
    let command = match quote {
        Some(quote) => rest.strip_prefix(quote)?.split(quote).next()?,
        None => rest.split_whitespace().next()?,
    };
    (!command.is_empty()).then(|| command.to_owned())
}

/// `hashFiles(..)` as a key has it; elsewhere there is no such thing.
fn checksum(inner: &str) -> Option<String> {
    let files = inner.strip_prefix("hashFiles(")?.strip_suffix(')')?;
    let files: Vec<&str> = files
        .split(',')
        .map(|file| file.trim().trim_matches(['\'', '"']).trim_start_matches("**/"))
        .collect();
    let plain = files.iter().all(|file| !file.is_empty() && !file.contains(['*', '{', '}', ' ']));
    plain.then(|| format!("{{{{ checksum {} }}}}", files.join(" ")))
}
