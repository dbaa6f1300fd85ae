//! From the tree to the configuration, as leniently as the reference read it, but not in silence.

use sealift_model::diagnostic::{Diagnostic, Severity, nearest};

use super::keys::{self, BOX, PIPELINE, TOP};
use super::settings::{parse_cpus, parse_size};
use super::step::read_step;
use super::{BoxConfig, Config, GraphError, Pipeline, StepConfig, VERSIONS, Workflow};
use crate::yaml::{self, Meaning, Node, Place};

/// What to do about a key of Sealift's own form in a file that does not ask for it.
pub(super) const NEEDS_VERSION: &str =
    "it is a key of Sealift's own form: write `sealift: 1` at the top of the file";

/// Reads a wercker.yml. With the configuration come the findings; one of severity error concerns a single pipeline
/// that cannot be run, the others can.
///
/// # Errors
/// All findings, when at least one means that the file as a whole cannot be used.
pub fn parse(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    match read(text) {
        Ok((mut config, mut found)) => {
            let workflows = config.workflows.iter_mut().filter_map(|workflow| workflow.problem.as_mut());
            let pipelines = config.pipelines.iter_mut().filter_map(|pipeline| pipeline.problem.as_mut());
            let dropped = config.dropped.iter_mut().map(|(_, why)| why);
            keep_inside(text, found.iter_mut().chain(workflows).chain(pipelines).chain(dropped));
            Ok((config, found))
        }
        Err(mut found) => {
            keep_inside(text, found.iter_mut());
            Err(found)
        }
    }
}

/// What is missing is found behind the last line, where there is nothing to show.
fn keep_inside<'a>(text: &str, found: impl Iterator<Item = &'a mut Diagnostic>) {
    let lines: Vec<usize> = text.lines().map(|line| line.chars().count()).collect();
    for diagnostic in found {
        if diagnostic.line > lines.len() {
            diagnostic.line = lines.len().max(1);
            diagnostic.column = usize::MAX;
        }
        let index = diagnostic.line.saturating_sub(1);
        diagnostic.line = index + 1;
        let width = lines.get(index).copied().unwrap_or(0).max(1);
        diagnostic.column = diagnostic.column.clamp(1, width);
        diagnostic.length = diagnostic.length.clamp(1, width + 1 - diagnostic.column);
    }
}

fn read(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    let root = match yaml::parse(text) {
        Ok(Some(root)) => root,
        Ok(None) => {
            let at = Place { line: 1, column: 1, length: 1 };
            let message = "your wercker.yml is empty".to_owned();
            let help = "a box and a pipeline with steps make one".to_owned();
            return Err(vec![diagnostic(Severity::Error, at, message, Some(help))]);
        }
        Err(error) => return Err(vec![broken(text, &error)]),
    };
    let mut reader = Reader::default();
    let config = reader.config(&root);
    if let Some(at) = yaml::second_document(text) {
        let help = "write one file, or leave the second part out".to_owned();
        reader.drops(
            at,
            "all from here on is ignored: only the first document counts".to_owned(),
            Some(help),
        );
    }
    if reader.refused { Err(reader.found) } else { Ok((config, reader.found)) }
}

/// What is wrong with a text that is no YAML.
pub(crate) fn broken(text: &str, error: &yaml::Error) -> Diagnostic {
    let mut at = error.place();
    let message = match error {
        yaml::Error::Syntax { message, .. } => format!("this is not YAML: {message}"),
        other => other.to_string(),
    };
    // The scanner often stops behind the tab that confused it.
    let mut help = None;
    let lines: Vec<&str> = text.lines().collect();
    for number in [at.line, at.line.saturating_sub(1)] {
        let indent = number
            .checked_sub(1)
            .and_then(|index| lines.get(index))
            .map(|line| line.chars().take_while(|c| c.is_whitespace()).collect::<String>());
        if let Some(column) = indent.and_then(|indent| indent.chars().position(|c| c == '\t')) {
            at = Place { line: number, column: column + 1, length: 1 };
            help = Some("YAML is indented by spaces, never by tabs".to_owned());
            break;
        }
    }
    diagnostic(Severity::Error, at, message, help)
}

pub(super) fn diagnostic(severity: Severity, at: Place, message: String, help: Option<String>) -> Diagnostic {
    Diagnostic { severity, line: at.line, column: at.column, length: at.length.max(1), message, help }
}

