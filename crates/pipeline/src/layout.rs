//! The directories of a run on this machine.
//!
//! Guarantees: everything but the cache is made anew for each run; the source tree of a user is copied and never
//! changed.
//!
//! It must not know what the steps are.

use std::path::{Path, PathBuf};

use crate::overlay;
use crate::pipes;
use crate::session::REPORT;
use crate::source;
use crate::spec::{RunSpec, Source};

/// Where published paths are put, in a run's working directory. The container does not see it.
pub(crate) const PUBLISHED: &str = "published";

/// Where everything is.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Mounted at `/pipeline`.
    pub(crate) pipeline: PathBuf,
    /// Mounted read-only at [`crate::session::CONTROL`].
    pub(crate) control: PathBuf,
    /// The source tree; below `pipeline`, or the caller's own directory.
    pub(crate) source: PathBuf,
}

/// What may be views in a working directory.
const VIEWS: [&str; 2] = ["pipeline/source", "pipeline/cache"];

/// Where a run's source tree is in the end.
pub(crate) fn source_of(spec: &RunSpec) -> PathBuf {
    match &spec.source {
        Source::Own(dir) | Source::Direct(dir) => dir.clone(),
        Source::Copy(_) | Source::Whole(_) => spec.work_dir.join("pipeline/source"),
    }
}

/// Makes the run's directories anew; what is in the cache stays. `views` says whether the container will see what is
/// mounted here.
pub(crate) fn lay_out(spec: &RunSpec, ignore_file: Option<&str>, views: bool) -> std::io::Result<Layout> {
    std::fs::create_dir_all(&spec.work_dir)?;
    let work_dir = spec.work_dir.canonicalize()?;
    let pipeline = work_dir.join("pipeline");
    for view in VIEWS {
        overlay::end(&work_dir.join(view))?;
    }
    source::remove(&cache_changes(&work_dir))?;
    if spec.cache.is_some() {
        source::remove(&pipeline.join("cache"))?;
    }
    for name in ["output", "report", "steps", "source"] {
        source::remove(&pipeline.join(name))?;
    }
    let space = work_dir.join("changes");
    source::remove(&space)?;
    source::remove(&work_dir.join(PUBLISHED))?;
    let control = work_dir.join("control");
    source::remove(&control)?;
    for name in ["cache", "output", "report", "steps"] {
        std::fs::create_dir_all(pipeline.join(name))?;
        open_to_all(&pipeline.join(name))?;
    }
    std::fs::create_dir_all(&control)?;
    pipes::make_all(&control)?;
    pipes::make(&control.join(REPORT))?;
    std::fs::set_permissions(&control, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let source = match &spec.source {
        Source::Own(dir) | Source::Direct(dir) => dir.canonicalize()?,
        Source::Copy(from) | Source::Whole(from) => {
            let from = from.canonicalize()?;
            let (without, ignore) = left_out(spec, &from, ignore_file)?;
            let to = pipeline.join("source");
            if let Some(checkpoint) = spec.resume.as_ref().filter(|_| views) {
                std::fs::create_dir_all(&space)?;
                checkpoint.take_changes(&space.join("upper"))?;
            }
            // Only whole files outlive the source as it is now.
            let copies =
                if spec.checkpoint_on_failure { overlay::Copies::Whole } else { overlay::Copies::Lazy };
            let viewed = views
                && match overlay::view(
                    &from,
                    &to,
                    &space,
                    &source::ignored(&from, &without, &ignore)?,
                    copies,
                ) {
                    Ok(()) => true,
                    Err(error) => {
                        tracing::debug!(%error, "no view of the source, so it is copied");
                        source::remove(&space)?;
                        false
                    }
                };
            if !viewed {
                source::copy(&from, &to, &without, &ignore)?;
            }
            to
        }
    };
    Ok(Layout { pipeline, control, source })
}

/// Copies the source of a run to `to`.
pub(crate) fn copy_source(spec: &RunSpec, to: &Path, ignore_file: Option<&str>) -> std::io::Result<()> {
    let from = spec.source.dir().canonicalize()?;
    let (without, ignore) = left_out(spec, &from, ignore_file)?;
    source::copy(&from, to, &without, &ignore)
}

/// What of a tree is not part of the source.
fn left_out(
    spec: &RunSpec,
    from: &Path,
    ignore_file: Option<&str>,
) -> std::io::Result<(Vec<PathBuf>, source::Ignore)> {
    let mut without = vec![spec.work_dir.canonicalize()?];
    without.extend(spec.without.iter().filter_map(|dir| {
        // One that is not there yet, too.
        let parent = || Some(dir.parent()?.canonicalize().ok()?.join(dir.file_name()?));
        dir.canonicalize().ok().or_else(parent)
    }));
    let ignore = match &spec.source {
        Source::Copy(_) => source::Ignore::read(from, Path::new(ignore_file.unwrap_or(".werckerignore"))),
        _ => source::Ignore::default(),
    };
    Ok((without, ignore))
}

/// Removes the working directory of a run or of a workflow, the views of sources first.
///
/// # Errors
/// When something of it cannot be removed; a directory that is not there is fine.
pub fn remove_work_dir(work_dir: &Path) -> std::io::Result<()> {
    // Those of nodes and of services that are projects, too.
    overlay::end_below(work_dir)?;
    source::remove(work_dir)
}

/// Where the changes to a view of a cache are.
pub(crate) fn cache_changes(work_dir: &Path) -> PathBuf {
    work_dir.join("cache-changes")
}

/// Where a workflow's nodes have their directories.
pub(crate) fn nodes(work_dir: &Path) -> PathBuf {
    work_dir.join("nodes")
}

/// The working directory of a node's run, in the node's directory.
pub(crate) fn node_work_dir(dir: &Path) -> PathBuf {
    dir.join("work")
}

/// The user in the container may be anybody.
pub(crate) fn open_to_all(dir: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o777))
}
