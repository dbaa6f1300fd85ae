//! The queue: who is next, who takes it, who is lost.

use sealift_model::{Answer, Approval, AttemptEnd, Run, RunState};
use sealift_planner::{Action, apply, plan};

use crate::world::{NOW, World, machine_id, run, session};

fn slots(slots: &[u32]) -> World {
    (1..).zip(slots).fold(World::default(), |world, (n, slots)| world.machine(n, *slots, &[]))
}

#[test]
fn hands_out_in_the_order_of_the_queue() {
    let world = slots(&[2, 1, 0]).run(run(1, 50, 0, None)).run(run(2, 10, 0, None));
    let world = world.run(run(3, 50, 0, None)).run(run(4, 60, 0, None));
    assert_eq!(world.plan(), ["dispatch 2.1 1/1", "dispatch 1.1 2/2", "dispatch 3.1 1/1"]);
    world.settled();
}

#[test]
fn hands_out_to_whoever_has_least_to_do() {
    let world =
        slots(&[3, 3, 3]).run(run(1, 0, 0, Some(1))).run(run(2, 0, 0, Some(1))).run(run(3, 0, 0, Some(2)));
    let world = (4..=9).fold(world, |world, number| world.run(run(number, number, 0, None)));
    assert_eq!(
        world.plan(),
        [
            "dispatch 4.1 3/3",
            "dispatch 5.1 2/2",
            "dispatch 6.1 3/3",
            "dispatch 7.1 1/1",
            "dispatch 8.1 2/2",
            "dispatch 9.1 3/3"
        ]
    );
    assert_eq!(slots(&[3]).away(1).run(run(1, 0, 0, None)).plan(), [""; 0]);
}

#[test]
fn an_ended_run_stays_ended() {
    for state in [RunState::Passed, RunState::Failed, RunState::Aborted] {
        let mut ended = run(1, 0, 0, None);
        ended.state = state;
        assert_eq!(slots(&[1]).run(ended).plan(), [""; 0], "{state:?}");
    }
}

#[test]
fn loses_attempts_of_agents_that_are_gone() {
    let away = slots(&[1, 1]).away(1).run(run(1, 0, 0, Some(1)));
    assert_eq!(away.plan(), ["lose 1.1: machine 00000001 is away", "dispatch 1.2 2/2"]);
    let mut anew = slots(&[1]).run(run(1, 0, 1, Some(1)));
    anew.0.machines.get_mut(&machine_id(1)).unwrap().1.as_mut().unwrap().session = session(7);
    assert_eq!(anew.plan(), ["lose 1.2: the agent of machine 00000001 was started anew", "dispatch 1.3 1/7"]);
    let anew = anew.settled();
    let run = anew.0.runs.values().next().unwrap();
    assert_eq!(run.state, RunState::Running);
    assert_eq!(
        run.attempts.iter().map(|one| one.end).collect::<Vec<_>>(),
        [Some(AttemptEnd::Lost), Some(AttemptEnd::Lost), None]
    );
}

#[test]
fn gives_up_what_is_lost_too_often() {
    let world = slots(&[1, 1]).away(1).run(run(1, 0, 2, Some(1)));
    assert_eq!(world.plan(), ["give up 1: lost 3 times, the last time because machine 00000001 is away"]);
    let world = world.settled();
    let run = world.0.runs.values().next().unwrap();
    assert_eq!((run.state, run.ended_at), (RunState::Failed, Some(NOW)));
    assert!(run.message.as_ref().unwrap().starts_with("lost 3 times"));
    assert_eq!(run.attempt().unwrap().end, Some(AttemptEnd::Lost));
}

/// A run that asked a person, and was told yes if it was `answered`.
fn asking(run: Run, node: &str, answered: bool) -> Run {
    let answer = Answer { approved: true, by: "ann".to_owned(), at: NOW, reason: None };
    let (node, question) = (node.to_owned(), "Ship it?".to_owned());
    let approval = Approval { node, question, since: NOW, answer: answered.then_some(answer) };
    Run { approvals: [run.approvals, vec![approval]].concat(), ..run }
}

#[test]
fn what_waits_for_a_person_takes_no_slot() {
    let waits = asking(run(1, 0, 0, Some(1)), "deploy", false);
    let world = slots(&[1]).run(waits).run(run(2, 10, 0, None)).run(run(3, 20, 0, None));
    assert_eq!(world.plan(), ["dispatch 2.1 1/1"]);
    world.settled();
    let goes_on = asking(run(1, 0, 0, Some(1)), "deploy", true);
    assert_eq!(slots(&[1]).run(goes_on).run(run(2, 10, 0, None)).plan(), [""; 0]);
}

#[test]
fn what_is_lost_while_it_waits_for_a_person_is_not_given_up() {
    let waits = |lost| asking(asking(run(1, 0, lost, Some(1)), "site", true), "deploy", false);
    let world = slots(&[0]).away(1).run(waits(2));
    assert_eq!(world.plan(), ["lose 1.3: machine 00000001 is away"]);
    let world = world.settled();
    let lost = world.0.runs.values().next().unwrap();
    assert_eq!((lost.state, lost.attempts[2].waited), (RunState::Queued, true));
    // What was answered holds, the rest is asked again.
    let nodes: Vec<_> = lost.approvals.iter().map(|approval| &*approval.node).collect();
    assert_eq!(nodes, ["site"]);
    // There is an end to that as well.
    let mut often = waits(30);
    for attempt in &mut often.attempts[..30] {
        attempt.waited = true;
    }
    let world = slots(&[0]).away(1).run(often);
    assert_eq!(world.plan(), ["give up 1: lost 31 times, the last time because machine 00000001 is away"]);
    assert_eq!(world.settled().0.runs.values().next().unwrap().approvals.len(), 1);
}

#[test]
fn late_actions_change_nothing() {
    let world = slots(&[1, 1]).away(1).run(run(1, 0, 0, Some(1)));
    let id = run(1, 0, 0, None).id;
    let dispatch =
        |attempt| Action::Dispatch { run: id.clone(), attempt, machine: machine_id(2), session: session(2) };
    let lose = |attempt| Action::Lose { run: id.clone(), attempt, reason: String::new() };
    let give_up = Action::GiveUp { run: id.clone(), reason: String::new() };
    let mut snapshot = world.0;
    let refused = |snapshot: &mut _, action: &Action| {
        let before = Clone::clone(snapshot);
        assert!(!apply(snapshot, action, NOW), "{action:?}");
        assert_eq!(before, *snapshot);
    };
    refused(&mut snapshot, &dispatch(2));
    refused(&mut snapshot, &lose(2));
    assert!(apply(&mut snapshot, &lose(1), NOW));
    refused(&mut snapshot, &lose(1));
    refused(&mut snapshot, &give_up);
    refused(&mut snapshot, &dispatch(1));
    refused(&mut snapshot, &dispatch(3));
    assert!(apply(&mut snapshot, &dispatch(2), NOW));
    refused(&mut snapshot, &dispatch(2));
    assert!(apply(&mut snapshot, &give_up, NOW));
    refused(&mut snapshot, &dispatch(3));
    assert!(plan(&snapshot).actions.is_empty());
}
