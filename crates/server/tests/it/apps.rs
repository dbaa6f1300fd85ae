//! Apps: what was released, how far the machines are with it, and going back.

use sealift_client::api::AppStatus;
use sealift_client::api::Rollback;
use sealift_model::{ActiveState, AppPhase};
use serde_json::json;

use crate::agent::{Agent, machine, unit_on};
use crate::gate::Gate;
use crate::house::{House, assert_refused, refused, soon};

async fn rollback(house: &House, to: Option<u64>) -> Result<AppStatus, sealift_client::Error> {
    house.client.post("/v1/apps/hello/rollback", &Rollback { to }).await
}

#[tokio::test]
async fn a_release_rolls_until_every_unit_runs_it() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let text = unit_on(&agent.machine, "hello");
    let units: [(&str, &str); 3] =
        [("a.service", &text), ("b.socket", &text), ("c@.service", "[Service]\nExecStart=c %i\n")];
    house.deploy(&mut agent, "hello", 1, &units).await;
    let app =
        house.app_until("hello", "both placed", |app| app.units.iter().all(|u| u.machine.is_some())).await;
    assert_eq!(app.phase, AppPhase::Rolling);
    let names: Vec<_> = app.units.iter().map(|unit| unit.unit.as_str()).collect();
    assert_eq!(names, ["a.service", "b.socket"], "a template runs nowhere");
    assert_eq!(app.units[0].machine.as_deref(), Some("host-1"));
    assert!(!app.units[0].current);

    agent.hear_until("the units", |agent| agent.units.len() == 2).await;
    let (a, b) = (|state| agent.status("a.service", state), |state| agent.status("b.socket", state));
    for (statuses, wanted) in [
        (vec![a(ActiveState::Active)], AppPhase::Rolling),
        (vec![b(ActiveState::Activating)], AppPhase::Rolling),
        (vec![b(ActiveState::Active)], AppPhase::Running),
        (vec![b(ActiveState::Failed)], AppPhase::Failed),
        (vec![b(ActiveState::Active)], AppPhase::Running),
        // A one-shot service that has done its work is fine; a socket that does not listen is not.
        (vec![a(ActiveState::Inactive)], AppPhase::Running),
        (vec![a(ActiveState::Active), b(ActiveState::Inactive)], AppPhase::Rolling),
        (vec![b(ActiveState::Active)], AppPhase::Running),
    ] {
        let what = format!("{wanted:?} after {statuses:?}");
        agent.report(statuses.clone(), &[]).await.unwrap();
        let app = house.app("hello").await;
        assert_eq!(app.phase, wanted, "{what}");
        for status in &statuses {
            let unit = app.units.iter().find(|unit| unit.unit == status.unit).unwrap();
            assert_eq!((unit.status.as_ref(), unit.current), (Some(status), true));
        }
    }
    let mut broken = a(ActiveState::Inactive);
    broken.error = Some("the package's signature does not fit".into());
    agent.report(vec![broken.clone()], &[]).await.unwrap();
    assert_eq!(house.app("hello").await.phase, AppPhase::Failed);
    assert_eq!(house.units().await["a.service"].statuses[agent.machine.id.as_str()], broken);
}

#[tokio::test]
async fn what_is_said_of_the_last_release_does_not_count_for_the_next() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let text = unit_on(&agent.machine, "hello");
    house.deploy(&mut agent, "hello", 1, &[("a.service", &text)]).await;
    agent.hear_until("the unit", |agent| agent.units.len() == 1).await;
    agent.report_all_up().await;
    assert_eq!(house.app("hello").await.phase, AppPhase::Running);
    let old = agent.status("a.service", ActiveState::Failed);
    // The very same unit file: the package is another.
    house.deploy(&mut agent, "hello", 2, &[("a.service", &text)]).await;
    let app = house.app("hello").await;
    assert_eq!((app.phase, app.app.current, app.units[0].current), (AppPhase::Rolling, 2, false));
    agent.report(vec![old], &[]).await.unwrap();
    assert_eq!(house.app("hello").await.phase, AppPhase::Rolling, "the old release failed, not this one");
    agent
        .hear_until("release 2", |agent| agent.status("a.service", ActiveState::Active).release == Some(2))
        .await;
    agent.report_all_up().await;
    let app = house.app("hello").await;
    assert_eq!((app.phase, app.units[0].status.as_ref().unwrap().release), (AppPhase::Running, Some(2)));
}

