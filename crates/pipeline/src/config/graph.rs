//! A workflow as the graph that is run: each cell of a matrix a node of its own.
//!
//! Guarantees: pure; node names are unique; every need names a node that stands before, so there is no circle; the
//! order is that of the file as far as needs allow, and always the same; at most [`MAX_NODES`] nodes.
//!
//! It must not know how a node is run.

use super::Config;
use super::settings::{Cell, Matrix, Settings};
use super::workflow::Workflow;

/// More than anybody runs at once.
const MAX_NODES: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The workflow's own problem, or what its check would have found.
    #[error("workflow {workflow} cannot be run: {reason}")]
    Workflow { workflow: String, reason: String },
    #[error("workflow {workflow} has more than {MAX_NODES} pipelines with its matrices")]
    TooLarge { workflow: String },
    #[error("the matrix of {place} has no cells, or more than {max}", max = Matrix::MAX_CELLS)]
    Matrix { place: String },
    #[error("two pipelines of workflow {workflow} are called {name}")]
    Name { workflow: String, name: String },
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Graph {
    /// A node stands behind all it needs.
    pub nodes: Vec<GraphNode>,
}

/// One run of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GraphNode {
    /// Unique in the graph: `test`, or `test (RUBY=3.2)` for a cell of a matrix.
    pub name: String,
    /// The place in the workflow that it is of.
    pub place: String,
    /// The pipeline of the file.
    pub pipeline: String,
    /// The cell's variables.
    pub variables: Cell,
    /// Names of nodes that must have passed before.
    pub needs: Vec<String>,
    pub input: Input,
    pub env_file: Option<String>,
    /// Of the place and, where that says nothing, of the pipeline. The matrix is left out: it is used up.
    pub settings: Settings,
}

/// What a node finds as its source. Names are those of nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Input {
    /// The commit's source.
    #[default]
    Commit,
    /// The output of these, as in wercker: of one as it is, of several each in a directory of its name.
    Instead(Vec<String>),
    /// The commit's source, and the outputs of these laid over it, in this order.
    Over(Vec<String>),
}

impl Config {
    /// What a run of pipeline `name` consists of, where that is more than the pipeline itself, once and without waiting:
    /// what it needs, the cells of its matrix, an approval, a group.
    ///
    /// # Errors
    /// As [`Workflow::graph`].
    pub fn graph_of(&self, name: &str) -> Result<Option<Graph>, Error> {
        let Some(pipeline) = self.pipeline(name).filter(|_| self.version.is_some()) else { return Ok(None) };
        let Settings { matrix, approval, concurrency, .. } = &pipeline.settings;
        let workflow = Workflow::of(self, pipeline);
        let asks = approval.as_ref().is_some_and(|approval| approval.wanted);
        if workflow.pipelines.len() == 1 && matrix.is_none() && !asks && concurrency.is_none() {
            return Ok(None);
        }
        workflow.graph(self).map(Some)
    }
}

impl Workflow {
    /// The graph of nodes that a workflow stands for.
    ///
    /// # Errors
    /// When the workflow has a problem, or is larger than the limits.
    pub fn graph(&self, config: &Config) -> Result<Graph, Error> {
        let refuse = |reason: String| Error::Workflow { workflow: self.name.clone(), reason };
        if let Some(problem) = &self.problem {
            return Err(refuse(problem.message.clone()));
        }
        if let Some((_, reason)) = super::workflow::problem(&self.pipelines, config, false) {
            return Err(refuse(reason));
        }
        let mut graph = Graph::default();
        // Names of the nodes of each place that is done.
        let mut done: Vec<(&str, Vec<String>)> = Vec::new();
        let mut waiting: Vec<_> = self.pipelines.iter().collect();
        while let Some(next) = waiting.iter().position(|place| {
            let wanted = place.requires.iter().chain(&place.artifact_pipeline);
            wanted.into_iter().all(|name| done.iter().any(|(known, _)| known == name))
        }) {
            let place = waiting.remove(next);
            let below = config.pipeline(&place.pipeline).map(|pipeline| &pipeline.settings);
            let mut settings = place.settings.over(below.unwrap_or(&Settings::default()));
            let cells = match settings.matrix.take() {
                Some(matrix) => {
                    let cells = matrix.cells().filter(|cells| !cells.is_empty());
                    cells.ok_or_else(|| Error::Matrix { place: place.name.clone() })?
                }
                None => vec![Cell::new()],
            };
            if graph.nodes.len() + cells.len() > MAX_NODES {
                return Err(Error::TooLarge { workflow: self.name.clone() });
            }
            let needs = nodes_of(&done, place.requires.iter().chain(&place.artifact_pipeline));
            let from = settings.artifacts.iter().flat_map(|artifacts| &artifacts.from);
            let over = nodes_of(&done, from.flat_map(|name| self.places_of(name)));
            let input = match &place.artifact_pipeline {
                Some(one) => Input::Instead(nodes_of(&done, [one])),
                None if config.version.is_none() && !needs.is_empty() => Input::Instead(needs.clone()),
                None if over.is_empty() => Input::Commit,
                None => Input::Over(over),
            };
            let mut names = Vec::new();
            for variables in cells {
                let name = node_name(&place.name, &variables);
                if graph.nodes.iter().any(|node| node.name == name) {
                    return Err(Error::Name { workflow: self.name.clone(), name });
                }
                names.push(name.clone());
                graph.nodes.push(GraphNode {
                    name,
                    place: place.name.clone(),
                    pipeline: place.pipeline.clone(),
                    variables,
                    needs: needs.clone(),
                    input: input.clone(),
                    env_file: place.env_file.clone(),
                    settings: settings.clone(),
                });
            }
            done.push((&place.name, names));
        }
        if waiting.is_empty() { Ok(graph) } else { Err(refuse("contains a cycle".to_owned())) }
    }
}

