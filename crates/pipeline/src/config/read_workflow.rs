//! How workflows are written: in the reference's form (`pipelines:` with `requires:`), and as `stages:`.

use super::Config;
use super::keys::{self, PLACE, WORKFLOW};
use super::read::{NEEDS_VERSION, Reader, diagnostic, suggestion, written};
use super::workflow::{Workflow, WorkflowPipeline, problem};
use crate::yaml::{Node, Place};
use sealift_model::diagnostic::Severity;

impl Reader {
    /// The workflows of the file. One that cannot be run is an error, but the file can be used.
    pub(super) fn workflows(&mut self, node: &Node, config: &Config) -> Vec<Workflow> {
        let mut workflows: Vec<Workflow> = Vec::new();
        let Some(items) = node.sequence() else {
            if !node.is_null() {
                let help = "write them as a list: `- name: ci`".to_owned();
                self.drops(node.at, "workflows are ignored: they are a list".to_owned(), Some(help));
            }
            return workflows;
        };
        for item in items {
            if item.mapping().is_none() {
                let help = "a workflow is a map of `name` and `pipelines`".to_owned();
                self.drops(item.at, "a workflow is ignored: it is no map".to_owned(), Some(help));
                continue;
            }
            let workflow = self.workflow(item, config);
            if let Some(known) = workflows.iter().find(|known| known.name == workflow.name) {
                let message = format!(
                    "workflow {} was given before, in line {}: the first one counts",
                    workflow.name, known.line
                );
                self.drops(item.at, message, None);
            } else {
                workflows.push(workflow);
            }
        }
        workflows
    }

    fn workflow(&mut self, node: &Node, config: &Config) -> Workflow {
        let mut workflow = Workflow { line: node.at.line, ..Workflow::default() };
        let mut at = node.at;
        let mut graph_at = None;
        for (name, key, value) in self.pairs(node) {
            match name.as_str() {
                "name" => {
                    workflow.name = self.text(&name, value).unwrap_or_default();
                    at = value.at;
                }
                "pipelines" | "stages" if graph_at.is_some() => {
                    let message = "a workflow has `pipelines` or `stages`, not both".to_owned();
                    self.refuse(key.at, message, None);
                }
                "pipelines" => {
                    graph_at = Some(key.at);
                    workflow.pipelines = self.places(value);
                }
                "stages" if self.native => {
                    graph_at = Some(key.at);
                    workflow.pipelines = self.stages(value);
                }
                _ => self.strange(&name, key, "a workflow", WORKFLOW),
            }
        }
        if workflow.name.is_empty() {
            let message = "a workflow has no name: nobody can ask for it".to_owned();
            self.drops(node.at, message, Some("give it one with `name:`".to_owned()));
        }
        if self.native {
            workflow.complete(config);
        }
        if let Some((index, reason)) = problem(&workflow.pipelines, config, !self.native) {
            let place = index.and_then(|index| workflow.pipelines.get(index));
            let at = place.map_or(graph_at.unwrap_or(at), |place| Place {
                line: place.line,
                column: place.column,
                length: place.name.chars().count(),
            });
            let names: Vec<&str> = config.pipelines.iter().map(|known| known.name.as_str()).collect();
            let help = place
                .filter(|place| !names.contains(&place.pipeline.as_str()))
                .and_then(|place| suggestion(&place.pipeline, &names));
            let message = format!("invalid workflow {}: {reason}", workflow.name);
            let error = diagnostic(Severity::Error, at, message, help);
            self.found.push(error.clone());
            workflow.problem = Some(error);
        } else if let Err(error) = workflow.graph(config) {
            let error = diagnostic(Severity::Error, at, error.to_string(), None);
            self.found.push(error.clone());
            workflow.problem = Some(error);
        }
        workflow
    }

    /// The value of `pipelines`: each place says what it requires.
    fn places(&mut self, node: &Node) -> Vec<WorkflowPipeline> {
        let Some(items) = node.sequence() else {
            self.drops(node.at, "`pipelines` is ignored: it is a list".to_owned(), None);
            return Vec::new();
        };
        items.iter().filter_map(|item| self.place(item)).collect()
    }

    /// The value of `stages`: all of one stage require all of the stage before.
    fn stages(&mut self, node: &Node) -> Vec<WorkflowPipeline> {
        let Some(stages) = node.sequence() else {
            self.wrong(node.at, "stages", "a list of pipelines");
            return Vec::new();
        };
        let mut places = Vec::new();
        let mut before: Vec<String> = Vec::new();
        for stage in stages {
            let group = stage.sequence().unwrap_or(std::slice::from_ref(stage));
            let mut group: Vec<_> = group.iter().filter_map(|item| self.place(item)).collect();
            if group.is_empty() {
                self.wrong(stage.at, "stages", "a list of pipelines and of lists of them");
                continue;
            }
            for place in &mut group {
                for name in &before {
                    if !place.requires.contains(name) {
                        place.requires.push(name.clone());
                    }
                }
            }
            before = group.iter().map(|place| place.name.clone()).collect();
            places.append(&mut group);
        }
        places
    }

