//! Queued runs go to machines that are there and have room, in the order in which they came.

use std::collections::BTreeMap;

use sealift_client::api::{KeepAlive, List, MachineStatus};
use sealift_model::{AttemptEnd, MachineId, Run, RunId, RunState};
use sealift_store::{Event, Revision};

use crate::agent::{Agent, machine, note};
use crate::house::{House, assert_refused};

#[tokio::test]
async fn runs_wait_for_a_machine_with_room_and_go_in_order() {
    let house = House::open().await;
    let mut waiting = Vec::new();
    for commit in 0..5 {
        // Projects whose names sort the other way round: the order is that of coming.
        waiting.push(house.push(["zebra", "hello", "ant"][usize::from(commit) % 3], "main", commit).await.id);
    }
    let status = house.status().await;
    assert_eq!((status.machines_present, status.runs_queued, status.runs_running), (0, 5, 0));

    let idle = Agent::begin(&house, &machine(1, 0), 1).await;
    let mut busy = Agent::begin(&house, &machine(2, 1), 1).await;
    for id in &waiting {
        let handed = busy.run().await;
        assert_eq!(handed.run.id, *id);
        assert_eq!((handed.attempt, handed.run.state), (1, RunState::Running));
        let attempts = house.run(id).await.attempts;
        assert_eq!(attempts.len(), 1);
        assert_eq!((&attempts[0].machine, &attempts[0].session), (&busy.machine.id, &busy.session));
        busy.pass(&handed, None, &[]).await.unwrap();
    }
    busy.hear_until("nothing is assigned", |agent| agent.runs.is_empty()).await;
    assert!(idle.runs.is_empty());
    let status = house.status().await;
    assert_eq!((status.machines_present, status.runs_queued, status.runs_running), (2, 0, 0));
}

