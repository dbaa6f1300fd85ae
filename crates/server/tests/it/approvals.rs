//! What runs ask people: who sees it, who answers, and what becomes of it when attempts and servers go.

use std::sync::Arc;
use std::time::Duration;

use sealift_client::Error;
use sealift_client::api::{GiveAnswer, List, WaitingApproval};
use sealift_model::{Answer, Approval, AttemptEnd, Run, RunAssignment, RunId, RunState};
use tokio::task::JoinHandle;

use crate::agent::{Agent, machine};
use crate::house::{House, TTL, assert_refused, refused, soon};
use crate::leases::Stopped;

impl House {
    async fn waiting(&self) -> Vec<(String, String)> {
        let list: List<WaitingApproval> = self.get("/v1/approvals").await.unwrap();
        list.items.into_iter().map(|item| (item.run.to_string(), item.node)).collect()
    }

    async fn answer(
        &self,
        id: &RunId,
        node: Option<&str>,
        approved: bool,
        by: &str,
    ) -> Result<Approval, Error> {
        let answer = GiveAnswer {
            node: node.map(str::to_owned),
            approved,
            reason: (!approved).then(|| "too early".into()),
            by: by.into(),
        };
        self.client.post(&format!("/v1/runs/{id}/answer"), &answer).await
    }

    /// A run that was handed out and waits for these nodes.
    async fn asked(&self, agent: &mut Agent, nodes: &[&str]) -> (RunAssignment, Vec<Asked>) {
        self.push("hello", "main", 1).await;
        let handed = agent.run().await;
        let mut asked = Vec::new();
        for (count, node) in (1..).zip(nodes) {
            asked.push(agent.ask(&handed, node));
            self.run_until(&handed.run.id, "the question", |run| run.approvals.len() == count).await;
        }
        (handed, asked)
    }
}

type Asked = JoinHandle<Result<Approval, Error>>;

async fn heard(asked: Asked) -> Result<Approval, Error> {
    soon("the agent to be told", asked).await.unwrap()
}

fn said(approval: &Approval) -> Option<(bool, &str)> {
    approval.answer.as_ref().map(|answer| (answer.approved, &*answer.by))
}

#[tokio::test]
async fn a_question_is_listed_answered_and_told_to_the_agent_that_waits() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let (handed, mut asked) = house.asked(&mut agent, &["deploy"]).await;
    let id = &handed.run.id;
    let list: List<WaitingApproval> = house.get("/v1/approvals?project=hello").await.unwrap();
    let [item] = &list.items[..] else { panic!("{list:?}") };
    assert_eq!(
        (item.run.to_string(), &*item.node, &*item.question),
        ("hello-1".into(), "deploy", "Run deploy?")
    );
    assert_eq!((item.project.as_str(), item.branch.as_str()), ("hello", "main"));
    assert_eq!(house.get::<List<WaitingApproval>>("/v1/approvals?project=other").await.unwrap().items, []);

    let approval = house.answer(id, None, true, "ann").await.unwrap();
    assert_eq!((&*approval.node, said(&approval)), ("deploy", Some((true, "ann"))));
    assert_eq!(heard(asked.remove(0)).await.unwrap(), approval);
    assert_eq!(house.waiting().await, []);
    assert_eq!(house.run(id).await.approvals, std::slice::from_ref(&approval));
    // It stays when the run has ended.
    let ended = agent.pass(&handed, None, &[]).await.unwrap();
    assert_eq!(ended.approvals, [approval]);
}

#[tokio::test]
async fn of_several_questions_one_is_named() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.push("hello", "main", 9).await;
    let handed = agent.run().await;
    let id = handed.run.id.clone();
    let nothing = refused(house.answer(&id, None, true, "ann").await);
    assert_eq!((nothing.0, &*nothing.2), (409, "hello-1 waits for no approval"));
    agent.fail(&handed).await.unwrap();
    let ended = refused(house.answer(&id, Some("deploy"), true, "ann").await);
    assert_eq!((ended.0, &*ended.2), (409, "hello-1 has ended, and waits for no approval"));
    assert_refused(house.answer(&"hello-7".parse().unwrap(), None, true, "ann").await, 404, "not-found");

    let (handed, mut asked) = house.asked(&mut agent, &["site (A=1)", "docs"]).await;
    let id = &handed.run.id;
    let (status, _, message) = refused(house.answer(id, None, true, "ann").await);
    assert!(status == 409 && message.ends_with("name one of: site (A=1), docs"), "{message}");
    let (status, _, message) = refused(house.answer(id, Some("site"), true, "ann").await);
    assert!(status == 409 && message.ends_with("what waits: site (A=1), docs"), "{message}");
    for by in [String::new(), "x".repeat(101)] {
        assert_refused(house.answer(id, Some("docs"), true, &by).await, 400, "invalid");
    }
    let rejected = house.answer(id, Some("docs"), false, "bob").await.unwrap();
    assert_eq!(rejected.answer.as_ref().unwrap().reason.as_deref(), Some("too early"));
    assert_eq!(heard(asked.remove(1)).await.unwrap(), rejected);
    // The other one is the only one now.
    assert_eq!(house.waiting().await, [("hello-2".to_owned(), "site (A=1)".to_owned())]);
    assert_eq!(house.answer(id, None, true, "ann").await.unwrap().node, "site (A=1)");
    assert_eq!(said(&heard(asked.remove(0)).await.unwrap()), Some((true, "ann")));
}