    fn place(&mut self, node: &Node) -> Option<WorkflowPipeline> {
        let at = node.at;
        let mut place = WorkflowPipeline { line: at.line, column: at.column, ..WorkflowPipeline::default() };
        if node.mapping().is_none() {
            let name = written(node).filter(|name| self.native && !name.is_empty());
            let Some(name) = name else {
                let help = written(node).map(|name| format!("write `- name: {name}`"));
                let message = "a pipeline of the workflow is ignored: it is no map with a `name`".to_owned();
                self.drops(at, message, help);
                return None;
            };
            place.pipeline.clone_from(&name);
            place.name = name;
            return Some(place);
        }
        for (name, key, value) in self.pairs(node) {
            match name.as_str() {
                "name" => {
                    place.name = self.text(&name, value).unwrap_or_default();
                    (place.line, place.column) = (value.at.line, value.at.column);
                }
                "pipelineName" => place.pipeline = self.text(&name, value).unwrap_or_default(),
                "pipeline" if self.native => {
                    place.pipeline = self.text(&name, value).unwrap_or_default();
                }
                "artifactPipeline" => {
                    place.artifact_pipeline = self.text(&name, value).filter(|text| !text.is_empty());
                }
                "envFile" => place.env_file = self.text(&name, value).filter(|text| !text.is_empty()),
                "requires" => place.requires = self.requires(value),
                _ if self.native && self.setting(&mut place.settings, &name, value) => {}
                _ => self.strange(&name, key, "a workflow's pipeline", PLACE),
            }
        }
        if place.name.is_empty() {
            place.name.clone_from(&place.pipeline);
        }
        if place.pipeline.is_empty() {
            place.pipeline.clone_from(&place.name);
        }
        Some(place)
    }

    fn requires(&mut self, node: &Node) -> Vec<String> {
        if self.native {
            return if node.is_null() { Vec::new() } else { self.texts("requires", node) };
        }
        let Some(items) = node.sequence() else {
            if !node.is_null() {
                let help = "write it as a list: `- build`".to_owned();
                self.drops(node.at, "`requires` is ignored: it is a list".to_owned(), Some(help));
            }
            return Vec::new();
        };
        items.iter().filter_map(|item| self.text("requires", item)).collect()
    }

    fn strange(&mut self, name: &str, key: &Node, what: &str, table: &'static [keys::Key]) {
        let help = if !self.native && keys::is_native(table, name) {
            Some(NEEDS_VERSION.to_owned())
        } else {
            suggestion(name, &keys::names(table, self.native))
        };
        self.drops(key.at, format!("unknown key `{name}` of {what} is ignored"), help);
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    const PIPELINES: &str =
        "box: a\nbuild:\n  steps: [a]\ntest:\n  steps: [a]\nlint:\n  steps: [a]\ndeploy:\n  steps: [a]\n";

    fn problem_of(workflow: &str, native: bool) -> Option<String> {
        let version = if native { "sealift: 1\n" } else { "" };
        let (config, found) = parse(&format!("{version}{PIPELINES}{workflow}")).unwrap();
        let problem = config.workflows[0].problem.clone();
        if let Some(problem) = &problem {
            assert!(found.contains(problem) && problem.line > 9, "{problem:?}");
        }
        problem.map(|problem| problem.message)
    }

    #[test]
    fn checks_in_the_reference_s_words() {
        for (places, want) in [
            ("{name: build}, {name: test, requires: [build]}", None),
            ("{name: nope}", Some("pipeline nope is not defined")),
            ("{name: build}, {name: build}", Some("duplicate pipeline build")),
            ("{name: build}, {name: test, requires: [lint]}", Some("no pipeline lint required by test")),
            (
                "{name: build}, {name: test, requires: [lint]}, {name: lint, requires: [test]}",
                Some("contains cycle test -> lint -> test"),
            ),
            ("{name: build, requires: [build]}", Some("contains cycle build -> build")),
            ("{name: build}, {name: test}", Some("multiple root pipelines: build, test")),
            ("build", Some("no root pipeline")),
        ] {
            let text = format!("workflows:\n  - name: w\n    pipelines: [{places}]\n");
            let want = want.map(|reason| format!("invalid workflow w: {reason}"));
            assert_eq!(problem_of(&text, false), want, "{places}");
        }
    }

    #[test]
    fn sealift_s_form_allows_several_roots_and_plain_names() {
        assert_eq!(problem_of("workflows:\n  - name: w\n    pipelines: [build, test]\n", true), None);
    }

    #[test]
    fn stages_require_all_of_the_stage_before() {
        let text = format!(
            "sealift: 1\n{PIPELINES}workflows:\n  - name: ci\n    stages:\n      - build\n      - [test, lint]\n      - {{pipeline: deploy, approval: Really?, when: {{branch: main}}}}\n"
        );
        let (config, found) = parse(&text).unwrap();
        assert_eq!(found, []);
        let places = &config.workflow("ci").unwrap().pipelines;
        let seen: Vec<_> =
            places.iter().map(|place| (place.name.as_str(), place.requires.join(" "))).collect();
        assert_eq!(
            seen,
            [
                ("build", String::new()),
                ("test", "build".into()),
                ("lint", "build".into()),
                ("deploy", "test lint".into())
            ]
        );
        assert_eq!(places[3].settings.approval.as_ref().unwrap().question.as_deref(), Some("Really?"));
    }
}
