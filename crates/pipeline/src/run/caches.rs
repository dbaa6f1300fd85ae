//! The caches of a run: taken from the store before its steps, kept after them.
//!
//! Guarantees: trouble with a cache is told and never fails a run; nothing is kept of a run that was cancelled.
//!
//! It must not know how the store is laid out.

use std::path::{Path, PathBuf};

use super::{Run, chain};
use crate::cache::{Error, Held, Name, Store};
use crate::config::template::{Template, Values};
use crate::env::Env;
use crate::layout::{self, Layout};
use crate::overlay;
use crate::pull::Tell;
use crate::source;

/// The largest file whose checksum a key may ask for.
const LARGEST: u64 = 64 * 1024 * 1024;

/// One cache of a run.
#[derive(Debug)]
pub(super) struct Used {
    name: String,
    /// For people.
    title: String,
    /// What is kept: this directory, or these paths in it.
    dir: PathBuf,
    only: Option<Vec<String>>,
    held: Option<Held>,
    /// Where the changes to a view of it are; they can be linked instead of copied.
    changes: Option<PathBuf>,
    keep_on_failure: bool,
}

/// What a key is made of.
struct Facts<'a> {
    env: &'a Env,
    branch: &'a str,
    source: &'a Path,
}

impl Values for Facts<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        self.env.get(name).map(str::to_owned)
    }

    fn branch(&self) -> String {
        self.branch.to_owned()
    }

    fn checksum(&self, files: &[String]) -> Option<String> {
        let mut hasher = blake3::Hasher::new();
        for file in files {
            let text = source::read_text(self.source, Path::new(file), LARGEST)?;
            hasher.update(blake3::hash(text.as_bytes()).as_bytes());
        }
        Some(hasher.finalize().to_hex()[..16].to_owned())
    }
}

impl Run {
    /// Puts the caches in their places.
    pub(super) async fn take_caches(&mut self, layout: &Layout, env: &Env) {
        let Some(cache) = self.spec.cache.clone() else { return };
        let mut wanted = vec![self.own_cache(layout)];
        if let Some(settings) = self.settings.cache.clone() {
            let facts = Facts { env, branch: &cache.branch, source: &layout.source };
            let fill = |template: &Template| template.fill(&facts).map_err(|error| error.to_string());
            match fill(&settings.key).and_then(|key| {
                let fallback = settings.fallback.iter().map(fill).collect::<Result<Vec<_>, _>>()?;
                Ok((key, fallback))
            }) {
                Ok((key, fallback)) => {
                    let used = Used {
                        name: format!("key {key}"),
                        title: format!("cache {key}"),
                        dir: layout.source.clone(),
                        only: Some(settings.paths.clone()),
                        held: None,
                        changes: None,
                        keep_on_failure: settings.keep_on_failure,
                    };
                    let names = std::iter::once(used.name.clone())
                        .chain(fallback.into_iter().map(|key| format!("key {key}*")));
                    wanted.push((used, names.collect()));
                }
                Err(error) => self.warn(format!("no cache by its key: {error}")).await,
            }
        }
        for (mut used, names) in wanted {
            let (project, store) = (cache.project.clone(), cache.store.clone());
            let views = self.engine.shares_mounts() && !self.spec.tuning.copy_source;
            let title = used.title.clone();
            let take = tokio::task::spawn_blocking(move || {
                take(&store, &project, &names, &mut used, views).map(|found| (used, found))
            });
            match take.await.map_err(Error::Task).and_then(|taken| taken) {
                Ok((used, found)) => {
                    if let Some(name) = found {
                        // Outside of git it is of no branch.
                        let of = name.split_once(' ').map_or(name.as_str(), |(_, of)| of);
                        let of = if of.is_empty() { "an earlier run" } else { of };
                        self.note(format!("{title} taken from {of}")).await;
                    }
                    self.caches.push(used);
                }
                Err(error) => self.warn(format!("no {title}: {}", chain(&error))).await,
            }
        }
    }

