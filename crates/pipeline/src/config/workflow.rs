//! Workflows: which pipelines a name stands for, and which of them waits for which.
//!
//! Guarantees: [`problem`] finds what would keep a workflow from ending, in the reference's words.
//!
//! It must not know how a pipeline is run.

use super::settings::Settings;
use super::{Config, Pipeline};

/// A graph of pipelines. It can be run when `problem` is none.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Workflow {
    pub name: String,
    /// In the order of the file.
    pub pipelines: Vec<WorkflowPipeline>,
    /// Why it cannot be run; the other workflows and the pipelines can.
    pub problem: Option<sealift_model::diagnostic::Diagnostic>,
    pub line: usize,
}

/// A pipeline's place in a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkflowPipeline {
    /// Unique within the workflow.
    pub name: String,
    /// The pipeline of the file; its name unless the place has another.
    pub pipeline: String,
    /// Names of places that must have passed before.
    pub requires: Vec<String>,
    /// The place whose output is the source; none: that of all that are required.
    pub artifact_pipeline: Option<String>,
    /// A file of variables for this place.
    pub env_file: Option<String>,
    /// What is written here counts before what the pipeline says.
    pub settings: Settings,
    pub line: usize,
    pub column: usize,
}

impl Workflow {
    /// The names of the places that a name in `needs` or `from` means: the place of that name, else all places of the
    /// pipeline of that name.
    pub(super) fn places_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a String> {
        let named = self.pipelines.iter().any(|place| place.name == name);
        let meant = move |place: &&WorkflowPipeline| {
            if named { place.name == name } else { place.pipeline == name }
        };
        self.pipelines.iter().filter(meant).map(|place| &place.name)
    }

    /// What the settings of places, or of their pipelines, want to have passed before becomes a requirement.
    pub(super) fn complete(&mut self, config: &Config) {
        let mut wanted = Vec::new();
        for place in &self.pipelines {
            let below = config.pipeline(&place.pipeline).map(|pipeline| &pipeline.settings);
            let settings = place.settings.over(below.unwrap_or(&Settings::default()));
            let mut requires = place.requires.clone();
            for name in settings.needs.iter().chain(settings.artifacts.iter().flat_map(|one| &one.from)) {
                let mut places: Vec<String> = self.places_of(name).cloned().collect();
                if places.is_empty() {
                    // Found by the check.
                    places.push(name.clone());
                }
                requires.extend(places);
            }
            let mut once: Vec<String> = Vec::new();
            for name in requires {
                if !once.contains(&name) {
                    once.push(name);
                }
            }
            wanted.push(once);
        }
        for (place, requires) in self.pipelines.iter_mut().zip(wanted) {
            place.requires = requires;
        }
    }

    /// The workflow of one pipeline: itself and, before it, all that it needs.
    #[must_use]
    pub fn of(config: &Config, pipeline: &Pipeline) -> Workflow {
        let mut names = vec![pipeline.name.as_str()];
        let mut next = 0;
        while let Some(pipeline) = names.get(next).and_then(|name| config.pipeline(name)) {
            next += 1;
            let from = pipeline.settings.artifacts.iter().flat_map(|artifacts| &artifacts.from);
            for need in pipeline.settings.needs.iter().chain(from) {
                if !names.contains(&need.as_str()) && config.pipeline(need).is_some() {
                    names.push(need);
                }
            }
        }
        let place = |name: &str| {
            let found = config.pipeline(name);
            WorkflowPipeline {
                name: name.to_owned(),
                pipeline: name.to_owned(),
                line: found.map_or(pipeline.line, |pipeline| pipeline.line),
                column: 1,
                ..WorkflowPipeline::default()
            }
        };
        let mut workflow = Workflow {
            name: pipeline.name.clone(),
            pipelines: names.into_iter().rev().map(place).collect(),
            problem: None,
            line: pipeline.line,
        };
        workflow.complete(config);
        workflow
    }
}

/// What is wrong with a graph, and at which of its places (none: at the workflow as a whole).
pub(super) fn problem(
    places: &[WorkflowPipeline],
    config: &Config,
    one_root: bool,
) -> Option<(Option<usize>, String)> {
    // Names are unique below: a second one is found first.
    let known = |name: &str| places.iter().position(|place| place.name == name);
    for (index, place) in places.iter().enumerate() {
        if known(&place.name) != Some(index) {
            return Some((Some(index), format!("duplicate pipeline {}", place.name)));
        }
        if config.pipeline(&place.pipeline).is_none() {
            return Some((Some(index), format!("pipeline {} is not defined", place.pipeline)));
        }
    }
    for (index, place) in places.iter().enumerate() {
        for wanted in place.requires.iter().chain(&place.artifact_pipeline) {
            if known(wanted).is_none() {
                return Some((Some(index), format!("no pipeline {wanted} required by {}", place.name)));
            }
        }
    }
    if let Some((index, circle)) = circle(places) {
        return Some((Some(index), format!("contains cycle {}", circle.join(" -> "))));
    }
    let roots: Vec<(usize, &str)> = places
        .iter()
        .enumerate()
        .filter(|(_, place)| place.requires.is_empty())
        .map(|(index, place)| (index, place.name.as_str()))
        .collect();
    match roots.as_slice() {
        [] => Some((None, "no root pipeline".to_owned())),
        [_, (second, _), ..] if one_root => {
            let names: Vec<&str> = roots.iter().map(|(_, name)| *name).collect();
            Some((Some(*second), format!("multiple root pipelines: {}", names.join(", "))))
        }
        _ => None,
    }
}

/// The first circle of requirements, as a way back to where it began.
fn circle(places: &[WorkflowPipeline]) -> Option<(usize, Vec<String>)> {
    // Whether a place is known to lead into no circle.
    let mut clear = vec![false; places.len()];
    for start in 0..places.len() {
        // Each place of the way with how many of its requirements were looked at.
        let mut way: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((at, looked)) = way.pop() {
            let place = places.get(at)?;
            let Some(required) = place.requires.iter().chain(&place.artifact_pipeline).nth(looked) else {
                if let Some(clear) = clear.get_mut(at) {
                    *clear = true;
                }
                continue;
            };
            way.push((at, looked + 1));
            let Some(next) = places.iter().position(|place| place.name == *required) else { continue };
            if let Some(begin) = way.iter().position(|(known, _)| *known == next) {
                let on = way.iter().skip(begin).chain(way.get(begin));
                let names = on.filter_map(|(index, _)| places.get(*index)).map(|place| place.name.clone());
                return Some((next, names.collect()));
            }
            if clear.get(next) == Some(&false) {
                way.push((next, 0));
            }
        }
    }
    None
}
