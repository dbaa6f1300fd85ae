//! Secrets: told to the attempt that is under way, kept in one place, shown nowhere.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use sealift_client::Error;
use sealift_client::api::{List, SecretInfo};
use serde_json::json;
use tokio::net::UnixStream;

use crate::agent::{Agent, machine, note};
use crate::house::{House, assert_refused, collect_files, refused};
use crate::wire;

async fn set(house: &House, project: &str, name: &str, value: &str) -> Result<SecretInfo, Error> {
    house.client.put(&format!("/v1/projects/{project}/secrets/{name}"), &json!({ "value": value })).await
}

async fn remove(house: &House, project: &str, name: &str) -> Result<(), Error> {
    house.client.delete(&format!("/v1/projects/{project}/secrets/{name}")).await
}

async fn names(house: &House, project: &str) -> Vec<String> {
    let list: List<SecretInfo> = house.get(&format!("/v1/projects/{project}/secrets")).await.unwrap();
    list.items.into_iter().map(|info| info.name.to_string()).collect()
}

fn told(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[tokio::test]
async fn a_run_is_told_its_project_s_secrets_as_they_are_now() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    // They may be there before the project's first run.
    set(&house, "hello", "TOKEN", "geheim").await.unwrap();
    set(&house, "other", "TOKEN", "not hello's").await.unwrap();
    house.push("hello", "main", 1).await;
    let run = agent.run().await;
    assert_eq!(agent.secrets(&run).await.unwrap(), told(&[("TOKEN", "geheim")]));
    let key = "-----BEGIN KEY-----\nStraße \"quoted\" \u{1f600}\n";
    set(&house, "hello", "_key2", key).await.unwrap();
    set(&house, "hello", "TOKEN", "newer").await.unwrap();
    assert_eq!(agent.secrets(&run).await.unwrap(), told(&[("TOKEN", "newer"), ("_key2", key)]));
    remove(&house, "hello", "TOKEN").await.unwrap();
    assert_eq!(agent.secrets(&run).await.unwrap(), told(&[("_key2", key)]));
    assert_refused(remove(&house, "hello", "TOKEN").await, 404, "not-found");
    remove(&house, "hello", "_key2").await.unwrap();
    assert_eq!(agent.secrets(&run).await.unwrap(), told(&[]));
    assert_eq!(names(&house, "other").await, ["TOKEN"]);
}

#[tokio::test]
async fn who_does_not_hold_the_run_is_told_nothing() {
    let house = House::open().await;
    set(&house, "hello", "TOKEN", "geheim").await.unwrap();
    let host = machine(1, 1);
    let queued = house.push("hello", "main", 1).await.id;
    let mut old = Agent::begin(&house, &host, 1).await;
    let first = old.run().await;
    assert_eq!(old.secrets(&first).await.unwrap().len(), 1);
    // A run that waits belongs to nobody.
    let waiting = house.push("hello", "main", 2).await.id;
    assert_refused(old.secrets_of(&waiting, 1).await, 410, "fenced");
    assert_refused(old.secrets_of(&"hello-9".parse().unwrap(), 1).await, 404, "not-found");

    // The machine's next life takes the run over.
    let mut new = Agent::begin(&house, &host, 2).await;
    let second = new.run().await;
    assert_eq!((&second.run.id, second.attempt), (&queued, 2));
    for attempt in 0..4 {
        assert_refused(old.secrets_of(&queued, attempt).await, 410, "fenced");
    }
    for attempt in [0, 1, 3] {
        assert_refused(new.secrets_of(&queued, attempt).await, 410, "fenced");
    }
    // Another machine, present and well, that carries out another run.
    let mut other = Agent::begin(&house, &machine(2, 1), 3).await;
    let its = other.run().await;
    assert_eq!(its.run.id, waiting);
    assert_refused(other.secrets(&second).await, 410, "fenced");
    assert_refused(new.secrets(&its).await, 410, "fenced");
    assert_eq!(new.secrets(&second).await.unwrap().len(), 1);

    // After the end, whichever it was.
    new.fail(&second).await.unwrap();
    assert_refused(new.secrets(&second).await, 410, "fenced");
    house.abort(&waiting).await.unwrap();
    assert_refused(other.secrets(&its).await, 410, "fenced");
    // Where there is nothing to tell it is refused as well.
    remove(&house, "hello", "TOKEN").await.unwrap();
    assert_refused(new.secrets(&second).await, 410, "fenced");
}

