//! `sealift run --dry-run`: what would be run, and what would be left out and why. Nothing is asked or run.

use sealift_model::diagnostic::chain;
use sealift_pipeline::config::{Config, Graph, Settings};
use sealift_pipeline::{Preview, RunSpec, preview};
use serde_json::{Value, json};

use super::carry::{Request, What};
use crate::error::Error;
use crate::print::{Printer, Style, visible};

pub(super) fn print(request: &Request, printer: &Printer) -> Result<(), Error> {
    let config = &request.loaded.config;
    let parts = match &request.what {
        What::Pipeline => {
            vec![Part {
                node: None,
                pipeline: request.spec.pipeline.clone(),
                needs: Vec::new(),
                approval: None,
                group: None,
                preview: look(config, &request.spec)?,
            }]
        }
        What::Workflow { graph, .. } => nodes(config, graph, &request.spec)?,
    };
    if printer.is_json() {
        let values: Vec<Value> = parts.iter().map(as_json).collect();
        return printer.json(&json!({ "pipelines": values }));
    }
    for (index, part) in parts.iter().enumerate() {
        let Part { node, pipeline, needs, approval, group, preview } = part;
        if index > 0 {
            printer.line("")?;
        }
        let title = match node {
            Some(node) if node != pipeline => format!("{node}: pipeline {pipeline}"),
            _ => format!("pipeline {pipeline}"),
        };
        let after = if needs.is_empty() { String::new() } else { format!(" after {}", needs.join(", ")) };
        printer.line(&printer.paint(Style::Title, &visible(&format!("{title}{after}"))))?;
        if let Some(why) = &preview.skip {
            printer.line(&printer.paint(Style::Careful, &visible(&format!("  would not run: {why}"))))?;
        }
        if let Some(question) = approval {
            printer.line(&visible(&format!("  approval  {question}")))?;
        }
        if let Some(group) = group {
            printer.line(&visible(&format!("  group     {group}")))?;
        }
        printer.line(&visible(&format!("  box       {}", preview.image)))?;
        for (name, image) in &preview.services {
            printer.line(&visible(&format!("  service   {name} ({image})")))?;
        }
        for (number, step) in (1..).zip(&preview.steps) {
            let after = if step.after { "after-step " } else { "" };
            let id = if step.id == step.name { String::new() } else { format!(" ({})", step.id) };
            let text = visible(&format!("  {number:>3}. {after}{}{id}", step.name));
            let line = match &step.skip {
                Some(why) => printer.paint(Style::Quiet, &format!("{text}: {}", visible(why))),
                None => text,
            };
            printer.line(&line)?;
        }
    }
    Ok(())
}

/// What would be run: a pipeline, or a node of a workflow.
struct Part {
    node: Option<String>,
    pipeline: String,
    needs: Vec<String>,
    /// What is asked before it runs.
    approval: Option<String>,
    /// Its group of `concurrency`.
    group: Option<String>,
    preview: Preview,
}

fn nodes(config: &Config, graph: &Graph, spec: &RunSpec) -> Result<Vec<Part>, Error> {
    let part = |node: &sealift_pipeline::config::GraphNode| {
        let spec = RunSpec { pipeline: node.pipeline.clone(), ..spec.clone() };
        let Settings { approval, concurrency, .. } = &node.settings;
        let asked = approval.as_ref().filter(|approval| approval.wanted);
        Ok(Part {
            node: Some(node.name.clone()),
            pipeline: node.pipeline.clone(),
            needs: node.needs.clone(),
            approval: asked.map(|approval| approval.asks(&node.name)),
            group: concurrency.as_ref().map(|concurrency| concurrency.group.to_string()),
            preview: look(config, &spec)?,
        })
    };
    graph.nodes.iter().map(part).collect()
}

pub(super) fn look(config: &Config, spec: &RunSpec) -> Result<Preview, Error> {
    let pipeline = config.pipeline(&spec.pipeline);
    let pipeline = pipeline.ok_or_else(|| Error::plain(format!("there is no pipeline {}", spec.pipeline)))?;
    preview(config, pipeline, spec).map_err(|error| Error::plain(chain(&error)))
}

fn as_json(part: &Part) -> Value {
    let Part { node, pipeline, needs, approval, group, preview } = part;
    let services: Vec<Value> =
        preview.services.iter().map(|(name, image)| json!({ "name": name, "image": image })).collect();
    let steps: Vec<Value> = preview
        .steps
        .iter()
        .map(|step| json!({ "name": step.name, "id": step.id, "after": step.after, "skip": step.skip }))
        .collect();
    json!({
        "node": node,
        "pipeline": pipeline,
        "needs": needs,
        "approval": approval,
        "group": group,
        "box": preview.image,
        "services": services,
        "skip": preview.skip,
        "steps": steps,
    })
}
