//! What one run leaves in its cache, the next one finds.

use std::path::Path;

use sealift_pipeline::{CacheSpec, remove_work_dir};

use crate::host::{BOB, Job, Ran, SH, engine, scripts};
use sealift_pipeline::Engine;

/// Runs these steps as a run of its own, with a cache of this store and branch.
async fn run(
    engine: &Engine,
    yaml: String,
    store: &Path,
    branch: &str,
    change: impl FnOnce(&mut CacheSpec, &mut Job),
) -> Ran {
    let mut job = Job::new(yaml);
    // Where the file systems of /tmp cannot lie above another, this would not show a view.
    let work = tempfile::tempdir_in("/var/tmp").unwrap();
    job.spec.work_dir = work.path().join("run");
    let mut cache = CacheSpec::new(store.to_owned(), "me/hello", branch);
    change(&mut cache, &mut job);
    job.spec.cache = Some(cache);
    let ran = job.run(engine).await;
    remove_work_dir(&work.path().join("run")).unwrap();
    ran
}

#[tokio::test]
async fn a_branch_finds_its_own_cache_or_that_of_another() {
    let Some(engine) = engine().await else { return };
    let store = tempfile::tempdir_in("/var/tmp").unwrap();
    let look = "cd $WERCKER_CACHE_DIR; find . -type f | sort | xargs -r grep -H .; echo end";
    for (image, copy) in [(SH, false), (SH, true), (BOB, false)] {
        let store = store.path().join(format!("{}-{copy}", image.len()));
        let set = |_: &mut CacheSpec, job: &mut Job| job.spec.tuning.copy_source = copy;
        let fill = "mkdir -p $WERCKER_CACHE_DIR/d; echo one >$WERCKER_CACHE_DIR/d/a; echo keep >$WERCKER_CACHE_DIR/b";
        let first = run(&engine, scripts(image, &[look, fill]), &store, "main", set).await;
        assert_eq!(first.output(0), "end\n");
        let change = "cd $WERCKER_CACHE_DIR; echo two >d/a; rm b; echo new >c";
        let second = run(&engine, scripts(image, &[look, change]), &store, "topic", set).await;
        assert_eq!(second.output(0), "./b:keep\n./d/a:one\nend\n", "{image} {copy}: {:#?}", second.events);
        let third = run(&engine, scripts(image, &[look]), &store, "topic", set).await;
        assert_eq!(third.output(0), "./c:new\n./d/a:two\nend\n", "{image} {copy}");
        // The branch that it was taken from has what it had.
        let fourth = run(&engine, scripts(image, &[look]), &store, "main", set).await;
        assert_eq!(fourth.output(0), "./b:keep\n./d/a:one\nend\n", "{image} {copy}");
    }
}

#[tokio::test]
async fn a_failed_run_keeps_its_cache_as_the_user_chooses() {
    let Some(engine) = engine().await else { return };
    for keeps in [true, false] {
        let store = tempfile::tempdir_in("/var/tmp").unwrap();
        let set = |cache: &mut CacheSpec, _: &mut Job| cache.keep_on_failure = keeps;
        let fail = "echo x >$WERCKER_CACHE_DIR/x; exit 1";
        assert!(!run(&engine, scripts(SH, &[fail]), store.path(), "main", set).await.outcome().passed);
        let next = run(&engine, scripts(SH, &["ls $WERCKER_CACHE_DIR"]), store.path(), "main", set).await;
        assert_eq!(next.output(0), if keeps { "x\n" } else { "" });
    }
}

#[tokio::test]
async fn a_cache_that_is_too_large_is_not_kept_and_the_run_passes() {
    let Some(engine) = engine().await else { return };
    let store = tempfile::tempdir_in("/var/tmp").unwrap();
    let set = |cache: &mut CacheSpec, _: &mut Job| cache.most = 1_000_000;
    let fill = "head -c 1000001 /dev/zero >$WERCKER_CACHE_DIR/x";
    let ran = run(&engine, scripts(SH, &[fill]), store.path(), "main", set).await;
    assert!(ran.outcome().passed);
    assert_eq!(ran.warnings(), ["cache directory not kept: it is larger than 1 MB"]);
}

#[tokio::test]
async fn a_link_in_the_place_of_the_cache_takes_nothing_of_this_machine() {
    let Some(engine) = engine().await else { return };
    let store = tempfile::tempdir_in("/var/tmp").unwrap();
    let link = "rm -rf $WERCKER_CACHE_DIR; ln -s / $WERCKER_CACHE_DIR; ln -s /etc etc";
    let yaml = |code: &str| {
        let steps = scripts(SH, &[code]);
        format!("sealift: 1\n{steps}  cache: {{key: k, paths: [etc/hostname]}}\n")
    };
    let ran = run(&engine, yaml(link), store.path(), "main", |_, _| ()).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    let look = "ls $WERCKER_CACHE_DIR; test ! -e etc";
    let next = run(&engine, yaml(look), store.path(), "main", |_, _| ()).await;
    assert_eq!((next.output(0).as_str(), next.outcome().passed), ("", true), "{:#?}", next.events);
}

#[tokio::test]
async fn paths_are_kept_by_a_key() {
    let Some(engine) = engine().await else { return };
    let store = tempfile::tempdir_in("/var/tmp").unwrap();
    let yaml = |code: &str| {
        let steps = scripts(SH, &[code]);
        let cache = "{key: 'v1-{{ checksum lock }}', fallback: [v1-], paths: [deps, other/one]}";
        format!("sealift: 1\n{steps}  cache: {cache}\n")
    };
    let lock = |text: &'static str| {
        move |_: &mut CacheSpec, job: &mut Job| {
            std::fs::write(job.dir.path().join("project/lock"), text).unwrap();
        }
    };
    let fill = "test ! -e deps; mkdir -p deps other; echo a >deps/a; echo 1 >other/one; echo 2 >other/two";
    assert!(run(&engine, yaml(fill), store.path(), "main", lock("1")).await.outcome().passed);
    // Another key: it begins with the nearest one, and is kept for itself.
    let look = "cat deps/a other/one; test ! -e other/two; echo b >deps/a";
    let other = run(&engine, yaml(look), store.path(), "main", lock("2")).await;
    assert_eq!(other.output(0), "a\n1\n", "{:#?}", other.events);
    assert!(other.outcome().passed);
    let cat = "cat deps/a";
    assert_eq!(run(&engine, yaml(cat), store.path(), "main", lock("1")).await.output(0), "a\n");
    assert_eq!(run(&engine, yaml(cat), store.path(), "main", lock("2")).await.output(0), "b\n");
}
