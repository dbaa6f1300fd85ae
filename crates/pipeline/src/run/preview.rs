//! What a run would do, without doing it.
//!
//! Guarantees: asks nobody, not even the engine; says of each step what the run itself would decide.

use super::plan::{self, SelectionError};
use super::scene;
use crate::config::{Config, Pipeline};
use crate::env;
use crate::spec::RunSpec;

/// What a run of a pipeline would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preview {
    /// The box's image; empty if there is none.
    pub image: String,
    /// Name and image of each service.
    pub services: Vec<(String, String)>,
    /// Why the pipeline as a whole would not run.
    pub skip: Option<String>,
    /// After-steps behind the others.
    pub steps: Vec<StepPreview>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPreview {
    pub name: String,
    /// As written: `script`, `owner/name@version`.
    pub id: String,
    pub after: bool,
    /// Why it would not run.
    pub skip: Option<String>,
}

/// What a run of `pipeline` with this spec would do.
///
/// # Errors
/// When a step is selected that the pipeline has not got, or nothing is left to run.
pub fn preview(config: &Config, pipeline: &Pipeline, spec: &RunSpec) -> Result<Preview, SelectionError> {
    let target = spec.deploy_target.as_ref();
    let target = target.and_then(|wanted| pipeline.targets.iter().find(|(name, _)| name == wanted));
    let main = target.map_or(&pipeline.steps, |(_, steps)| steps);
    let facts = plan::facts(spec);
    let plans = plan::plan(main, &pipeline.after_steps, &spec.selection, &facts)?;
    let (env, _) = env::base(spec, "/pipeline/source");
    let when = pipeline.settings.when.as_ref().filter(|when| !when.matches(&facts));
    let steps =
        main.iter().map(|step| (step, false)).chain(pipeline.after_steps.iter().map(|step| (step, true)));
    Ok(Preview {
        image: config.box_of(pipeline).map(|the_box| scene::image_of(the_box, &env)).unwrap_or_default(),
        services: config
            .services_of(pipeline)
            .iter()
            .map(|service| (service.alias(), scene::image_of(service, &env)))
            .collect(),
        skip: when.map(|_| plan::condition(&facts)),
        steps: steps
            .zip(plans)
            .map(|((step, after), plan)| StepPreview {
                name: step.title().to_owned(),
                id: step.id.clone(),
                after,
                skip: plan.skip,
            })
            .collect(),
    })
}