#[tokio::test]
async fn the_first_report_of_a_session_replaces_what_was_known() {
    let house = House::open().await;
    let machine = machine(1, 1);
    let mut agent = Agent::begin(&house, &machine, 1).await;
    let text = unit_on(&machine, "hello");
    house.deploy(&mut agent, "hello", 1, &[("a.service", &text), ("b.service", &text)]).await;
    agent.hear_until("the units", |agent| agent.units.len() == 2).await;
    agent.report_all_up().await;
    let agent = Agent::begin(&house, &machine, 2).await;
    let statuses = vec![agent.status("a.service", ActiveState::Active)];
    let session = agent.session.clone();
    let first = sealift_client::api::Statuses { session, statuses, gone: vec![], all: true };
    agent.report_as(&first).await.unwrap();
    let app = house.app("hello").await;
    let subs: Vec<_> = app.units.iter().map(|unit| unit.status.as_ref().unwrap().sub.as_str()).collect();
    assert_eq!(subs, ["running", "unheard"], "{app:#?}");
    assert_eq!(app.phase, AppPhase::Rolling);
    // What is known already is not written again.
    let before = house.store.revision().await.unwrap();
    agent.report_as(&first).await.unwrap();
    assert_eq!(house.store.revision().await.unwrap(), before);
}

#[tokio::test]
async fn a_global_unit_counts_on_every_machine_that_is_there() {
    let house = House::open().await;
    let mut one = Agent::begin(&house, &machine(1, 1), 1).await;
    let mut two = Agent::begin(&house, &machine(2, 0), 1).await;
    let text = "[Service]\nExecStart=x\n[X-Fleet]\nGlobal=true\n";
    house.deploy(&mut one, "hello", 1, &[("a.service", text)]).await;
    for agent in [&mut one, &mut two] {
        agent.hear_until("the unit", |agent| agent.units.len() == 1).await;
    }
    one.report_all_up().await;
    assert_eq!(house.app("hello").await.phase, AppPhase::Rolling, "only one of two runs it");
    two.report(vec![two.status("a.service", ActiveState::Failed)], &[]).await.unwrap();
    let app = house.app("hello").await;
    assert_eq!((app.phase, app.units[0].machine.as_deref()), (AppPhase::Failed, Some("host-2")));
    two.report_all_up().await;
    assert_eq!(house.app("hello").await.phase, AppPhase::Running);
    let elsewhere = "[Service]\nExecStart=x\n[X-Fleet]\nGlobal=true\nMachineMetadata=region=east\n";
    house.deploy(&mut one, "hello", 2, &[("a.service", elsewhere)]).await;
    let app = house.app_until("hello", "why it is nowhere", |app| app.units[0].problem.is_some()).await;
    assert_eq!((app.phase, app.units[0].machine.as_ref()), (AppPhase::Rolling, None));
}

#[tokio::test]
async fn going_back_runs_the_release_before_or_the_one_that_is_named() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    assert_refused(rollback(&house, None).await, 404, "not-found");
    let texts: Vec<_> = (1..=3).map(|n| unit_on(&agent.machine, &format!("hello-{n}"))).collect();
    house.deploy(&mut agent, "hello", 1, &[("a.service", &texts[0])]).await;
    let (status, code, message) = refused(rollback(&house, None).await);
    assert_eq!((status, &*code), (409, "conflict"));
    assert!(message.contains("first release"), "{message}");
    for commit in 2..=3 {
        let text = &texts[usize::from(commit) - 1];
        house.deploy(&mut agent, "hello", commit, &[("a.service", text)]).await;
    }
    let release = |agent: &Agent| agent.status("a.service", ActiveState::Active).release;
    agent.hear_until("release 3", |agent| !agent.units.is_empty() && release(agent) == Some(3)).await;
    let generation = agent.status("a.service", ActiveState::Active).generation;
    let before = house.everything().await;
    for (to, status, code, wanted) in [
        (Some(9), 404, "not-found", "1, 2, 3"),
        (Some(0), 404, "not-found", "release 0"),
        (Some(3), 409, "conflict", "already"),
    ] {
        let (found_status, found_code, message) = refused(rollback(&house, to).await);
        assert_eq!((found_status, &*found_code), (status, code), "{message}");
        assert!(message.contains(wanted), "{message}");
    }
    assert!(before == house.everything().await, "something was changed");

    for (to, wanted) in [(None, 2), (None, 1), (Some(3), 3), (Some(1), 1)] {
        let app = rollback(&house, to).await.unwrap();
        assert_eq!(
            (app.app.current, app.release.unwrap().number, app.phase),
            (wanted, wanted, AppPhase::Rolling)
        );
        agent.hear_until("the release", |agent| release(agent) == Some(wanted)).await;
        let status = agent.status("a.service", ActiveState::Active);
        assert!(status.generation > generation, "machines see it as newer than what they had");
        assert_eq!(agent.units[&status.unit].unit.text, texts[usize::try_from(wanted).unwrap() - 1]);
        agent.report_all_up().await;
        assert_eq!(house.app("hello").await.phase, AppPhase::Running);
    }
    // What comes next is a new release, whichever one runs.
    house.deploy(&mut agent, "hello", 4, &[("a.service", &texts[0])]).await;
    assert_eq!(house.app("hello").await.app.current, 4);
}

