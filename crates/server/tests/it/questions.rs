//! What only a machine can tell, asked through the server.

use bytes::Bytes;
use futures_util::StreamExt as _;
use sealift_client::api::About;
use sealift_client::{Client, Error};
use sealift_model::MachineId;

use crate::agent::{Agent, machine};
use crate::house::{House, assert_refused, refused, soon};

const SLEEP: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

/// A machine that runs hello's only unit, `a.service`.
async fn with_unit(house: &House) -> Agent {
    let mut agent = Agent::begin(house, &machine(1, 1), 1).await;
    house.deploy(&mut agent, "hello", 1, &[("a.service", SLEEP)]).await;
    agent.hear_until("the unit", |agent| !agent.units.is_empty()).await;
    agent.report_all_up().await;
    agent
}

/// Answers, in pieces, and gives what the server says when the answer is over.
async fn answer(
    client: &Client,
    of: &MachineId,
    id: &str,
    failed: bool,
    pieces: &[&'static str],
) -> Result<(), Error> {
    let chunks: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
    let path = format!("/v1/machines/{of}/answers/{id}?failed={failed}");
    client.post_stream::<_, ()>(&path, futures_util::stream::iter(chunks)).await
}

#[tokio::test]
async fn a_journal_goes_from_the_machine_to_whoever_asks() {
    let house = House::open().await;
    let mut agent = with_unit(&house).await;
    let client = house.client.clone();
    let asking =
        tokio::spawn(async move { client.bytes("/v1/units/a.service/journal?lines=5&format=cat").await });
    agent.hear_until("the question", |agent| !agent.asked.is_empty()).await;
    let question = agent.asked.remove(0);
    assert_eq!(question.unit.as_str(), "a.service");
    assert_eq!(question.about, About::Journal { lines: 5, follow: false, format: "cat".into() });
    // Nobody else can answer it.
    let other = machine(2, 0).id;
    assert_refused(answer(&house.client, &other, &question.id, false, &["lies"]).await, 410, "fenced");
    let told = answer(&house.client, &agent.machine.id, &question.id, false, &["one\n", "two\n"]);
    let heard = async {
        let chunks = soon("an answer", asking).await.unwrap().unwrap();
        let chunks: Vec<_> = chunks.map(Result::unwrap).collect().await;
        assert_eq!(chunks.concat(), b"one\ntwo\n");
    };
    let (told, ()) = tokio::join!(told, heard);
    told.unwrap();
    // Nothing of it is left, and it is answered once.
    assert!(house.store.range("questions/").await.unwrap().entries.is_empty());
    let again = answer(&house.client, &agent.machine.id, &question.id, false, &["more"]).await;
    assert_refused(again, 410, "fenced");
}

#[tokio::test]
async fn a_machine_hears_when_nobody_listens_any_more() {
    let house = House::open().await;
    let mut agent = with_unit(&house).await;
    let client = house.client.clone();
    let asking =
        tokio::spawn(async move { client.open_bytes("/v1/units/a.service/journal?follow=true").await });
    agent.hear_until("the question", |agent| !agent.asked.is_empty()).await;
    let path = format!("/v1/machines/{}/answers/{}", agent.machine.id, agent.asked[0].id);
    // A journal that never ends.
    let endless = futures_util::stream::once(async { Ok(Bytes::from_static(b"line\n")) });
    let endless = Box::pin(endless.chain(futures_util::stream::pending()));
    let client = house.client.clone();
    let telling = tokio::spawn(async move { client.post_stream::<_, ()>(&path, endless).await });
    let mut chunks = soon("an answer", asking).await.unwrap().unwrap();
    assert_eq!(soon("a line", chunks.next()).await.unwrap().unwrap(), "line\n");
    drop(chunks);
    assert_refused(soon("the end", telling).await.unwrap(), 410, "fenced");
}

#[tokio::test]
async fn why_there_is_no_answer_is_told() {
    let house = House::open().await;
    let mut agent = with_unit(&house).await;
    let client = house.client.clone();
    let asking = tokio::spawn(async move { client.bytes("/v1/units/a.service/systemd").await.map(drop) });
    agent.hear_until("the question", |agent| !agent.asked.is_empty()).await;
    assert_eq!(agent.asked[0].about, About::Status);
    answer(&house.client, &agent.machine.id, &agent.asked[0].id, true, &["no systemctl here"]).await.unwrap();
    let (status, _, message) = refused(soon("a refusal", asking).await.unwrap());
    assert!(status == 409 && message.contains("no systemctl here"), "{message}");

    let nobody = "f".repeat(32);
    for (path, status) in [
        ("/v1/units/none.service/journal".to_owned(), 404),
        (format!("/v1/units/a.service/journal?machine={nobody}"), 404),
        ("/v1/units/a.service/journal?format=export".to_owned(), 400),
        ("/v1/units/a.service/journal?lines=1000000".to_owned(), 400),
    ] {
        let (found, _, message) = refused(house.client.bytes(&path).await.map(drop));
        assert_eq!(found, status, "{path}: {message}");
    }
}
