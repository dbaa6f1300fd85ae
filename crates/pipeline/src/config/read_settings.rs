//! How settings of Sealift's own form are written. What is wrong here refuses the file: its author asked for it to be
//! read strictly.

use std::time::Duration;

use sealift_model::diagnostic::nearest;

use super::keys::{self, Key};
use super::read::{Reader, suggestion, written};
use super::settings::{
    Approval, Artifacts, Cache, Cell, Concurrency, Matrix, Probe, Ready, Retry, RetryOn, Secret, Settings,
    SoftFail, StepSettings, parse_duration,
};
use super::template::{Part, Template, is_variable};
use super::when::{Condition, Patterns, When};
use crate::yaml::{Meaning, Node, Place};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

impl Reader {
    /// Reads a setting of a pipeline or of its place; false where `name` is none.
    pub(super) fn setting(&mut self, settings: &mut Settings, name: &str, value: &Node) -> bool {
        match name {
            "when" => settings.when = self.when(value),
            "matrix" => settings.matrix = self.matrix(value),
            "timeout" => settings.timeout = self.duration(name, value, DAY),
            "retry" => settings.retry = self.retry(value),
            "soft-fail" => settings.soft_fail = self.soft_fail(value),
            "secrets" => settings.secrets = self.secrets(value),
            "cache" => settings.cache = self.cache(value),
            "artifacts" => settings.artifacts = self.artifacts(value),
            "publish" => settings.publish = self.paths(name, value),
            "approval" => settings.approval = self.approval(value),
            "concurrency" => settings.concurrency = self.concurrency(value),
            "needs" => settings.needs = self.texts(name, value),
            _ => return false,
        }
        true
    }

    /// Reads a setting of a step; false where `name` is none, or where it is a property of the step after all.
    pub(super) fn step_setting(&mut self, settings: &mut StepSettings, name: &str, value: &Node) -> bool {
        match name {
            "when" => settings.when = self.when(value),
            "retry" => settings.retry = self.retry(value),
            "soft-fail" => settings.soft_fail = self.soft_fail(value),
            "timeout" => settings.timeout = self.duration(name, value, DAY),
            // As text it is a property of steps that start containers.
            "env" if value.mapping().is_some() => settings.env = self.variables(value),
            _ => return false,
        }
        true
    }