/// Two who go back at once meant the same release; nobody wanted to go back twice.
#[tokio::test]
async fn going_back_twice_at_once_is_going_back_once() {
    let gate = Gate::new();
    let house = House::over(gate.clone()).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    for commit in 1..=3 {
        house.deploy(&mut agent, "hello", commit, &[("a.service", "[Service]\nExecStart=a\n")]).await;
    }
    gate.shut("apps/", "hello");
    let asked: Vec<_> = (0..5)
        .map(|_| {
            let client = house.client.clone();
            tokio::spawn(async move {
                client.post::<_, AppStatus>("/v1/apps/hello/rollback", &Rollback::default()).await
            })
        })
        .collect();
    gate.so_many_wait(5).await;
    gate.open();
    let mut done = 0;
    for answer in asked {
        match answer.await.unwrap() {
            Ok(app) => {
                assert_eq!(app.app.current, 2);
                done += 1;
            }
            refusal => assert_refused(refusal, 409, "conflict"),
        }
    }
    assert_eq!((done, house.app("hello").await.app.current), (1, 2));
}

#[tokio::test]
async fn going_back_that_crosses_a_new_release_is_refused() {
    let gate = Gate::new();
    let house = House::over(gate.clone()).await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    for commit in 1..=2 {
        house.deploy(&mut agent, "hello", commit, &[("a.service", "[Service]\nExecStart=a\n")]).await;
    }
    gate.shut("apps/", "\"current\":1");
    let client = house.client.clone();
    let going = tokio::spawn(async move {
        client.post::<_, AppStatus>("/v1/apps/hello/rollback", &Rollback::default()).await
    });
    gate.somebody_waits().await;
    house.deploy(&mut agent, "hello", 3, &[("a.service", "[Service]\nExecStart=a\n")]).await;
    gate.open();
    assert_refused(going.await.unwrap(), 409, "conflict");
    assert_eq!(house.app("hello").await.app.current, 3);
}

#[tokio::test]
async fn a_name_that_another_app_has_is_not_taken_over() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let text = |program: &str| unit_on(&machine(1, 1), program);
    house.deploy(&mut agent, "first", 1, &[("web.service", &text("first"))]).await;
    house
        .deploy(&mut agent, "second", 2, &[("own.service", &text("own")), ("web.service", &text("second"))])
        .await;
    agent.hear_until("what second can have", |agent| agent.unit_names().contains(&"own.service")).await;
    let app = house.app_until("second", "the problem", |app| app.units[1].problem.is_some()).await;
    let problem = app.units[1].problem.as_ref().unwrap();
    assert!(problem.contains("web.service") && problem.contains("belongs to app first"), "{problem}");
    assert_eq!((app.phase, app.units[1].current), (AppPhase::Failed, false), "it will not pass by itself");
    let units = house.units().await;
    let owner = |name: &str| units[name].unit.app.as_ref().unwrap().0.to_string();
    assert_eq!((owner("web.service"), owner("own.service")), ("first".into(), "second".into()));
    assert_eq!(units["web.service"].problem, None, "its owner has no problem");
    assert_eq!(units["web.service"].unit.text, text("first"));
    agent.report_all_up().await;
    assert_eq!(house.app("first").await.phase, AppPhase::Running);
    assert_eq!(house.app("second").await.phase, AppPhase::Failed, "what runs there is not its own");

    // When the owner gives it up, it goes over.
    house.deploy(&mut agent, "first", 3, &[("other.service", &text("first"))]).await;
    let web = "web.service".parse::<sealift_model::UnitName>().unwrap();
    let has_web = |agent: &Agent, program: &str| {
        agent.units.get(&web).is_some_and(|unit| unit.unit.text == text(program))
    };
    agent.hear_until("web.service of second", |agent| has_web(agent, "second")).await;
    agent.report_all_up().await;
    let app = house.app_until("second", "it runs", |app| app.phase == AppPhase::Running).await;
    assert_eq!(app.units[1].problem, None);
}