#[tokio::test]
async fn nothing_but_their_names_is_shown_and_they_are_in_one_file_alone() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let house = House::on_disk(dir.clone()).await;
    let (b, a) = (set(&house, "hello", "B", "geheim-1").await, set(&house, "hello", "A", "geheim-2").await);
    let (a, b) = (a.unwrap(), b.unwrap());
    assert!(b.changed_at < a.changed_at);
    let path = "/v1/projects/hello/secrets";
    let list: List<SecretInfo> = house.get(path).await.unwrap();
    assert_eq!(list.items, [a.clone(), b]);
    let stream = UnixStream::connect(house.socket()).await.unwrap();
    let answer = wire::ask(stream, "GET", path, &[], "").await;
    assert!(answer.status == 200 && !answer.body.contains("geheim"), "{answer:?}");
    assert_eq!(names(&house, "nobody-s").await, [""; 0]);

    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    let told = agent.secrets(&handed).await.unwrap();
    agent.say(&handed, vec![note(0, "works with ***")]).await.unwrap();
    agent.fail(&handed).await.unwrap();
    assert!(!format!("{:?}", house.log(&run, true).await).contains("geheim"));

    let mode = |path: &str| std::fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("secrets"), mode("secrets/hello.json")), (0o700, 0o600));
    let again = set(&house, "hello", "A", "geheim-3").await.unwrap();
    assert!(again.changed_at > a.changed_at);
    assert_eq!(mode("secrets/hello.json"), 0o600);
    house.close().await;
    let mut files = BTreeMap::new();
    collect_files(dir.path(), &mut files);
    assert!(files.keys().any(|path| path.ends_with("store.redb")), "{:?}", files.keys());
    let holding: Vec<_> = files
        .iter()
        .filter(|(_, bytes)| bytes.windows(6).any(|part| part == b"geheim"))
        .map(|(path, _)| path.strip_prefix(dir.path()).unwrap().to_str().unwrap())
        .collect();
    assert_eq!(holding, ["secrets/hello.json"]);

    // The next life of the server has them still.
    let house = House::on_disk(dir.clone()).await;
    assert_eq!(names(&house, "hello").await, ["A", "B"]);
    let mut agent = Agent::begin(&house, &machine(1, 1), 2).await;
    house.push("hello", "main", 2).await;
    let handed = agent.run().await;
    let later = agent.secrets(&handed).await.unwrap();
    assert_eq!((&later["A"], &later["B"], told.len()), (&"geheim-3".to_owned(), &told["B"], 2));
    for name in ["A", "B"] {
        remove(&house, "hello", name).await.unwrap();
    }
    assert!(!dir.path().join("secrets/hello.json").try_exists().unwrap(), "the last value is still there");
}

#[tokio::test]
async fn what_cannot_be_a_secret_is_refused_and_not_repeated() {
    let house = House::open().await;
    for name in ["1A", "A-B", "A.B", "A%20B", "A%2FB", "%2E%2E", &"A".repeat(101)] {
        assert_refused(set(&house, "hello", name, "geheim").await, 400, "invalid");
        assert_refused(remove(&house, "hello", name).await, 400, "invalid");
    }
    for project in ["..%2Fkeys", "%2E%2E", "Hello", ".partial"] {
        assert_refused(set(&house, project, "A", "geheim").await, 400, "invalid");
    }
    let path = "/v1/projects/hello/secrets/A";
    for body in [
        json!({ "value": "" }),
        json!({ "value": "geheim\0" }),
        json!({ "value": "geheim!".repeat(10_000) }),
        json!({ "value": ["geheim"] }),
        json!({ "value": 1234_5678 }),
        json!({ "geheim": "geheim" }),
        json!("geheim"),
    ] {
        let (status, code, message) = refused(house.client.put::<_, SecretInfo>(path, &body).await);
        assert_eq!((status, &*code), (400, "invalid"));
        assert!(!message.contains("geheim") && !message.contains("1234"), "{message}");
    }
    // More than any request may have.
    let long = json!({ "value": "geheim".repeat(2 << 20) });
    assert_refused(house.client.put::<_, SecretInfo>(path, &long).await, 413, "too-large");
    assert_eq!(names(&house, "hello").await, [""; 0]);
    assert_eq!(std::fs::read_dir(house.dir.path().join("secrets")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_project_may_have_a_hundred_secrets_and_as_much_as_one_answer_holds() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    for number in 0..100 {
        set(&house, "hello", &format!("S{number}"), "x").await.unwrap();
    }
    assert_refused(set(&house, "hello", "ONE_MORE", "x").await, 409, "conflict");
    set(&house, "other", "ONE_MORE", "x").await.unwrap();
    // One that is there can still be changed, and room be made.
    let largest = "x".repeat(64 << 10);
    set(&house, "hello", "S7", &largest).await.unwrap();
    remove(&house, "hello", "S8").await.unwrap();
    set(&house, "hello", "ONE_MORE", "y").await.unwrap();
    // Characters that take six bytes each in JSON.
    let wide = "\u{1}".repeat(64 << 10);
    let mut taken = 0;
    while set(&house, "hello", &format!("S{}", 10 + taken), &wide).await.is_ok() {
        taken += 1;
    }
    assert!((15..40).contains(&taken), "{taken}");
    house.push("hello", "main", 1).await;
    let run = agent.run().await;
    let told = agent.secrets(&run).await.unwrap();
    assert_eq!((told.len(), &*told["ONE_MORE"], &told["S7"]), (100, "y", &largest));
    assert!(told["S10"] == wide && told[&format!("S{}", 10 + taken)] == "x");
}
