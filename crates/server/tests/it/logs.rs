//! Logs: each event once and in order, for everybody who reads, whenever he begins.

use sealift_client::Lines;
use sealift_client::api::LogEntry;
use sealift_model::{EventKind, RunEvent};

use crate::agent::{Agent, machine, note};
use crate::house::{House, assert_refused, read_log, refused, soon};

fn numbers(entries: &[LogEntry]) -> Vec<(u32, u64)> {
    entries.iter().map(|entry| (entry.attempt, entry.event.seq)).collect()
}

#[tokio::test]
async fn what_is_sent_again_is_kept_once_and_gaps_are_refused() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    agent.say(&handed, vec![note(0, "a"), note(1, "b")]).await.unwrap();
    agent.say(&handed, vec![note(0, "a"), note(1, "b")]).await.unwrap();
    agent.say(&handed, vec![note(1, "b"), note(2, "c")]).await.unwrap();
    let (status, code, message) = refused(agent.say(&handed, vec![note(4, "e")]).await);
    assert_eq!((status, &*code), (409, "gap"));
    assert!(message.contains('3'), "it says from where on: {message}");
    assert_refused(agent.say(&handed, vec![note(7, "h"), note(3, "d")]).await, 409, "gap");
    agent.say(&handed, vec![]).await.unwrap();
    assert_eq!(numbers(&house.log(&run, false).await), [(1, 0), (1, 1), (1, 2)]);
    agent.say(&handed, vec![note(3, "d"), note(4, "e")]).await.unwrap();
    agent.fail(&handed).await.unwrap();
    let log = house.log(&run, false).await;
    let events: Vec<RunEvent> = log.into_iter().map(|entry| entry.event).collect();
    assert_eq!(events, [note(0, "a"), note(1, "b"), note(2, "c"), note(3, "d"), note(4, "e")]);
}

/// What comes before a gap in one batch is taken once as well when the batch is sent again without the gap.
#[tokio::test]
async fn a_batch_with_a_gap_inside_does_no_harm() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    assert_refused(agent.say(&handed, vec![note(0, "a"), note(2, "c")]).await, 409, "gap");
    agent.say(&handed, vec![note(0, "a"), note(1, "b"), note(2, "c")]).await.unwrap();
    agent.fail(&handed).await.unwrap();
    assert_eq!(numbers(&house.log(&run, true).await), [(1, 0), (1, 1), (1, 2)]);
}

#[tokio::test]
async fn followers_hear_all_attempts_as_they_come_and_end_with_the_run() {
    let house = House::open().await;
    let machine = machine(1, 1);
    let run = house.push("hello", "main", 1).await.id;
    // They begin before anything is there, in the middle, and after the end.
    let follow = || tokio::spawn(read_log(house.client.clone(), run.clone(), true));
    let early: Vec<_> = (0..3).map(|_| follow()).collect();
    let mut live: Lines<LogEntry> =
        house.client.lines(&format!("/v1/runs/{run}/log?follow=true")).await.unwrap();

    let mut agent = Agent::begin(&house, &machine, 1).await;
    let first = agent.run().await;
    for seq in 0..3 {
        agent.say(&first, vec![note(seq, "first")]).await.unwrap();
        let entry = soon("the line that was just said", live.next()).await.unwrap().unwrap();
        assert_eq!((entry.attempt, entry.event), (1, note(seq, "first")));
    }
    let mut agent = Agent::begin(&house, &machine, 2).await;
    let second = agent.run().await;
    let middle: Vec<_> = (0..3).map(|_| follow()).collect();
    agent.say(&second, vec![note(0, "second")]).await.unwrap();
    let entry = soon("the second attempt's line", live.next()).await.unwrap().unwrap();
    assert_eq!((entry.attempt, entry.event), (2, note(0, "second")));
    agent.say(&second, vec![note(1, "last")]).await.unwrap();
    agent.fail(&second).await.unwrap();
    let entry = soon("the last line", live.next()).await.unwrap().unwrap();
    assert_eq!((entry.attempt, entry.event), (2, note(1, "last")));
    assert!(soon("the end", live.next()).await.unwrap().is_none());

    let wanted = [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1)];
    for reader in early.into_iter().chain(middle) {
        assert_eq!(numbers(&soon("a reader", reader).await.unwrap()), wanted);
    }
    assert_eq!(numbers(&house.log(&run, true).await), wanted);
    assert_eq!(numbers(&house.log(&run, false).await), wanted);
}