#[tokio::test]
async fn an_answer_is_taken_once_and_the_contrary_is_refused() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let (handed, _asked) = house.asked(&mut agent, &["deploy"]).await;
    let id = &handed.run.id;
    let first = house.answer(id, Some("deploy"), true, "ann").await.unwrap();
    let before = house.everything().await;
    for node in [Some("deploy"), None] {
        assert_eq!(house.answer(id, node, true, "bob").await.unwrap(), first);
        let (status, code, message) = refused(house.answer(id, node, false, "bob").await);
        assert_eq!((status, &*code), (409, "conflict"));
        assert!(message.contains("deploy of hello-1 was approved by ann"), "{message}");
    }
    assert!(before == house.everything().await, "something was changed");
}

#[tokio::test]
async fn a_lost_attempt_asks_again_but_not_what_was_answered() {
    let house = House::open().await;
    let host = machine(1, 1);
    let mut old = Agent::begin(&house, &host, 1).await;
    let (first, mut asked) = house.asked(&mut old, &["site", "docs"]).await;
    let id = &first.run.id;
    let answered = house.answer(id, Some("site"), true, "ann").await.unwrap();
    assert_eq!(heard(asked.remove(0)).await.unwrap(), answered);

    let mut new = Agent::begin(&house, &host, 2).await;
    assert_refused(heard(asked.remove(0)).await, 410, "fenced");
    let second = new.run().await;
    assert_eq!(house.waiting().await, []);
    let (_, _, message) = refused(house.answer(id, Some("docs"), true, "ann").await);
    assert!(message.starts_with("docs of hello-1 waits for no approval"), "{message}");
    // The old life asks in vain, and the new one only hears of what was answered.
    let before = house.everything().await;
    assert_refused(heard(old.ask(&first, "docs")).await, 410, "fenced");
    assert_refused(heard(new.ask(&first, "docs")).await, 410, "fenced");
    assert_eq!(heard(new.ask(&second, "site")).await.unwrap(), answered);
    assert!(before == house.everything().await, "something was changed");
    let asked = new.ask(&second, "docs");
    house.run_until(id, "the question again", |run| run.approvals.len() == 2).await;
    house.answer(id, None, false, "bob").await.unwrap();
    assert_eq!(said(&heard(asked).await.unwrap()), Some((false, "bob")));
}

#[tokio::test]
async fn a_run_that_ended_waits_no_longer() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let (handed, mut asked) = house.asked(&mut agent, &["deploy"]).await;
    let id = &handed.run.id;
    let run = house.abort(id).await.unwrap();
    assert_eq!((run.state, run.approvals), (RunState::Aborted, vec![]));
    assert_refused(heard(asked.remove(0)).await, 410, "fenced");
    assert_eq!(house.waiting().await, []);
    let (status, _, message) = refused(house.answer(id, None, true, "ann").await);
    assert_eq!((status, &*message), (409, "hello-1 has ended, and waits for no approval"));

    // As where another node failed first.
    let (handed, mut asked) = house.asked(&mut agent, &["deploy"]).await;
    let run = agent.fail(&handed).await.unwrap();
    assert_eq!((run.state, run.approvals), (RunState::Failed, vec![]));
    assert_refused(heard(asked.remove(0)).await, 410, "fenced");
    assert_eq!(house.waiting().await, []);
}

