//! The steps may do with the source as they like, and the user's own tree stays as it is.

use std::fs;
use std::path::Path;

use sealift_pipeline::{Source, remove_work_dir};

use crate::host::{BOB, Job, SH, engine, scripts};

const CHANGE: &str = "cat hello.txt; echo changed >hello.txt; rm -r dir; mkdir new; echo n >new/file; ls -a";

#[tokio::test]
async fn a_source_is_changed_for_the_steps_alone() {
    let Some(engine) = engine().await else { return };
    for (image, copy) in [(SH, false), (SH, true), (BOB, false), (BOB, true)] {
        let mut job = Job::new(scripts(image, &[CHANGE]));
        job.spec.tuning.copy_source = copy;
        // Where the file systems of /tmp cannot lie above another, this would not show a view.
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        job.spec.work_dir = work.path().join("run");
        let project = job.dir.path().join("project");
        fs::create_dir_all(project.join("dir/deep")).unwrap();
        fs::write(project.join("dir/deep/file"), "f").unwrap();
        fs::write(project.join("secret.env"), "s").unwrap();
        fs::write(project.join(".werckerignore"), "*.env\ndir/deep\n").unwrap();
        let before = tree(&project);
        let ran = job.run(&engine).await;
        assert_eq!(ran.output(0), "hello\n.\n..\n.werckerignore\nhello.txt\nnew\n", "{image} copy {copy}");
        assert_eq!(tree(&project), before, "{image} copy {copy}");
        let output = ran.outcome().output.clone().unwrap();
        assert_eq!(tree(&output), [".werckerignore", "hello.txt=changed", "new/file=n"], "copy {copy}");
        let viewed = mounts(work.path());
        assert_eq!(viewed, usize::from(!copy && rustix_is_root()), "{image} copy {copy}");
        remove_work_dir(&work.path().join("run")).unwrap();
        assert_eq!(mounts(work.path()), 0);
        assert!(!work.path().join("run").is_dir());
        assert_eq!(tree(&project), before, "{image} copy {copy}");
    }
}

#[tokio::test]
async fn what_is_left_out_stays_out_even_if_it_comes_later() {
    let Some(engine) = engine().await else { return };
    for (copy, ignore) in [(false, ""), (false, "*.env\n"), (true, "")] {
        let mut job = Job::new(scripts(SH, &["echo begun; ls -A; test ! -e .work"]));
        job.spec.tuning.copy_source = copy;
        let work = tempfile::tempdir_in("/var/tmp").unwrap();
        job.spec.work_dir = work.path().join("run");
        let project = job.dir.path().join("project");
        if !ignore.is_empty() {
            std::fs::write(project.join(".werckerignore"), ignore).unwrap();
        }
        let later = project.join(".work");
        job.spec.without = vec![later.clone()];
        let ran = job
            .run_watching(&engine, |event, _| {
                if matches!(event, sealift_model::EventKind::StepStarted { .. }) {
                    std::fs::create_dir_all(later.join("builds")).unwrap();
                }
            })
            .await;
        assert!(ran.outcome().passed, "{}", ran.output(0));
        let output = ran.outcome().output.clone().unwrap();
        assert!(!output.join(".work").is_dir(), "copy {copy}");
        remove_work_dir(&work.path().join("run")).unwrap();
    }
}

#[tokio::test]
async fn a_direct_source_is_the_users_own() {
    let Some(engine) = engine().await else { return };
    let mut job = Job::new(scripts(SH, &["echo changed >hello.txt; mkdir -p /pipeline/source/made"]));
    let project = job.dir.path().join("project");
    job.spec.source = Source::Direct(project.clone());
    let ran = job.run(&engine).await;
    assert!(ran.outcome().passed);
    assert_eq!(tree(&project), ["hello.txt=changed"]);
    assert!(project.join("made").is_dir());
}

fn rustix_is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0)
}

/// How many mounts there are below `dir`.
fn mounts(dir: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let dir = dir.to_str().unwrap();
    table.lines().filter(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with(dir))).count()
}

/// The files below `dir`, the small ones with their content.
fn tree(dir: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if path.is_dir() {
                open.push(path);
            } else if name == ".werckerignore" {
                files.push(name);
            } else {
                files.push(format!("{name}={}", fs::read_to_string(path).unwrap().trim()));
            }
        }
    }
    files.sort();
    files
}