/// Looks at every state that the store ever had.
async fn most_at_once(house: &House) -> BTreeMap<MachineId, usize> {
    let newest = house.store.revision().await.unwrap();
    let mut watch = house.store.watch("", Revision(0)).await.unwrap();
    let (mut runs, mut most) = (BTreeMap::<RunId, Run>::new(), BTreeMap::new());
    loop {
        let batch = watch.next().await.unwrap().unwrap();
        for event in &batch.events {
            let Event::Put(entry) = event else { continue };
            if entry.key.starts_with("runs/") {
                let run: Run = serde_json::from_slice(&entry.value).unwrap();
                runs.insert(run.id.clone(), run);
            }
        }
        let mut now = BTreeMap::<MachineId, usize>::new();
        for run in runs.values().filter(|run| run.state == RunState::Running) {
            *now.entry(run.attempt().unwrap().machine.clone()).or_default() += 1;
        }
        for (machine, count) in now {
            let most = most.entry(machine).or_default();
            *most = count.max(*most);
        }
        if batch.revision == newest {
            return most;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_are_respected_at_every_moment() {
    let house = House::open().await;
    let machines = [machine(1, 1), machine(2, 3)];
    let mut agents = Vec::new();
    for machine in &machines {
        agents.push(Agent::begin(&house, machine, 1).await);
    }
    for commit in 0..20 {
        house.push("hello", "main", commit).await;
    }
    // Each agent ends what it is handed until all twenty have ended.
    let (done, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let working: Vec<_> = agents
        .into_iter()
        .map(|mut agent| {
            let done = done.clone();
            tokio::spawn(async move {
                loop {
                    let handed = agent.run().await;
                    let run = agent.fail(&handed).await.unwrap();
                    assert_eq!(run.state, RunState::Failed);
                    done.send(run.id.number).unwrap();
                }
            })
        })
        .collect();
    let mut ended = Vec::new();
    while ended.len() < 20 {
        ended.push(crate::house::soon("the next end", heard.recv()).await.unwrap());
    }
    for task in working {
        task.abort();
    }
    ended.sort_unstable();
    assert_eq!(ended, (1..=20).collect::<Vec<u64>>(), "each run was carried out once");
    let most = most_at_once(&house).await;
    assert!((1..=1).contains(&most[&machines[0].id]), "{most:?}");
    assert!((1..=3).contains(&most[&machines[1].id]), "{most:?}");
}

#[tokio::test]
async fn all_slots_are_used() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 3), 1).await;
    for commit in 0..4 {
        house.push("hello", "main", commit).await;
    }
    let first = agent.run().await;
    agent.run().await;
    agent.run().await;
    assert_eq!(house.status().await.runs_running, 3);
    assert_eq!(house.status().await.runs_queued, 1);
    let machines: List<MachineStatus> = house.get("/v1/machines").await.unwrap();
    assert_eq!(machines.items[0].runs, 3);
    agent.fail(&first).await.unwrap();
    assert_eq!(agent.run().await.run.id.number, 4);
}

#[tokio::test]
async fn a_new_life_of_an_agent_loses_what_the_old_one_had_until_the_third_loss() {
    let house = House::open().await;
    let machine = machine(1, 1);
    let run = house.push("hello", "main", 1).await.id;
    let other = house.push("hello", "main", 2).await.id;
    let mut agent = Agent::begin(&house, &machine, 1).await;
    for attempt in 1..=3 {
        let handed = agent.run().await;
        assert_eq!((&handed.run.id, handed.attempt), (&run, attempt));
        agent.say(&handed, vec![note(0, "begun")]).await.unwrap();
        let mut next = Agent::begin(&house, &machine, u8::try_from(attempt).unwrap() + 1).await;
        std::mem::swap(&mut agent, &mut next);
        // The old life is told so in every way that it can ask.
        let mut old = next;
        old.hear_the_end().await;
        assert_refused(old.keep_alive().await, 410, "fenced");
        house
            .run_until(&run, "the loss", |run| {
                run.attempts.iter().filter(|attempt| attempt.end == Some(AttemptEnd::Lost)).count()
                    == usize::try_from(attempt).unwrap()
            })
            .await;
        assert_refused(old.say(&handed, vec![note(1, "still here")]).await, 410, "fenced");
        assert_refused(old.pass(&handed, None, &[]).await, 410, "fenced");
        assert_refused(old.report(Vec::new(), &[]).await, 410, "fenced");
    }
    let ended = house.run(&run).await;
    assert_eq!(ended.state, RunState::Failed);
    assert!(ended.ended_at.is_some());
    let message = ended.message.unwrap();
    assert!(message.contains("lost 3 times"), "{message}");
    assert!(ended.attempts.iter().all(|attempt| attempt.end == Some(AttemptEnd::Lost)));
    assert_eq!(house.ends_of(&run).await, [RunState::Failed]);
    // It holds up nobody behind it, and that one's losses are its own.
    assert_eq!(agent.run().await.run.id, other);
    assert_eq!(house.run(&other).await.attempts.len(), 1);
}

#[tokio::test]
async fn a_lost_run_goes_before_younger_ones() {
    let house = House::open().await;
    let machine = machine(1, 1);
    let mut agent = Agent::begin(&house, &machine, 1).await;
    let first = house.push("hello", "main", 1).await.id;
    assert_eq!(agent.run().await.run.id, first);
    house.push("hello", "main", 2).await;
    let mut agent = Agent::begin(&house, &machine, 2).await;
    let again = agent.run().await;
    assert_eq!((again.run.id, again.attempt), (first, 2));
}

#[tokio::test]
async fn a_machine_cannot_speak_for_another() {
    let house = House::open().await;
    let one = Agent::begin(&house, &machine(1, 1), 1).await;
    let two = machine(2, 1);
    let path = format!("/v1/machines/{}/session", two.id);
    let answer = house.post(&path, serde_json::json!({"machine": one.machine, "session": one.session})).await;
    assert_refused(answer, 400, "invalid");
    let path = format!("/v1/machines/{}/keep-alive", two.id);
    let body = KeepAlive { session: one.session.clone() };
    assert_refused(house.client.post::<_, ()>(&path, &body).await, 410, "fenced");
    assert_eq!(house.status().await.machines, 1);
}