/// A scalar as text: numbers and booleans in their plain form, floats as written; none for null, lists and maps.
pub(super) fn scalar(node: &Node) -> Option<String> {
    match node.meaning()? {
        Meaning::Null => None,
        Meaning::Bool(value) => Some(value.to_string()),
        Meaning::Int(value) => Some(value.to_string()),
        Meaning::Float(text) | Meaning::Text(text) => Some(text.to_owned()),
    }
}

/// A scalar as it stands there, so that `on` and `3.10` stay what they are; none for null, lists and maps.
pub(super) fn written(node: &Node) -> Option<String> {
    node.text().filter(|_| !node.is_null()).map(str::to_owned)
}

#[derive(Default)]
pub(super) struct Reader {
    pub(super) found: Vec<Diagnostic>,
    /// Whether the file as a whole cannot be used.
    pub(super) refused: bool,
    /// Whether the file asks for Sealift's own form.
    pub(super) native: bool,
}

impl Reader {
    pub(super) fn warn(&mut self, at: Place, message: String, help: Option<String>) {
        self.found.push(diagnostic(Severity::Warning, at, message, help));
    }

    /// Something that the reference left out in silence: a warning, but an error in Sealift's own form.
    pub(super) fn drops(&mut self, at: Place, message: String, help: Option<String>) {
        if self.native {
            self.refuse(at, message.replace(" is ignored", ""), help);
        } else {
            self.warn(at, message, help);
        }
    }

    pub(super) fn refuse(&mut self, at: Place, message: String, help: Option<String>) {
        self.refused = true;
        self.found.push(diagnostic(Severity::Error, at, message, help));
    }