    fn own_cache(&self, layout: &Layout) -> (Used, Vec<String>) {
        let cache = self.spec.cache.as_ref();
        let branch = cache.map(|cache| cache.branch.clone()).unwrap_or_default();
        let used = Used {
            name: format!("branch {branch}"),
            title: "cache directory".to_owned(),
            dir: layout.pipeline.join("cache"),
            only: None,
            held: None,
            changes: Some(layout::cache_changes(&self.spec.work_dir)),
            keep_on_failure: cache.is_some_and(|cache| cache.keep_on_failure),
        };
        let mut names = vec![used.name.clone()];
        // What others fall back to is made by itself alone: whoever may push a branch could put something into it.
        if let Some(cache) = cache.filter(|cache| !cache.fallback.contains(&cache.branch)) {
            names.extend(cache.fallback.iter().map(|branch| format!("branch {branch}")));
            names.push("branch *".to_owned());
        }
        (used, names)
    }

    /// Keeps what the run has left, when all its containers are gone.
    pub(super) async fn keep_caches(&mut self, passed: bool) {
        let (Some(cache), used) = (self.spec.cache.clone(), std::mem::take(&mut self.caches)) else { return };
        if self.is_aborted() || used.is_empty() {
            return;
        }
        let mut grown = false;
        for used in used.into_iter().filter(|used| passed || used.keep_on_failure) {
            let cache = cache.clone();
            let title = used.title.clone();
            let keep =
                tokio::task::spawn_blocking(move || keep(&cache.store, cache.project, &used, cache.most));
            match keep.await.map_err(Error::Task).and_then(|kept| kept) {
                Ok(Some(text)) => {
                    grown = true;
                    self.note(format!("{title} kept: {text}")).await;
                }
                Ok(None) => {}
                Err(error) => self.warn(format!("{title} not kept: {}", chain(&error))).await,
            }
        }
        // It looks at every tree of the store, and no other run's end needs that.
        if !grown {
            return;
        }
        let bound = tokio::task::spawn_blocking(move || Store::open(&cache.store)?.bound(cache.limit));
        if let Err(error) = bound.await.map_err(Error::Task).and_then(|bound| bound) {
            self.warn(format!("the store of caches is not bounded: {}", chain(&error))).await;
        }
    }
}

/// Puts what is found into its place; the name it was found by.
fn take(
    store: &Path,
    project: &str,
    names: &[String],
    used: &mut Used,
    views: bool,
) -> Result<Option<String>, Error> {
    let found = Store::open(store)?.find(project, names)?;
    let Some(held) = found else {
        used.changes = None;
        return Ok(None);
    };
    let viewed = views
        && used.changes.as_ref().is_some_and(|changes| {
            // Whole files in the upper layer, because they are linked into the store.
            let view = overlay::view(&held.data(), &used.dir, changes, &[], overlay::Copies::Whole);
            view.inspect_err(|error| tracing::debug!(%error, "no view of the cache, so it is copied")).is_ok()
        });
    if !viewed {
        used.changes = None;
        held.copy(&used.dir)?;
    }
    layout::open_to_all(&used.dir).map_err(|source| Error::Files { path: used.dir.clone(), source })?;
    let name = held.name.clone();
    used.held = Some(held);
    Ok(Some(name))
}

/// What there is to say, if anything was kept anew.
fn keep(store: &Path, project: String, used: &Used, most: u64) -> Result<Option<String>, Error> {
    // A key says what is in it: what is there under it stays.
    let exact = used.held.as_ref().is_some_and(|held| held.name == used.name);
    let untouched = used.changes.as_ref().is_some_and(|changes| !source::has_entries(&changes.join("upper")));
    if exact && (used.only.is_some() || untouched) {
        return Ok(None);
    }
    // The steps may have put a link there.
    if !used.dir.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(None);
    }
    let near: Vec<PathBuf> = match &used.changes {
        Some(changes) => vec![changes.join("upper")],
        None if used.only.is_none() => vec![used.dir.clone()],
        // The source may be wanted as output, and be written to.
        None => Vec::new(),
    };
    let name = Name { project, name: used.name.clone() };
    let kept =
        Store::open(store)?.keep(name, &used.dir, used.only.as_deref(), used.held.as_ref(), &near, most)?;
    Ok(kept.map(|kept| {
        let known = if kept.known { ", which the store has already" } else { "" };
        let left = if kept.left_out > 0 { format!(", {} left out", kept.left_out) } else { String::new() };
        format!("{} files, {:.1} MB{left}{known}", kept.files, kept.bytes as f64 / 1e6)
    }))
}