#[tokio::test]
async fn why_a_unit_is_nowhere_is_told_as_it_becomes_known() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let nowhere = "[Service]\nExecStart=x\n[X-Fleet]\nMachineID=ffffffff\n";
    let contradiction = "[Service]\nExecStart=x\n[X-Fleet]\nMachineID=ffffffff\nGlobal=true\n";
    let units = [("a.service", nowhere), ("b.service", contradiction)];
    house.deploy(&mut agent, "hello", 1, &units).await;
    let app =
        house.app_until("hello", "both problems", |app| app.units.iter().all(|u| u.problem.is_some())).await;
    let problem = |at: usize| app.units[at].problem.as_ref().unwrap();
    assert!(problem(0).contains("MachineID=ffffffff is another machine"), "{}", problem(0));
    assert!(problem(1).contains("cannot be read"), "{}", problem(1));
    assert_eq!(house.units().await["a.service"].problem.as_ref(), Some(problem(0)));
    // It goes as it came.
    house.deploy(&mut agent, "hello", 2, &[("a.service", "[Service]\nExecStart=x\n")]).await;
    house.app_until("hello", "no problem", |app| app.units.iter().all(|u| u.problem.is_none())).await;
}

/// What the planner finds without writing anything wakes those who watch, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_new_reasons() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let nowhere = "[Service]\nExecStart=x\n[X-Fleet]\nMachineID=ffffffff\n";
    house.deploy(&mut agent, "hello", 1, &[("a.service", nowhere)]).await;
    let mut lines = house.client.lines::<AppStatus>("/v1/apps/hello/watch").await.unwrap();
    for number in 2..40 {
        let new = machine(number, 0);
        Agent::begin(&house, &new, 1).await;
        loop {
            let app = soon("the new machine's reason", lines.next()).await.unwrap().unwrap();
            if app.units[0].problem.as_ref().is_some_and(|problem| problem.contains(new.id.short())) {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_watch_begins_with_now_and_unknown_apps_are_named() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    let answer = house.client.lines::<AppStatus>("/v1/apps/hello/watch").await.map(drop);
    let (status, code, message) = refused(answer);
    assert_eq!((status, &*code), (404, "not-found"));
    assert!(message.contains("none yet"), "{message}");
    house.deploy(&mut agent, "hello", 1, &[("a.service", "[Service]\nExecStart=x\n")]).await;
    let (_, _, message) = refused(house.get::<AppStatus>("/v1/apps/helo").await);
    assert!(message.contains("hello"), "{message}");
    agent.hear_until("the unit", |agent| !agent.units.is_empty()).await;
    agent.report_all_up().await;
    let mut lines = house.client.lines::<AppStatus>("/v1/apps/hello/watch").await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap(), house.app("hello").await);
    let list: serde_json::Value = house.get("/v1/apps").await.unwrap();
    assert_eq!(list["items"][0], serde_json::to_value(house.app("hello").await).unwrap());
    assert_refused(house.post("/v1/apps/hello/rollback", json!({"to": "one"})).await, 400, "invalid");
}

#[tokio::test]
async fn drop_ins_come_with_the_units_of_a_release() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.push("hello", "main", 1).await;
    let run = agent.run().await;
    let artifact = house.upload("a package").await;
    let mut end = agent.end(true, Some(artifact), &[("a.service", "[Service]\nExecStart=a\n")]);
    for (unit, file) in
        [("b.service", "20-x.conf"), ("a.service", "10-sealift.conf"), ("a.service", "../x.conf")]
    {
        end.drop_ins = [(unit.parse().unwrap(), [(file.to_owned(), String::new())].into())].into();
        assert_refused(agent.finish(&run, &end).await, 400, "invalid");
    }
    let drop_in = ("20-x.conf".to_owned(), "[Service]\nLimitNOFILE=9\n".to_owned());
    end.drop_ins = [("a.service".parse().unwrap(), [drop_in].into())].into();
    agent.finish(&run, &end).await.unwrap();
    agent.hear_until("the unit", |agent| agent.unit_names() == ["a.service"]).await;
    let assigned = agent.units.values().next().unwrap();
    assert_eq!(assigned.unit.drop_ins["20-x.conf"], "[Service]\nLimitNOFILE=9\n");
}
