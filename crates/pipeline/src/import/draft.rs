//! What is known of another tool's file, on the way to a wercker.yml.

use sealift_model::diagnostic::Diagnostic;

use super::source::note;
use super::write::{Out, write_map};
use crate::config::keys::TOP;
use crate::yaml::Place;

/// What a box is where the other file names no image.
pub(super) const DEFAULT_IMAGE: &str = "debian:12";

/// A pipeline to be.
#[derive(Debug, Default)]
pub(super) struct Job {
    pub(super) name: String,
    /// None: [`DEFAULT_IMAGE`].
    pub(super) image: Option<String>,
    /// More keys of the box.
    pub(super) box_keys: Vec<(String, Out)>,
    pub(super) env: Vec<(String, String)>,
    pub(super) services: Vec<Out>,
    /// All other keys of the pipeline.
    pub(super) keys: Vec<(String, Out)>,
    pub(super) needs: Vec<String>,
    /// Whose outputs it is given.
    pub(super) artifacts: Vec<String>,
    /// Where it is kept, and its variable.
    pub(super) secrets: Vec<(String, String)>,
    pub(super) steps: Vec<Out>,
    pub(super) after: Vec<Out>,
}

impl Job {
    /// Sets a key; of two values the last one counts.
    pub(super) fn set(&mut self, key: &str, value: Out) {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value));
    }

    /// Adds variables; one that is there already gets the new value.
    pub(super) fn add_env(&mut self, more: Vec<(String, String)>) {
        for (name, value) in more {
            match self.env.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => self.env.push((name, value)),
            }
        }
    }
}

/// A script step.
pub(super) fn script(name: Option<String>, code: &str, mut more: Vec<(String, Out)>) -> Out {
    let mut pairs: Vec<(String, Out)> =
        name.into_iter().map(|name| ("name".to_owned(), Out::Text(name))).collect();
    pairs.push(("code".to_owned(), Out::text(code)));
    pairs.append(&mut more);
    Out::map([("script", Out::Map(pairs))])
}

#[derive(Debug, Default)]
pub(super) struct Draft {
    pub(super) jobs: Vec<Job>,
    /// Names of jobs, stage by stage; empty: by what they need.
    pub(super) stages: Vec<Vec<String>>,
    pub(super) notes: Vec<Diagnostic>,
}

impl Draft {
    pub(super) fn note(&mut self, at: Place, message: impl Into<String>) {
        self.notes.push(note(at, message.into()));
    }

    /// The wercker.yml.
    pub(super) fn write(&mut self, from: &str) -> String {
        self.rename_jobs();
        let file = from.rsplit('/').next().unwrap_or(from);
        let mut out = format!("# Made from {} by `sealift import`.\n", one_line(file));
        if !self.notes.is_empty() {
            out.push_str("# What was not taken over, or not in whole, by line:\n");
        }
        for note in &self.notes {
            out.push_str(&format!("#   {}: {}\n", note.line, one_line(&note.message)));
        }
        out.push_str("sealift: 1\n");
        let boxes: Vec<Out> = self.jobs.iter().map(box_of).collect();
        let same_box = boxes.first().filter(|first| boxes.iter().all(|one| one == *first)).cloned();
        let services: Vec<Vec<Out>> = self.jobs.iter().map(|job| job.services.clone()).collect();
        let same_services = services
            .first()
            .filter(|first| !first.is_empty() && services.iter().all(|one| one == *first))
            .cloned();
        let mut top = Vec::new();
        top.extend(same_box.clone().map(|one| ("box".to_owned(), one)));
        top.extend(same_services.clone().map(|list| ("services".to_owned(), Out::List(list))));
        write_map(&top, 0, &mut out);
        for (job, own) in self.jobs.iter().zip(boxes) {
            let own = same_box.is_none().then_some(own);
            let pipeline = pipeline(job, own, same_services.is_none());
            out.push('\n');
            write_map(&[(job.name.clone(), Out::Map(pipeline))], 0, &mut out);
        }
        if let Some(workflow) = self.workflow() {
            out.push('\n');
            write_map(&[("workflows".to_owned(), Out::List(vec![workflow]))], 0, &mut out);
        }
        out
    }