    /// The values of a map that has no keys but those of the table.
    pub(super) fn keyed<'a>(
        &mut self,
        what: &str,
        table: &'static [Key],
        node: &'a Node,
    ) -> Vec<(String, Place, &'a Node)> {
        if node.mapping().is_none() {
            self.wrong(node.at, what, &format!("a map of {}", keys::names(table, true).join(", ")));
        }
        let mut known = Vec::new();
        for (name, key, value) in self.pairs(node) {
            if table.iter().any(|key| key.name == name) {
                known.push((name, key.at, value));
            } else {
                let names = keys::names(table, true);
                let help = suggestion(&name, &names)
                    .or_else(|| Some(format!("`{what}` knows {}", names.join(", "))));
                self.refuse(key.at, format!("unknown key `{name}` of `{what}`"), help);
            }
        }
        known
    }

    /// Refuses a value: it is not what is expected.
    pub(super) fn wrong(&mut self, at: Place, what: &str, expected: &str) {
        self.refuse(at, format!("`{what}` is not {expected}"), None);
    }

    fn lacks(&mut self, at: Place, what: &str, key: &str) {
        self.refuse(at, format!("`{what}` lacks `{key}`"), None);
    }

    /// A text, or a list of them.
    pub(super) fn texts(&mut self, what: &str, node: &Node) -> Vec<String> {
        let items = node.sequence().unwrap_or(std::slice::from_ref(node));
        let mut texts = Vec::new();
        for item in items {
            match written(item).filter(|text| !text.is_empty()) {
                Some(text) => texts.push(text),
                None => self.wrong(item.at, what, "a text or a list of texts"),
            }
        }
        texts
    }

    fn required_text(&mut self, what: &str, node: &Node) -> String {
        written(node).filter(|text| !text.is_empty()).unwrap_or_else(|| {
            self.wrong(node.at, what, "a text");
            String::new()
        })
    }

    /// Paths below the source.
    fn paths(&mut self, what: &str, node: &Node) -> Vec<String> {
        let paths = self.texts(what, node);
        for path in &paths {
            if path.split('/').any(|part| part == "..") {
                self.refuse(node.at, format!("`{what}` leads out of the source: {path}"), None);
            }
        }
        paths
    }

    fn flag(&mut self, what: &str, node: &Node) -> bool {
        match node.meaning() {
            Some(Meaning::Bool(flag)) => flag,
            _ => {
                self.wrong(node.at, what, "true or false");
                false
            }
        }
    }

    fn whole(&mut self, what: &str, node: &Node, least: i64, most: i64) -> Option<i64> {
        match node.meaning() {
            Some(Meaning::Int(number)) if (least..=most).contains(&number) => Some(number),
            _ => {
                self.wrong(node.at, what, &format!("a whole number from {least} to {most}"));
                None
            }
        }
    }

    fn duration(&mut self, what: &str, node: &Node, longest: Duration) -> Option<Duration> {
        let duration = written(node).as_deref().and_then(parse_duration);
        let Some(duration) = duration else {
            self.wrong(node.at, what, "a duration such as 90s, 20m or 1h30m");
            return None;
        };
        if duration > longest {
            let hours = longest.as_secs() / 3600;
            self.refuse(node.at, format!("`{what}` is longer than {hours}h, the longest there is"), None);
        }
        Some(duration)
    }

    fn when(&mut self, node: &Node) -> Option<When> {
        let items = node.sequence().unwrap_or(std::slice::from_ref(node));
        let mut conditions = Vec::new();
        for item in items {
            let mut condition = Condition::default();
            for (name, _, value) in self.keyed("when", keys::WHEN, item) {
                let patterns = Some(Patterns::new(self.texts(&name, value)));
                match name.as_str() {
                    "branch" => condition.branch = patterns,
                    "tag" => condition.tag = patterns,
                    _ => condition.path = patterns,
                }
            }
            conditions.push(condition);
        }
        Some(When(conditions))
    }

    fn matrix(&mut self, node: &Node) -> Option<Matrix> {
        let mut matrix = Matrix::default();
        if node.mapping().is_none() {
            self.wrong(node.at, "matrix", "a map of variables with their values");
            return None;
        }
        for (name, key, value) in self.pairs(node) {
            match name.as_str() {
                "exclude" => matrix.exclude = self.cells(&name, value),
                "include" => matrix.include = self.cells(&name, value),
                _ => {
                    self.variable_name(&name, key.at);
                    let items = value.sequence().unwrap_or(std::slice::from_ref(value));
                    let values = items.iter().filter_map(|item| self.variable(&name, item)).collect();
                    matrix.axes.push((name, values));
                }
            }
        }
        match matrix.cells() {
            None => {
                let message = format!("`matrix` has more than {} cells", Matrix::MAX_CELLS);
                self.refuse(node.at, message, Some("split it into two pipelines".to_owned()));
            }
            Some(cells) if cells.is_empty() => {
                self.refuse(node.at, "`matrix` has no cells: nothing would run".to_owned(), None);
            }
            Some(_) => {}
        }
        let strange = matrix.exclude.iter().flatten().find(|(name, value)| {
            !matrix.axes.iter().any(|(axis, values)| axis == name && values.contains(value))
        });
        if let Some((name, value)) = strange {
            let message = format!("`exclude` names {name}: {value}, which `matrix` has not");
            let help = nearest(name, matrix.axes.iter().map(|(axis, _)| axis.as_str()))
                .filter(|near| near != name)
                .map(|near| format!("did you mean `{near}`?"));
            self.refuse(node.at, message, help);
        }
        Some(matrix)
    }

    fn cells(&mut self, what: &str, node: &Node) -> Vec<Cell> {
        let items = node.sequence().unwrap_or_else(|| {
            self.wrong(node.at, what, "a list of maps");
            &[]
        });
        items.iter().map(|item| self.variables(item)).filter(|cell| !cell.is_empty()).collect()
    }

    fn variable_name(&mut self, name: &str, at: Place) {
        if !is_variable(name) {
            let help = Some("letters, digits and `_`, no digit at first".to_owned());
            self.refuse(at, format!("`{name}` is not the name of a variable"), help);
        }
    }

    /// A map of variables; names stay as written.
    fn variables(&mut self, node: &Node) -> Cell {
        if node.mapping().is_none() {
            self.refuse(node.at, "variables are a map: `NAME: value`".to_owned(), None);
        }
        let mut variables = Cell::new();
        for (name, key, value) in self.pairs(node) {
            self.variable_name(&name, key.at);
            let text = self.variable(&name, value);
            variables.extend(text.map(|text| (name, text)));
        }
        variables
    }

    /// The value of a variable, which may be empty, unlike other texts.
    fn variable(&mut self, name: &str, node: &Node) -> Option<String> {
        let text = written(node).or_else(|| node.is_null().then(String::new));
        if text.is_none() {
            self.wrong(node.at, name, "a text");
        }
        text
    }

    fn retry(&mut self, node: &Node) -> Option<Retry> {
        let most = i64::from(Retry::MAX_ATTEMPTS);
        let on = vec![RetryOn::Failed, RetryOn::TimedOut];
        let mut retry = Retry { attempts: 2, delay: Duration::ZERO, on };
        if node.mapping().is_none() {
            let again = self.whole("retry", node, 0, most - 1)?;
            retry.attempts = u32::try_from(again + 1).ok()?;
            return Some(retry);
        }
        for (name, at, value) in self.keyed("retry", keys::RETRY, node) {
            match name.as_str() {
                "attempts" => {
                    retry.attempts = u32::try_from(self.whole(&name, value, 1, most)?).ok()?;
                }
                "delay" => retry.delay = self.duration(&name, value, HOUR)?,
                _ => {
                    retry.on.clear();
                    for word in self.texts(&name, value) {
                        match word.as_str() {
                            "failed" => retry.on.push(RetryOn::Failed),
                            "timed-out" => retry.on.push(RetryOn::TimedOut),
                            _ => {
                                let help = suggestion(&word, &["failed", "timed-out"]);
                                self.refuse(value.at, format!("`on` knows no `{word}`"), help);
                            }
                        }
                    }
                    if retry.on.is_empty() && !self.refused {
                        self.wrong(at, &name, "failed, timed-out or a list of both");
                    }
                }
            }
        }
        Some(retry)
    }

    fn soft_fail(&mut self, node: &Node) -> Option<SoftFail> {
        if let Some(Meaning::Bool(soft)) = node.meaning() {
            return Some(if soft { SoftFail::Any } else { SoftFail::Never });
        }
        let items = node.sequence().unwrap_or(std::slice::from_ref(node));
        let mut codes = Vec::new();
        for item in items {
            match item.meaning() {
                Some(Meaning::Int(code)) if (1..=255).contains(&code) => codes.extend(u8::try_from(code)),
                _ => self.wrong(item.at, "soft-fail", "true, false or a list of exit codes from 1 to 255"),
            }
        }
        if items.is_empty() {
            self.wrong(node.at, "soft-fail", "true, false or a list of exit codes from 1 to 255");
        }
        Some(SoftFail::ExitCodes(codes))
    }

    fn secrets(&mut self, node: &Node) -> Vec<Secret> {
        let Some(items) = node.sequence() else {
            self.wrong(node.at, "secrets", "a list of names");
            return Vec::new();
        };
        let mut secrets: Vec<Secret> = Vec::new();
        for item in items {
            let mut secret = Secret { from: String::new(), variable: String::new() };
            if item.mapping().is_some() {
                for (name, _, value) in self.keyed("secrets", keys::SECRET, item) {
                    let text = self.required_text(&name, value);
                    if name == "from" { secret.from = text } else { secret.variable = text }
                }
                if secret.from.is_empty() {
                    self.lacks(item.at, "secrets", "from");
                }
            } else {
                secret.from = self.required_text("secrets", item);
            }
            if secret.variable.is_empty() {
                secret.variable.clone_from(&secret.from);
            }
            self.variable_name(&secret.variable, item.at);
            if secrets.iter().any(|known| known.variable == secret.variable) {
                self.refuse(item.at, format!("two secrets become the variable {}", secret.variable), None);
            }
            secrets.push(secret);
        }
        secrets
    }

    fn template(&mut self, what: &str, node: &Node) -> Template {
        let text = self.required_text(what, node);
        self.template_of(&text, node.at)
    }

    fn template_of(&mut self, text: &str, at: Place) -> Template {
        Template::parse(text).unwrap_or_else(|error| {
            self.refuse(at, error.to_string(), None);
            Template::default()
        })
    }

    fn cache(&mut self, node: &Node) -> Option<Cache> {
        let mut cache = Cache {
            key: Template::default(),
            fallback: Vec::new(),
            paths: Vec::new(),
            keep_on_failure: false,
        };
        for (name, _, value) in self.keyed("cache", keys::CACHE, node) {
            match name.as_str() {
                "key" => cache.key = self.template(&name, value),
                "fallback" => {
                    for text in self.texts(&name, value) {
                        let template = self.template_of(&text, value.at);
                        cache.fallback.push(template);
                    }
                }
                "paths" => cache.paths = self.paths(&name, value),
                _ => cache.keep_on_failure = self.flag(&name, value),
            }
        }
        if !self.refused && cache.key.parts.is_empty() {
            self.lacks(node.at, "cache", "key");
        }
        if !self.refused && cache.paths.is_empty() {
            self.lacks(node.at, "cache", "paths");
        }
        Some(cache)
    }

    fn artifacts(&mut self, node: &Node) -> Option<Artifacts> {
        let mut artifacts = Artifacts::default();
        for (name, _, value) in self.keyed("artifacts", keys::ARTIFACTS, node) {
            artifacts.from = self.texts(&name, value);
        }
        Some(artifacts)
    }

    fn approval(&mut self, node: &Node) -> Option<Approval> {
        match node.meaning() {
            Some(Meaning::Bool(wanted)) => Some(Approval { wanted, question: None }),
            _ => Some(Approval { wanted: true, question: Some(self.required_text("approval", node)) }),
        }
    }

    fn concurrency(&mut self, node: &Node) -> Option<Concurrency> {
        let mut concurrency = Concurrency { group: Template::default(), cancel_superseded: false };
        if node.mapping().is_none() {
            concurrency.group = self.template("concurrency", node);
        } else {
            for (name, _, value) in self.keyed("concurrency", keys::CONCURRENCY, node) {
                if name == "group" {
                    concurrency.group = self.template(&name, value);
                } else {
                    concurrency.cancel_superseded = self.flag(&name, value);
                }
            }
            if !self.refused && concurrency.group.parts.is_empty() {
                self.lacks(node.at, "concurrency", "group");
            }
        }
        if concurrency.group.parts.iter().any(|part| matches!(part, Part::Checksum(_))) {
            let help = "a group is known before the source is read".to_owned();
            self.refuse(node.at, "a group has no checksums".to_owned(), Some(help));
        }
        Some(concurrency)
    }

    pub(super) fn ready(&mut self, node: &Node) -> Option<Ready> {
        let mut probes = Vec::new();
        let mut timeout = Ready::DEFAULT_TIMEOUT;
        for (name, _, value) in self.keyed("ready", keys::READY, node) {
            match name.as_str() {
                "port" => {
                    let port = self.whole(&name, value, 1, 65535)?;
                    probes.push(Probe::Port(u16::try_from(port).ok()?));
                }
                "log" => probes.push(Probe::Log(self.required_text(&name, value))),
                "command" => probes.push(Probe::Command(self.required_text(&name, value))),
                _ => timeout = self.duration(&name, value, HOUR)?,
            }
        }
        if probes.len() != 1 && !self.refused {
            self.wrong(node.at, "ready", "a map with one of port, log and command");
        }
        probes.pop().map(|probe| Ready { probe, timeout })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::settings::{Probe, RetryOn, SoftFail};
    use super::super::{Config, parse};

    fn messages(text: &str) -> Vec<String> {
        let found = match parse(text) {
            Ok((_, found)) | Err(found) => found,
        };
        found.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message)).collect()
    }

    fn config(text: &str) -> Config {
        let (config, found) = parse(text).unwrap();
        assert_eq!(found, []);
        config
    }

    #[test]
    fn a_value_of_a_matrix_may_be_empty() {
        let config = config("sealift: 1\nbox: a\nb:\n  matrix: {A: ['', x]}\n  steps: [a]\n");
        let matrix = config.pipelines[0].settings.matrix.clone().unwrap();
        assert_eq!(matrix.axes, [("A".to_owned(), vec![String::new(), "x".to_owned()])]);
    }

    #[test]
    fn reads_every_setting() {
        let config = config(
            "sealift: 1\nbox: {id: a, memory: 512m, cpus: 1.5, user: me}\nservices:\n  - id: pg\n    aliases: [db]\n    ready: {port: 5432, timeout: 30s}\nbuild:\n  when: {branch: [main, '!x'], tag: v*}\n  matrix: {RUBY: [3.10, 3.2], exclude: [{RUBY: 3.2}], include: [{RUBY: head}]}\n  timeout: 1h30m\n  retry: {attempts: 3, delay: 10s, on: timed-out}\n  soft-fail: [3]\n  secrets: [TOKEN, {from: A, as: B}]\n  cache: {key: 'x-{{ checksum a b }}', fallback: x-, paths: [v], keep-on-failure: true}\n  publish: dist\n  approval: Sure?\n  concurrency: {group: g, cancel-superseded: true}\n  steps:\n    - script:\n        code: make\n        when: {branch: main}\n        retry: 2\n        soft-fail: true\n        timeout: 90s\n        env: {A: 1, B: }\n    - internal/docker-run:\n        image: x\n        name: y\n        env: A=b\n",
        );
        let pipeline = config.pipeline("build").unwrap();
        let settings = &pipeline.settings;
        assert_eq!(config.default_box.as_ref().unwrap().memory, Some(512 << 20));
        assert_eq!(config.default_box.as_ref().unwrap().cpu_millis, Some(1500));
        let ready = config.services[0].ready.as_deref().unwrap();
        assert_eq!((&ready.probe, ready.timeout.as_secs()), (&Probe::Port(5432), 30));
        assert_eq!(settings.matrix.as_ref().unwrap().cells().unwrap().len(), 2);
        assert_eq!(settings.timeout, Some(Duration::from_secs(5400)));
        let retry = settings.retry.as_ref().unwrap();
        assert_eq!((retry.attempts, retry.on.as_slice()), (3, &[RetryOn::TimedOut][..]));
        assert_eq!(settings.soft_fail, Some(SoftFail::ExitCodes(vec![3])));
        assert_eq!(settings.secrets[1].variable, "B");
        assert!(settings.cache.as_ref().unwrap().keep_on_failure);
        assert!(settings.concurrency.as_ref().unwrap().cancel_superseded);
        let step = &pipeline.steps[0].settings;
        assert_eq!(step.retry.as_ref().unwrap().attempts, 3);
        assert_eq!(step.env, [("A".into(), "1".into()), ("B".into(), String::new())]);
        assert_eq!(pipeline.steps[0].properties.len(), 1);
        assert_eq!(pipeline.steps[1].property("env"), Some("A=b"));
    }

    #[test]
    fn refuses_what_is_wrong_with_its_place() {
        for (line, want) in [
            ("timeout: 20", "4:12 `timeout` is not a duration such as 90s, 20m or 1h30m"),
            ("timeout: 25h", "4:12 `timeout` is longer than 24h, the longest there is"),
            ("retry: 10", "4:10 `retry` is not a whole number from 0 to 9"),
            ("retry: {attempt: 2}", "4:11 unknown key `attempt` of `retry`"),
            ("retry: {on: fialed}", "4:15 `on` knows no `fialed`"),
            ("soft-fail: [0]", "4:15 `soft-fail` is not true, false or a list of exit codes from 1 to 255"),
            ("when: {brnach: main}", "4:10 unknown key `brnach` of `when`"),
            ("when: main", "4:9 `when` is not a map of branch, tag, path"),
            ("matrix: {1A: [x]}", "4:12 `1A` is not the name of a variable"),
            ("matrix: {A: [x], exclude: [{B: x}]}", "4:11 `exclude` names B: x, which `matrix` has not"),
            (
                "matrix: {on: [y], A: [n], exclude: [{on: n}]}",
                "4:11 `exclude` names on: n, which `matrix` has not",
            ),
            ("matrix: {A: []}", "4:11 `matrix` has no cells: nothing would run"),
            ("secrets: TOKEN", "4:12 `secrets` is not a list of names"),
            ("secrets: [{as: X}]", "4:13 `secrets` lacks `from`"),
            ("secrets: [A, A]", "4:16 two secrets become the variable A"),
            ("cache: {paths: [a]}", "4:10 `cache` lacks `key`"),
            (
                "cache: {key: '{{ tag }}', paths: [a]}",
                "4:16 `tag` is not known in a key: there are `branch` and `checksum FILE`",
            ),
            ("cache: {key: a, paths: [../b]}", "4:26 `paths` leads out of the source: ../b"),
            ("concurrency: '{{ checksum a }}'", "4:16 a group has no checksums"),
            ("timeuot: 20m", "4:3 unknown key `timeuot` of pipeline build"),
            ("needs: [build]", "3:1 what pipeline build needs contains cycle build -> build"),
            ("needs: [biuld]", "3:1 pipeline build needs biuld, which is not defined"),
        ] {
            let text = format!("sealift: 1\nbox: a\nbuild:\n  {line}\n  steps: [a]\n");
            assert_eq!(messages(&text), [want], "{line}");
        }
        let ready =
            "sealift: 1\nbox: a\nservices: [{id: b, ready: {port: 1, log: x}}]\nbuild:\n  steps: [a]\n";
        assert_eq!(messages(ready), ["3:27 `ready` is not a map with one of port, log and command"]);
    }

    #[test]
    fn what_would_be_dropped_is_an_error() {
        for (text, want) in [
            ("box: a\nfoo: b\n", "3:1 unknown key `foo`"),
            ("box: a\nbox: b\n", "3:1 `box` was given before, in line 2: the last one counts"),
            ("box: {id: a, tga: b}\n", "2:14 unknown key `tga` of the box"),
            ("box: a\nservices: redis\n", "3:11 services are ignored: they are a list"),
            ("box: {id: a, env: [b]}\n", "2:19 `env`: it is a map"),
            ("box: a\nb: {docker: maybe}\n", "3:13 pipeline b is dropped: `docker` is not true or false"),
            (
                "box: a\nb: {steps: [{x: {y: [1]}}]}\n",
                "3:21 property `y` of step x is neither text nor number: it becomes empty",
            ),
            ("box: a\nb: {steps: [a]}\n---\nc\n", "4:1 all from here on: only the first document counts"),
            (
                "box: a\nb: {steps: [a]}\nworkflows: [{name: w, pipelnes: [b], stages: [b]}]\n",
                "4:23 unknown key `pipelnes` of a workflow",
            ),
        ] {
            assert_eq!(messages(&format!("sealift: 1\n{text}")), [want], "{text}");
            assert!(parse(&format!("sealift: 1\n{text}")).is_err() && parse(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn an_unknown_version_is_refused_and_a_map_is_a_pipeline() {
        assert_eq!(messages("sealift: 2\nbox: a\n"), ["1:10 version 2 of the file is not known"]);
        let named = config("box: a\nsealift:\n  steps: [a]\n");
        assert_eq!((named.version, named.pipelines[0].name.as_str()), (None, "sealift"));
    }

    #[test]
    fn without_the_version_names_mean_what_they_meant() {
        let text = "box: {id: a, user: me}\nbuild:\n  publish: [a]\n  steps:\n    - script:\n        code: x\n        retry: 2\n";
        assert_eq!(
            messages(text),
            [
                "1:14 unknown key `user` of the box is ignored",
                "7:9 `retry` of a script step does nothing without `sealift: 1`",
                "3:3 `publish` in pipeline build is read as a deploy target",
            ]
        );
        let (config, found) = parse(text).unwrap();
        assert!(found.iter().all(|d| d.help.as_deref().unwrap().contains("`sealift: 1`")));
        assert_eq!(config.pipelines[0].targets[0].0, "publish");
        assert_eq!(config.pipelines[0].steps[0].property("retry"), Some("2"));
        assert_eq!(messages("box: a\nbuild:\n  when: {branch: x}\n  steps: [a]\n").len(), 1);
    }
}