#[tokio::test]
async fn questions_and_answers_outlive_the_server() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let house = House::on_disk(dir.clone()).await;
    let host = machine(1, 1);
    let mut agent = Agent::begin(&house, &host, 1).await;
    let (handed, mut asked) = house.asked(&mut agent, &["site", "docs"]).await;
    let id = handed.run.id.clone();
    let answered = house.answer(&id, Some("site"), true, "ann").await.unwrap();
    house.close().await;
    // One that is told nothing, or hung up on, asks again.
    if let Ok(told) = heard(asked.remove(1)).await {
        assert_eq!(told.answer, None);
    }
    let house = House::on_disk(dir).await;
    assert_eq!(house.waiting().await, [("hello-1".to_owned(), "docs".to_owned())]);
    assert_eq!(house.run(&id).await.approvals[0], answered);
    let agent = Agent::begin(&house, &host, 1).await;
    let docs = agent.ask(&handed, "docs");
    house.answer(&id, None, true, "bob").await.unwrap();
    assert_eq!(said(&heard(docs).await.unwrap()), Some((true, "bob")));
    assert_eq!(heard(agent.ask(&handed, "site")).await.unwrap(), answered);
}

#[tokio::test]
async fn waiting_for_days_loses_nothing() {
    let _clock = Stopped::clock();
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let (handed, mut asked) = house.asked(&mut agent, &["deploy"]).await;
    // The server lets go before the client gives it up, and nothing has changed.
    tokio::time::advance(Duration::from_secs(21)).await;
    assert_eq!(heard(asked.remove(0)).await.unwrap().answer, None);
    for _ in 0..100 {
        tokio::time::advance(TTL * 9 / 10).await;
        agent.keep_alive().await.unwrap();
    }
    let asked = agent.ask(&handed, "deploy");
    house.answer(&handed.run.id, None, true, "ann").await.unwrap();
    assert_eq!(said(&heard(asked).await.unwrap()), Some((true, "ann")));
    let run = house.run(&handed.run.id).await;
    assert_eq!((run.state, run.attempts.len()), (RunState::Running, 1));
}

#[tokio::test]
async fn losses_while_it_waits_do_not_give_a_run_up() {
    let house = House::open().await;
    let host = machine(1, 1);
    let mut agent = Agent::begin(&house, &host, 1).await;
    let (mut handed, _) = house.asked(&mut agent, &["deploy"]).await;
    let id = handed.run.id.clone();
    for life in 2..=6 {
        agent = Agent::begin(&house, &host, life).await;
        handed = agent.run().await;
        agent.ask(&handed, "deploy");
        house
            .run_until(&id, "the question", |run| {
                run.attempts.len() == usize::from(life) && run.unanswered().count() == 1
            })
            .await;
    }
    house.answer(&id, None, true, "ann").await.unwrap();
    // Those that it is lost at work do count, as ever.
    for life in 7..=9 {
        agent = Agent::begin(&house, &host, life).await;
        if life < 9 {
            handed = agent.run().await;
        }
    }
    let run = house.run_until(&id, "the end", |run| run.state.is_end()).await;
    assert_eq!((run.state, run.attempts.len()), (RunState::Failed, 8));
    assert!(run.attempts.iter().all(|attempt| attempt.end == Some(AttemptEnd::Lost)));
    assert_eq!(handed.attempt, 8);
}

#[tokio::test]
async fn more_than_a_record_holds_is_refused() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.push("hello", "main", 1).await;
    let handed = agent.run().await;
    assert_refused(heard(agent.ask(&handed, &"x".repeat(40_000))).await, 400, "invalid");
    let asked = agent.ask(&handed, "deploy");
    house.run_until(&handed.run.id, "the question", |run| run.approvals.len() == 1).await;
    let long = GiveAnswer { node: None, approved: false, reason: Some("x".repeat(40_000)), by: "ann".into() };
    let path = format!("/v1/runs/{}/answer", handed.run.id);
    assert_refused(house.client.post::<_, Approval>(&path, &long).await, 400, "invalid");
    house.answer(&handed.run.id, None, false, "ann").await.unwrap();
    assert_eq!(said(&heard(asked).await.unwrap()), Some((false, "ann")));
}

/// Records and words without approvals are those of before.
#[test]
fn a_run_without_approvals_is_written_as_ever() {
    let text = r#"{"id":"hello-1","branch":"main","commit":"COMMIT","subject":"","source":"DIGEST","pipeline":"build","state":"running","attempts":[],"queued_at":1,"ended_at":null,"message":null,"steps":[],"package":null}"#;
    let text = text.replace("COMMIT", &"a".repeat(40)).replace("DIGEST", &"b".repeat(64));
    let mut run: Run = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&run).unwrap(), text);
    let answer = Some(Answer { approved: true, by: "ann".into(), at: run.queued_at, reason: None });
    run.approvals.push(Approval { node: "a".into(), question: "b".into(), since: run.queued_at, answer });
    assert_eq!(serde_json::from_str::<Run>(&serde_json::to_string(&run).unwrap()).unwrap(), run);
}
