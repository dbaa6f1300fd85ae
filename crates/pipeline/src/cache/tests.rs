use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

const MOST: u64 = 1_000_000;

fn name(name: &str) -> Name {
    Name { project: "p".into(), name: name.into() }
}

fn find(store: &Store, names: &[&str]) -> Option<Held> {
    store.find("p", &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// A tree with one of everything.
fn sample(dir: &Path) {
    fs::create_dir_all(dir.join("sub/empty")).unwrap();
    fs::write(dir.join("sub/a"), "a").unwrap();
    fs::write(dir.join("tool"), "#!").unwrap();
    fs::set_permissions(dir.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("sub/a", dir.join("link")).unwrap();
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let from = dir.path().join("from");
    sample(&from);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        from.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let kept = store.keep(name("branch x"), &from, None, None, &[], MOST).unwrap().unwrap();
    assert_eq!(kept, Kept { files: 5, bytes: 3, left_out: 1, known: false });
    let held = find(&store, &["branch none", "branch x"]).unwrap();
    assert_eq!(held.name, "branch x");
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    fs::write(to.join("mine"), "m").unwrap();
    held.copy(&to).unwrap();
    let read = |name: &str| fs::read_to_string(to.join(name)).unwrap();
    assert_eq!((read("sub/a"), read("link"), read("mine")), ("a".into(), "a".into(), "m".into()));
    assert_eq!(fs::metadata(to.join("tool")).unwrap().mode() & 0o777, 0o755);
    assert!(to.join("sub/empty").is_dir());
    let times = |path: PathBuf| fs::metadata(path).unwrap().modified().unwrap();
    assert_eq!(times(to.join("sub/a")), times(from.join("sub/a")));
    // What is done to the copy is not done to the store.
    fs::write(to.join("sub/a"), "changed").unwrap();
    assert_eq!(fs::read_to_string(held.data().join("sub/a")).unwrap(), "a");
}

#[test]
fn the_same_content_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    for (number, branch) in ["branch x", "branch y"].into_iter().enumerate() {
        let from = dir.path().join(number.to_string());
        sample(&from);
        let kept = store.keep(name(branch), &from, None, None, &[], MOST).unwrap().unwrap();
        assert_eq!(kept.known, number == 1);
    }
    assert_eq!(fs::read_dir(store.dir.join(TREES)).unwrap().count(), 1);
}

#[test]
fn unchanged_files_are_linked_and_changed_ones_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let from = dir.path().join("from");
    sample(&from);
    store.keep(name("branch x"), &from, None, None, &[], MOST).unwrap();
    let first = find(&store, &["branch x"]).unwrap();
    let to = dir.path().join("to");
    fs::create_dir(&to).unwrap();
    first.copy(&to).unwrap();
    fs::write(to.join("sub/a"), "b").unwrap();
    store.keep(name("branch x"), &to, None, Some(&first), &[], MOST).unwrap();
    let second = find(&store, &["branch x"]).unwrap();
    let inode = |held: &Held, name: &str| fs::metadata(held.data().join(name)).unwrap().ino();
    assert_eq!(inode(&first, "tool"), inode(&second, "tool"));
    assert_ne!(inode(&first, "sub/a"), inode(&second, "sub/a"));
    assert_eq!(fs::read_to_string(first.data().join("sub/a")).unwrap(), "a");
    assert_eq!(fs::read_to_string(second.data().join("sub/a")).unwrap(), "b");
}

#[test]
fn falls_back_to_what_is_newest() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    for branch in ["branch old", "branch main", "key gems-1"] {
        let from = dir.path().join(branch);
        fs::create_dir(&from).unwrap();
        fs::write(from.join("f"), branch).unwrap();
        store.keep(name(branch), &from, None, None, &[], MOST).unwrap();
        // Times are in milliseconds.
        let before = now();
        while now() == before {
            std::thread::yield_now();
        }
    }
    let found = |names: &[&str]| find(&store, names).map(|held| held.name);
    assert_eq!(found(&["branch new", "branch main", "branch *"]).as_deref(), Some("branch main"));
    assert_eq!(found(&["branch *"]).as_deref(), Some("branch main"));
    assert_eq!(found(&["key gems-*"]).as_deref(), Some("key gems-1"));
    assert_eq!(found(&["branch new", "key npm-*"]), None);
    assert!(store.find("other", &["branch main".into()]).unwrap().is_none());
}

#[test]
fn stays_below_its_limit_and_removes_nothing_that_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    for branch in ["branch a", "branch b", "branch c"] {
        let from = dir.path().join(branch);
        fs::create_dir(&from).unwrap();
        fs::write(from.join("f"), format!("{branch}{}", "x".repeat(992))).unwrap();
        store.keep(name(branch), &from, None, None, &[], MOST).unwrap();
        let before = now();
        while now() == before {
            std::thread::yield_now();
        }
    }
    assert_eq!(store.bound(3000).unwrap(), 0);
    // `a` is the oldest, but is in use, and so becomes the newest.
    let held = find(&store, &["branch a"]).unwrap();
    assert_eq!(store.bound(2000).unwrap(), 1);
    assert!(find(&store, &["branch b"]).is_none() && find(&store, &["branch c"]).is_some());
    assert_eq!(store.bound(0).unwrap(), 1);
    assert!(held.data().join("f").is_file());
    drop(held);
    assert_eq!(store.bound(0).unwrap(), 1);
    assert!(find(&store, &["branch a"]).is_none());
}

#[test]
fn what_is_too_large_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let from = dir.path().join("from");
    fs::create_dir(&from).unwrap();
    assert_eq!(store.keep(name("branch x"), &from, None, None, &[], 10).unwrap(), None);
    fs::write(from.join("f"), "12345678901").unwrap();
    let refused = store.keep(name("branch x"), &from, None, None, &[], 10);
    assert!(matches!(refused, Err(Error::TooLarge { most: 10 })), "{refused:?}");
    assert!(find(&store, &["branch x"]).is_none());
    assert_eq!(fs::read_dir(store.dir.join(TREES)).unwrap().count(), 0);
}

#[test]
fn some_paths_and_nothing_that_links_lead_to() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    let from = dir.path().join("from");
    sample(&from);
    fs::write(dir.path().join("outside"), "o").unwrap();
    symlink("..", from.join("up")).unwrap();
    let paths = ["sub/a", "./sub/empty/", "up/outside", "../outside", "none"].map(str::to_owned);
    store.keep(name("key k"), &from, Some(&paths), None, &[], MOST).unwrap().unwrap();
    let data = find(&store, &["key k"]).unwrap().data();
    let names = |dir: &Path| -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(
        (names(&data), names(&data.join("sub"))),
        (vec!["sub".into()], vec!["a".into(), "empty".into()])
    );
}