    /// The pairs of a mapping by name; of duplicate keys the last counts, in the place of the first.
    pub(super) fn pairs<'a>(&mut self, node: &'a Node) -> Vec<(String, &'a Node, &'a Node)> {
        let mut pairs: Vec<(String, &Node, &Node)> = Vec::new();
        for (key, value) in node.mapping().unwrap_or_default() {
            let Some(name) = (if self.native { written(key) } else { scalar(key) }) else {
                self.drops(key.at, "a key that is no text is ignored".to_owned(), None);
                continue;
            };
            if let Some(known) = pairs.iter_mut().find(|(known, ..)| *known == name) {
                let text =
                    format!("`{name}` was given before, in line {}: the last one counts", known.1.at.line);
                self.drops(key.at, text, None);
                *known = (name, key, value);
            } else {
                pairs.push((name, key, value));
            }
        }
        pairs
    }

    fn config(&mut self, root: &Node) -> Config {
        let mut config = Config::default();
        if root.mapping().is_none() {
            let help = "a wercker.yml is a map of a box and pipelines".to_owned();
            self.drops(root.at, "nothing in this file is used: it is no map".to_owned(), Some(help));
            return config;
        }
        self.version(&mut config, root);
        for (name, key, value) in self.pairs(root) {
            match name.as_str() {
                "sealift" if scalar(value).is_some() => {}
                "box" => config.default_box = self.read_box(value, "box"),
                "services" => config.services = self.services(value).unwrap_or_default(),
                "command-timeout" => config.command_timeout = self.minutes(&name, value),
                "no-response-timeout" => config.no_response_timeout = self.minutes(&name, value),
                "source-dir" => config.source_dir = self.text(&name, value),
                "ignore-file" => config.ignore_file = self.text(&name, value),
                // Read when the pipelines are known.
                "workflows" => {}
                // A place for anchors, as in compose files.
                held if self.native && (held.starts_with("x-") || held.starts_with('.')) => {}
                _ => self.top_level(&mut config, name, key, value),
            }
        }
        self.check_boxes(&config, root);
        self.check_needs(&config);
        let workflows = root.mapping().unwrap_or_default().iter().rev();
        if let Some((_, value)) = workflows.into_iter().find(|(key, _)| key.text() == Some("workflows")) {
            config.workflows = self.workflows(value, &config);
        }
        config
    }

    /// The reference ignored a scalar of this name; a map was and is a pipeline.
    fn version(&mut self, config: &mut Config, root: &Node) {
        // The last one counts, as with all keys.
        let mut pairs = root.mapping().unwrap_or_default().iter().rev();
        let Some((_, value)) = pairs.find(|(key, _)| key.text() == Some("sealift")) else { return };
        let Some(written) = scalar(value) else { return };
        match VERSIONS.into_iter().find(|version| version.to_string() == written) {
            Some(version) => {
                config.version = Some(version);
                self.native = true;
            }
            None => {
                let message = format!("version {written} of the file is not known");
                let known = VERSIONS.map(|version| version.to_string()).join(", ");
                self.refuse(value.at, message, Some(format!("known versions: {known}")));
            }
        }
    }

    fn check_needs(&mut self, config: &Config) {
        let names: Vec<&str> = config.pipelines.iter().map(|pipeline| pipeline.name.as_str()).collect();
        for pipeline in &config.pipelines {
            let from = pipeline.settings.artifacts.iter().flat_map(|artifacts| &artifacts.from);
            for need in pipeline.settings.needs.iter().chain(from) {
                if !names.contains(&need.as_str()) {
                    let at = Place { line: pipeline.line, column: 1, length: pipeline.name.chars().count() };
                    let message = format!("pipeline {} needs {need}, which is not defined", pipeline.name);
                    self.refuse(at, message, suggestion(need, &names));
                }
            }
        }
        for pipeline in config.pipelines.iter().filter(|pipeline| !pipeline.settings.needs.is_empty()) {
            let circle = Workflow::of(config, pipeline).graph(config);
            if let (Err(GraphError::Workflow { reason, .. }), false) = (circle, self.refused) {
                let at = Place { line: pipeline.line, column: 1, length: pipeline.name.chars().count() };
                self.refuse(at, format!("what pipeline {} needs {reason}", pipeline.name), None);
            }
        }
    }

    fn top_level(&mut self, config: &mut Config, name: String, key: &Node, value: &Node) {
        if value.is_null() {
            let help = "give it `steps:`".to_owned();
            self.refuse(key.at, format!("pipeline {name} is empty"), Some(help));
        } else if value.mapping().is_some() {
            match self.pipeline(&name, key, value) {
                Ok(pipeline) => config.pipelines.push(pipeline),
                Err(reason) => self.drops_pipeline(config, name, reason),
            }
        } else if value.sequence().is_some()
            && value.sequence().is_some_and(|items| items.iter().any(is_step))
        {
            let help = format!("write `steps:` between `{name}:` and the list");
            let message = format!("pipeline {name} is dropped: a pipeline is a map, this is a list");
            let reason = diagnostic(Severity::Warning, key.at, message, Some(help));
            self.drops_pipeline(config, name, reason);
        } else {
            let help = suggestion(&name, &keys::names(TOP, self.native));
            self.drops(key.at, format!("unknown key `{name}` is ignored"), help);
        }
    }

    fn drops_pipeline(&mut self, config: &mut Config, name: String, mut reason: Diagnostic) {
        if self.native {
            reason.severity = Severity::Error;
            self.refused = true;
        }
        self.found.push(reason.clone());
        config.dropped.push((name, reason));
    }

    fn pipeline(&mut self, name: &str, key: &Node, node: &Node) -> Result<Pipeline, Diagnostic> {
        let mut pipeline = Pipeline { name: name.to_owned(), line: key.at.line, ..Pipeline::default() };
        let mut steps_at = None;
        let mut strange: Vec<(String, Place)> = Vec::new();
        for (field, at, value) in self.pairs(node) {
            match field.as_str() {
                "box" => pipeline.own_box = self.read_box(value, "box"),
                "services" => pipeline.services = self.services(value),
                "base-path" => {
                    let path = self.text(&field, value);
                    pipeline.base_path = path.map(|path| path.trim_end_matches('/').to_owned());
                }
                "docker" => match value.meaning() {
                    Some(Meaning::Bool(docker)) => pipeline.docker = docker,
                    Some(Meaning::Null) => {}
                    _ => return Err(dropped(name, &field, value.at, "true or false")),
                },
                "steps" => {
                    steps_at = Some(at.at);
                    pipeline.steps = self.steps(name, &field, value)?;
                }
                "after-steps" => pipeline.after_steps = self.steps(name, &field, value)?,
                _ if self.native && self.setting(&mut pipeline.settings, &field, value) => {}
                _ => {
                    if value.sequence().is_none() && self.native {
                        let help = suggestion(&field, &keys::names(PIPELINE, true));
                        self.refuse(at.at, format!("unknown key `{field}` of pipeline {name}"), help);
                        continue;
                    }
                    strange.push((field.clone(), at.at));
                    let steps = self.steps(name, &field, value)?;
                    pipeline.targets.push((field, steps));
                }
            }
        }
        self.check_keys(&mut pipeline, key.at, steps_at, &strange);
        Ok(pipeline)
    }

    /// Deploy targets may have any name, so a slip of the fingers is a valid target that nobody asks for.
    fn check_keys(
        &mut self,
        pipeline: &mut Pipeline,
        at: Place,
        steps_at: Option<Place>,
        strange: &[(String, Place)],
    ) {
        let name = &pipeline.name;
        for (field, at) in strange {
            if !self.native && keys::is_native(PIPELINE, field) {
                let message = format!("`{field}` in pipeline {name} is read as a deploy target");
                self.warn(*at, message, Some(NEEDS_VERSION.to_owned()));
                continue;
            }
            // Only keys whose value is a list, as a target's is.
            let lists = PIPELINE.iter().filter(|key| self.native >= key.native && key.kind.takes_list());
            let Some(meant) = nearest(field, lists.map(|key| key.name)) else { continue };
            if meant == "steps" && steps_at.is_none() {
                let message =
                    format!("pipeline {name} has no steps; did you mean `steps` at line {}?", at.line);
                let help = format!("`{field}` is read as a deploy target of that name");
                let problem = diagnostic(Severity::Error, *at, message, Some(help));
                // The reference accepted it, and did nothing; a run is refused.
                let severity = if self.native { Severity::Error } else { Severity::Warning };
                self.found.push(Diagnostic { severity, ..problem.clone() });
                pipeline.problem = Some(problem);
            } else {
                let message = format!("`{field}` in pipeline {name} is read as a deploy target");
                self.warn(*at, message, Some(format!("did you mean `{meant}`?")));
            }
        }
        if pipeline.steps.is_empty() && pipeline.targets.is_empty() && !self.refused {
            self.warn(steps_at.unwrap_or(at), format!("pipeline {name} has no steps"), None);
        }
    }

    fn steps(&mut self, pipeline: &str, field: &str, node: &Node) -> Result<Vec<StepConfig>, Diagnostic> {
        if node.is_null() {
            return Ok(Vec::new());
        }
        let Some(items) = node.sequence() else {
            return Err(dropped(pipeline, field, node.at, "a list of steps"));
        };
        let before = self.found.len();
        let steps = items.iter().filter_map(|item| read_step(item, self)).collect();
        self.refused |= self.found[before..].iter().any(|d| d.severity == Severity::Error);
        Ok(steps)
    }

    fn services(&mut self, node: &Node) -> Option<Vec<BoxConfig>> {
        if node.is_null() {
            return None;
        }
        let Some(items) = node.sequence() else {
            let help = "write it as a list: `- redis`".to_owned();
            self.drops(node.at, "services are ignored: they are a list".to_owned(), Some(help));
            return None;
        };
        Some(items.iter().filter_map(|item| self.read_box(item, "service")).collect())
    }

    fn read_box(&mut self, node: &Node, what: &str) -> Option<BoxConfig> {
        if node.is_null() {
            return None;
        }
        let mut config = BoxConfig { line: node.at.line, ..BoxConfig::default() };
        if let Some(id) = scalar(node) {
            self.check_digest(&id, node.at);
            config.id = id;
            return Some(config);
        }
        if node.sequence().is_some() {
            self.drops(node.at, format!("the {what} has no image: a list is ignored"), None);
            return Some(config);
        }
        for (name, key, value) in self.pairs(node) {
            match name.as_str() {
                "id" => {
                    config.id = self.text(&name, value).unwrap_or_default();
                    self.check_digest(&config.id, value.at);
                }
                "tag" => config.tag = self.text(&name, value),
                "name" => config.name = self.text(&name, value),
                "cmd" => config.cmd = self.text(&name, value),
                "entrypoint" => config.entrypoint = self.text(&name, value),
                "env" => config.env = self.env(value),
                "ports" => config.ports = self.ports(value),
                _ if self.native && self.native_box_key(&mut config, &name, value) => {}
                known if BOX.iter().any(|key| !key.native && key.name == known) => {
                    config.options.extend(self.text(&name, value).map(|text| (name.clone(), text)));
                }
                native if !self.native && keys::is_native(BOX, native) => {
                    let help = Some(NEEDS_VERSION.to_owned());
                    self.drops(key.at, format!("unknown key `{name}` of the {what} is ignored"), help);
                }
                _ => {
                    let help = suggestion(&name, &keys::names(BOX, self.native));
                    self.drops(key.at, format!("unknown key `{name}` of the {what} is ignored"), help);
                }
            }
        }
        if config.id.is_empty() {
            self.drops(node.at, format!("the {what} has no image"), Some("name it with `id:`".to_owned()));
        }
        Some(config)
    }

    /// Warns of what no registry knows as a digest; one with variables in it is not known yet.
    fn check_digest(&mut self, id: &str, at: Place) {
        let Some((_, digest)) = id.split_once('@').filter(|_| !id.contains('$')) else { return };
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let help = "wanted `@sha256:` and 64 hex digits in lower case".to_owned();
            self.warn(at, format!("`{digest}` is no digest of an image"), Some(help));
        }
    }

    /// Reads a key of a box in Sealift's own form; false where `name` is none.
    fn native_box_key(&mut self, config: &mut BoxConfig, name: &str, value: &Node) -> bool {
        let text = scalar(value).unwrap_or_default();
        match name {
            "ready" => config.ready = self.ready(value).map(Box::new),
            "aliases" => config.aliases = self.texts(name, value),
            "user" if !text.is_empty() => config.user = Some(text),
            "user" => self.wrong(value.at, name, "a user, as `name`, `id` or `id:group`"),
            "memory" => {
                config.memory = parse_size(&text).filter(|bytes| *bytes > 0);
                if config.memory.is_none() {
                    self.wrong(value.at, name, "a size such as 512m or 2g");
                }
            }
            "cpus" => {
                config.cpu_millis = parse_cpus(&text);
                if config.cpu_millis.is_none() {
                    self.wrong(value.at, name, "a number of CPUs such as 2 or 0.5");
                }
            }
            _ => return false,
        }
        true
    }

    fn env(&mut self, node: &Node) -> Vec<(String, String)> {
        if node.mapping().is_none() && !node.is_null() {
            let help = "write it as a map: `NAME: value`".to_owned();
            self.drops(node.at, "`env` is ignored: it is a map".to_owned(), Some(help));
        }
        let mut env = Vec::new();
        for (name, _, value) in self.pairs(node) {
            let name = if self.native { name } else { name.to_uppercase() };
            let text = self.text(&name, value);
            // In Sealift's own form a value is what stands there: `on`, `0x10`.
            let text = if self.native { text.and_then(|_| written(value)) } else { text };
            env.extend(text.map(|value| (name, value)));
        }
        env
    }

    fn ports(&mut self, node: &Node) -> Vec<String> {
        match node.sequence() {
            Some(items) => items.iter().filter_map(|item| self.text("ports", item)).collect(),
            None => {
                if !node.is_null() {
                    let help = "write it as a list: `- \"80\"`".to_owned();
                    self.drops(node.at, "`ports` is ignored: it is a list".to_owned(), Some(help));
                }
                Vec::new()
            }
        }
    }

    pub(super) fn text(&mut self, name: &str, node: &Node) -> Option<String> {
        let text = scalar(node);
        if text.is_none() && !node.is_null() {
            self.drops(node.at, format!("`{name}` is ignored: it is text, not a list or a map"), None);
        }
        text
    }

    fn minutes(&mut self, name: &str, node: &Node) -> Option<u64> {
        let minutes = match node.meaning() {
            Some(Meaning::Int(minutes)) => u64::try_from(minutes).ok(),
            // The part before the point, as the reference read it.
            Some(Meaning::Float(text)) => text.split('.').next().and_then(|whole| whole.parse().ok()),
            _ => None,
        };
        match minutes {
            Some(whole) if !matches!(node.meaning(), Some(Meaning::Int(_))) => {
                let help = format!("write `{name}: {whole}`");
                self.drops(node.at, format!("`{name}` is cut to {whole} whole minutes"), Some(help));
            }
            None => self.drops(node.at, format!("`{name}` is ignored: it is a number of minutes"), None),
            Some(minutes) if minutes > super::LONGEST_MINUTES => {
                self.drops(node.at, format!("`{name}` is cut to {} minutes", super::LONGEST_MINUTES), None);
            }
            Some(_) => {}
        }
        minutes
    }

    fn check_boxes(&mut self, config: &Config, root: &Node) {
        for pipeline in &config.pipelines {
            if config.box_of(pipeline).is_none() {
                let at = Place {
                    line: pipeline.line,
                    column: root.at.column,
                    length: pipeline.name.chars().count(),
                };
                let help = "name an image: `box: debian`".to_owned();
                self.refuse(at, format!("no box for pipeline {}", pipeline.name), Some(help));
            }
        }
    }
}