/// The nodes of places, each once.
fn nodes_of<'a>(done: &[(&str, Vec<String>)], places: impl IntoIterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for place in places {
        for (_, nodes) in done.iter().filter(|(known, _)| known == place) {
            names.extend(nodes.iter().filter(|node| !names.contains(node)).cloned().collect::<Vec<_>>());
        }
    }
    names
}

fn node_name(place: &str, cell: &Cell) -> String {
    if cell.is_empty() {
        return place.to_owned();
    }
    let variables: Vec<String> = cell.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{place} ({})", variables.join(", "))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{parse, workflow::WorkflowPipeline};
    use super::*;

    fn graph(text: &str) -> Result<Graph, Error> {
        let (config, _) = parse(text).unwrap();
        let mut workflow = config.workflow("ci").unwrap().clone();
        let found = workflow.problem.take();
        let graph = workflow.graph(&config);
        assert_eq!(graph.as_ref().err().map(ToString::to_string), found.map(|found| found.message));
        graph
    }

    #[test]
    fn cells_become_nodes_and_all_are_needed() {
        let graph = graph(
            "sealift: 1\nbox: a\nbuild:\n  steps: [a]\ntest:\n  matrix: {RUBY: [3.2, 3.3]}\n  timeout: 5m\n  steps: [a]\ndeploy:\n  artifacts: {from: [build]}\n  steps: [a]\nworkflows:\n  - name: ci\n    stages: [build, {pipeline: test, timeout: 1m}, deploy]\n",
        )
        .unwrap();
        let seen: Vec<_> =
            graph.nodes.iter().map(|node| (node.name.as_str(), node.needs.join("; "))).collect();
        assert_eq!(
            seen,
            [
                ("build", String::new()),
                ("test (RUBY=3.2)", "build".into()),
                ("test (RUBY=3.3)", "build".into()),
                ("deploy", "test (RUBY=3.2); test (RUBY=3.3); build".into()),
            ]
        );
        assert_eq!(graph.nodes[3].input, Input::Over(vec!["build".into()]));
        assert_eq!(graph.nodes[1].input, Input::Commit);
        assert_eq!(graph.nodes[1].variables, [("RUBY".to_owned(), "3.2".to_owned())]);
        assert_eq!(graph.nodes[1].settings.timeout.unwrap().as_secs(), 60);
    }

    #[test]
    fn in_wercker_s_form_the_output_of_what_is_required_is_the_source() {
        let graph = graph(
            "box: a\nb:\n  steps: [a]\nworkflows:\n  - name: ci\n    pipelines:\n      - {name: x, pipelineName: b}\n      - {name: v, pipelineName: b, requires: [x]}\n      - {name: z, pipelineName: b, requires: [x, v]}\n      - {name: o, pipelineName: b, requires: [x, v], artifactPipeline: x}\n",
        )
        .unwrap();
        let inputs: Vec<_> = graph.nodes.into_iter().map(|node| node.input).collect();
        let instead = |names: &[&str]| Input::Instead(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(inputs, [Input::Commit, instead(&["x"]), instead(&["x", "v"]), instead(&["x"])]);
    }

    #[test]
    fn a_pipeline_brings_what_it_needs() {
        let (config, _) = parse(
            "sealift: 1\nbox: a\nbuild:\n  steps: [a]\ntest:\n  needs: build\n  steps: [a]\ndeploy:\n  needs: [test]\n  artifacts: {from: build}\n  steps: [a]\n",
        )
        .unwrap();
        let graph = Workflow::of(&config, config.pipeline("deploy").unwrap()).graph(&config).unwrap();
        let seen: Vec<_> =
            graph.nodes.iter().map(|node| (node.name.as_str(), node.needs.join(" "))).collect();
        assert_eq!(
            seen,
            [("build", String::new()), ("test", "build".into()), ("deploy", "test build".into())]
        );
    }

    #[test]
    fn a_run_of_a_pipeline_may_be_a_graph() {
        let base = "box: a\nplain:\n  steps: [a]\n";
        for (settings, want) in [
            ("needs: plain", Some(vec!["plain", "it"])),
            ("matrix: {A: [1, 2]}", Some(vec!["it (A=1)", "it (A=2)"])),
            ("approval: true", Some(vec!["it"])),
            ("approval: false", None),
            ("concurrency: deploys", Some(vec!["it"])),
            ("timeout: 5m", None),
        ] {
            let text = format!("sealift: 1\n{base}it:\n  {settings}\n  steps: [a]\n");
            let (config, _) = parse(&text).unwrap();
            let graph = config.graph_of("it").unwrap();
            let names = graph.map(|graph| graph.nodes.into_iter().map(|node| node.name).collect::<Vec<_>>());
            assert_eq!(names, want.map(|names| names.into_iter().map(str::to_owned).collect()), "{settings}");
            assert_eq!(config.graph_of("plain").unwrap(), None);
        }
    }

    #[test]
    fn limits_and_names() {
        let base = "sealift: 1\nbox: a\nbig:\n  matrix: {A: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16], B: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]}\n  steps: [a]\n";
        let places: Vec<_> = (0..5).map(|n| format!("{{name: n{n}, pipeline: big}}")).collect();
        let text = format!("{base}workflows:\n  - name: ci\n    pipelines: [{}]\n", places.join(", "));
        assert!(matches!(graph(&text), Err(Error::TooLarge { .. })));
        let clash = "sealift: 1\nbox: a\nt:\n  matrix: {A: [1]}\n  steps: [a]\nworkflows:\n  - name: ci\n    pipelines: [t, {name: t (A=1), pipeline: t, matrix: {B: [1]}}, {name: 't (A=1) (B=1)', pipeline: t}]\n";
        assert!(graph(clash).is_ok());
        let clash = "sealift: 1\nbox: a\nt:\n  matrix: {A: [1]}\n  steps: [a]\nu:\n  steps: [a]\nworkflows:\n  - name: ci\n    pipelines: [t, {name: t (A=1), pipeline: u}]\n";
        assert!(matches!(graph(clash), Err(Error::Name { .. })));
    }

    proptest! {
        #[test]
        fn every_need_stands_before_and_nothing_is_lost(
            edges in proptest::collection::vec(proptest::collection::vec(0_usize..8, 0..4), 1..8),
            cells in proptest::collection::vec(0_usize..4, 8),
        ) {
            let mut config = Config::default();
            for name in 0..edges.len() {
                config.pipelines.push(super::super::Pipeline { name: name.to_string(), ..Default::default() });
            }
            let place = |(name, requires): (usize, &Vec<usize>)| {
                let values: Vec<String> = (0..cells[name]).map(|n| n.to_string()).collect();
                let matrix = Matrix { axes: vec![("A".into(), values)], ..Matrix::default() };
                WorkflowPipeline {
                    name: name.to_string(),
                    pipeline: name.to_string(),
                    requires: requires.iter().map(|n| (n % edges.len()).to_string()).collect(),
                    settings: Settings { matrix: (cells[name] > 0).then_some(matrix), ..Settings::default() },
                    ..WorkflowPipeline::default()
                }
            };
            let workflow = Workflow { pipelines: edges.iter().enumerate().map(place).collect(), ..Workflow::default() };
            let found = super::super::workflow::problem(&workflow.pipelines, &config, false);
            match workflow.graph(&config) {
                Ok(graph) => {
                    prop_assert_eq!(found, None);
                    prop_assert_eq!(graph.nodes.len(), (0..edges.len()).map(|n| cells[n].max(1)).sum::<usize>());
                    for (index, node) in graph.nodes.iter().enumerate() {
                        let before: Vec<&str> = graph.nodes[..index].iter().map(|node| node.name.as_str()).collect();
                        prop_assert!(!before.contains(&node.name.as_str()));
                        prop_assert!(node.needs.iter().all(|need| before.contains(&need.as_str())));
                        let wanted = &workflow.pipelines[node.place.parse::<usize>().unwrap()].requires;
                        let places: Vec<&String> =
                            graph.nodes.iter().filter(|other| node.needs.contains(&other.name)).map(|other| &other.place).collect();
                        prop_assert!(wanted.iter().all(|place| places.contains(&place)));
                    }
                    prop_assert_eq!(workflow.graph(&config), Ok(graph));
                }
                Err(Error::Workflow { reason, .. }) => {
                    prop_assert!(reason.contains("cycle") || reason.contains("root"), "{}", reason);
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