    /// One pipeline alone needs no workflow.
    fn workflow(&self) -> Option<Out> {
        if self.jobs.len() < 2 {
            return None;
        }
        let stages: Vec<&Vec<String>> = self.stages.iter().filter(|stage| !stage.is_empty()).collect();
        let (key, list) = if stages.is_empty() {
            ("pipelines", self.jobs.iter().map(|job| Out::text(&job.name)).collect())
        } else {
            let stage = |stage: &&Vec<String>| match stage.as_slice() {
                [one] => Out::text(one),
                many => Out::texts(many.to_vec()),
            };
            ("stages", stages.iter().map(stage).collect())
        };
        Some(Out::map([("name", Out::text("main")), (key, Out::List(list))]))
    }

    /// Names that mean something else at the top of the file get another end.
    fn rename_jobs(&mut self) {
        let taken: Vec<String> = self.jobs.iter().map(|job| job.name.clone()).collect();
        let new = |name: &str| {
            let special = TOP.iter().any(|key| key.name == name)
                || name.starts_with("x-")
                || name.starts_with('.')
                || name.is_empty();
            let mut new = name.trim_start_matches(['.', ' ']).to_owned();
            if special {
                while new.is_empty()
                    || new.starts_with("x-")
                    || TOP.iter().any(|key| key.name == new)
                    || taken.contains(&new)
                {
                    new = format!("job-{new}");
                }
            }
            new
        };
        for job in &mut self.jobs {
            job.name = new(&job.name);
            for name in job.needs.iter_mut().chain(&mut job.artifacts) {
                *name = new(name);
            }
        }
        for name in self.stages.iter_mut().flatten() {
            *name = new(name);
        }
    }
}

fn box_of(job: &Job) -> Out {
    let image = job.image.as_deref().unwrap_or(DEFAULT_IMAGE);
    if job.env.is_empty() && job.box_keys.is_empty() {
        return Out::text(image);
    }
    let mut pairs = vec![("id".to_owned(), Out::text(image))];
    pairs.extend(job.box_keys.iter().cloned());
    if !job.env.is_empty() {
        pairs.push(("env".to_owned(), Out::variables(&job.env)));
    }
    Out::Map(pairs)
}

fn pipeline(job: &Job, own_box: Option<Out>, own_services: bool) -> Vec<(String, Out)> {
    let mut pairs: Vec<(String, Out)> = Vec::new();
    pairs.extend(own_box.map(|one| ("box".to_owned(), one)));
    if own_services && !job.services.is_empty() {
        pairs.push(("services".to_owned(), Out::List(job.services.clone())));
    }
    if !job.needs.is_empty() {
        pairs.push(("needs".to_owned(), Out::texts(job.needs.clone())));
    }
    if !job.artifacts.is_empty() {
        pairs.push(("artifacts".to_owned(), Out::map([("from", Out::texts(job.artifacts.clone()))])));
    }
    if !job.secrets.is_empty() {
        let mut secrets = job.secrets.clone();
        secrets.sort_by(|a, b| a.1.cmp(&b.1));
        secrets.dedup_by(|a, b| a.1 == b.1);
        let one = |(from, variable): (String, String)| {
            if from == variable {
                Out::Text(from)
            } else {
                Out::map([("from", Out::Text(from)), ("as", Out::Text(variable))])
            }
        };
        pairs.push(("secrets".to_owned(), Out::List(secrets.into_iter().map(one).collect())));
    }
    pairs.extend(job.keys.iter().cloned());
    let nothing = vec![script(None, "echo nothing to do", Vec::new())];
    let steps = if job.steps.is_empty() { nothing } else { job.steps.clone() };
    pairs.push(("steps".to_owned(), Out::List(steps)));
    if !job.after.is_empty() {
        pairs.push(("after-steps".to_owned(), Out::List(job.after.clone())));
    }
    pairs
}

/// Text that cannot leave its line of comment.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') { ' ' } else { c })
        .collect()
}