#[tokio::test]
async fn a_log_ends_with_a_run_that_was_aborted_without_a_word() {
    let house = House::open().await;
    let run = house.push("hello", "main", 1).await.id;
    let reader = tokio::spawn(read_log(house.client.clone(), run.clone(), true));
    house.abort(&run).await.unwrap();
    assert_eq!(soon("the reader", reader).await.unwrap(), []);
    let answer = house.client.lines::<LogEntry>("/v1/runs/hello-9/log").await;
    assert_refused(answer, 404, "not-found");
}

#[tokio::test]
async fn attempts_without_a_word_are_passed_over() {
    let house = House::open().await;
    let machine = machine(1, 1);
    let run = house.push("hello", "main", 1).await.id;
    let reader = tokio::spawn(read_log(house.client.clone(), run.clone(), true));
    Agent::begin(&house, &machine, 1).await.run().await;
    Agent::begin(&house, &machine, 2).await.run().await;
    let mut agent = Agent::begin(&house, &machine, 3).await;
    let third = agent.run().await;
    agent.say(&third, vec![note(0, "at last")]).await.unwrap();
    agent.fail(&third).await.unwrap();
    assert_eq!(numbers(&soon("the reader", reader).await.unwrap()), [(3, 0)]);
}

/// Longer than what the server reads of a file at once, line by line and in one line.
#[tokio::test]
async fn long_logs_and_long_lines_are_told_whole() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    let line = "Straße\u{1f600}\t\"quoted\"\n".repeat(100);
    for batch in 0..8 {
        let events = (0..100).map(|seq| note(batch * 100 + seq, &line)).collect();
        agent.say(&handed, events).await.unwrap();
    }
    let long = "long ".repeat(100_000);
    agent.say(&handed, vec![note(800, &long), note(801, "after")]).await.unwrap();
    let reader = tokio::spawn(read_log(house.client.clone(), run.clone(), true));
    agent.fail(&handed).await.unwrap();
    for log in [soon("the reader", reader).await.unwrap(), house.log(&run, false).await] {
        assert_eq!(log.len(), 802);
        for (entry, seq) in log.iter().zip(0..) {
            let text = if seq < 800 {
                &*line
            } else if seq == 800 {
                &*long
            } else {
                "after"
            };
            assert_eq!(entry.event.seq, seq);
            assert!(entry.event.kind == EventKind::Note { text: text.into() }, "line {seq} is another");
        }
    }
}

#[tokio::test]
async fn logs_are_read_on_after_a_restart() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let house = House::on_disk(dir.clone()).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let run = house.push("hello", "main", 1).await.id;
    let handed = agent.run().await;
    agent.say(&handed, vec![note(0, "before")]).await.unwrap();
    let path = format!("/v1/runs/{run}/log?follow=true");
    let mut reader: Lines<LogEntry> = house.client.lines(&path).await.unwrap();
    assert_eq!(soon("the first line", reader.next()).await.unwrap().unwrap().event, note(0, "before"));
    house.close().await;
    // A server that stops ends its streams in good order; the reader keeps what it has and asks again.
    assert!(soon("the end", reader.next()).await.unwrap().is_none());

    let house = House::on_disk(dir).await;
    // The session is as it was, and the agent goes on where it stood.
    agent.keep_alive().await.unwrap();
    agent.say(&handed, vec![note(0, "before"), note(1, "after")]).await.unwrap();
    agent.fail(&handed).await.unwrap();
    assert_eq!(numbers(&house.log(&run, true).await), [(1, 0), (1, 1)]);
}