fn is_step(node: &Node) -> bool {
    node.mapping().is_some()
}

fn dropped(pipeline: &str, field: &str, at: Place, expected: &str) -> Diagnostic {
    let message = format!("pipeline {pipeline} is dropped: `{field}` is not {expected}");
    let help = if keys::is_native(PIPELINE, field) {
        Some(NEEDS_VERSION.to_owned())
    } else {
        suggestion(field, &keys::names(PIPELINE, false))
    };
    diagnostic(Severity::Warning, at, message, help)
}

pub(super) fn suggestion(word: &str, known: &[&str]) -> Option<String> {
    let near = nearest(word, known.iter().copied()).filter(|near| *near != word)?;
    Some(format!("did you mean `{near}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<String> {
        let found = match parse(text) {
            Ok((_, found)) | Err(found) => found,
        };
        found.iter().map(|d| format!("{}:{} {}", d.line, d.column, d.message)).collect()
    }

    #[test]
    fn reads_all_step_forms() {
        let text = "box: a\nbuild:\n  steps:\n    - npm-install\n    - script:\n        name: one\n        code: |\n          echo\n    - me/x@1.2:\n      cwd: d\n      flag: yes\n      pi: 3.10\n";
        let (config, found) = parse(text).unwrap();
        assert_eq!(found, []);
        let steps = &config.pipeline("build").unwrap().steps;
        assert_eq!(steps[0].title(), "npm-install");
        assert_eq!((steps[1].title(), steps[1].property("code")), ("one", Some("echo\n")));
        assert_eq!((steps[2].owner.as_str(), steps[2].version.as_deref()), ("me", Some("1.2")));
        assert_eq!(steps[2].cwd.as_deref(), Some("d"));
        assert_eq!(steps[2].properties, [("flag".into(), "true".into()), ("pi".into(), "3.10".into())]);
    }

    #[test]
    fn warns_where_something_is_dropped() {
        for (text, want) in [
            (
                "box: a\nbuild:\n  stpes: [a]\n",
                vec!["3:3 pipeline build has no steps; did you mean `steps` at line 3?"],
            ),
            (
                "box: a\nbuild:\n  steps: [a]\n  after_steps: [b]\n",
                vec!["4:3 `after_steps` in pipeline build is read as a deploy target"],
            ),
            ("box: {id: a, tga: b}\n", vec!["1:14 unknown key `tga` of the box is ignored"]),
            ("box: a\nservices: redis\n", vec!["2:11 services are ignored: they are a list"]),
            ("box: a\nbox: b\n", vec!["2:1 `box` was given before, in line 1: the last one counts"]),
            ("box: {id: a@sha256:abc}\n", vec!["1:11 `sha256:abc` is no digest of an image"]),
            ("box: a@$DIGEST\n", vec![]),
            ("bxo: a\n", vec!["1:1 unknown key `bxo` is ignored"]),
            ("build:\n  steps: [a]\n", vec!["1:1 no box for pipeline build"]),
            ("box: a\nbuild:\n", vec!["2:1 pipeline build is empty"]),
            ("box: a\nbuild:\n  steps:\n    - npm-install:\n", vec!["4:7 step npm-install is empty"]),
        ] {
            assert_eq!(findings(text), want, "{text}");
        }
    }

    #[test]
    fn a_tab_is_named() {
        let found = parse("box: a\nbuild:\n\tsteps: [a]\n").unwrap_err();
        assert_eq!((found[0].line, found[0].column), (3, 1));
        assert!(found[0].help.as_deref().unwrap().contains("spaces"));
    }
}
