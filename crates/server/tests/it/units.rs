//! Units that belong to no app: put, watched, explained, destroyed; and what operators set of machines.

use sealift_client::api::{
    Change, ChangeSettings, DestroyUnits, List, MachineStatus, MachineVerdict, PutUnit, PutUnits,
    Suitability, UnitChange, UnitEvent, UnitView, WatchUnits,
};
use sealift_client::{Error, Lines};
use sealift_model::{
    ActiveState, Availability, DesiredState, MachineSettings, Maintenance, Timestamp, UnitName,
};
use sealift_store::Txn;

use crate::agent::{Agent, machine};
use crate::house::{House, assert_refused, refused, soon};

const SLEEP: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

fn put(name: &str, text: Option<&str>, desired: Option<DesiredState>) -> PutUnit {
    PutUnit { text: text.map(str::to_owned), desired, ..PutUnit::named(name.parse().unwrap()) }
}

async fn put_all(house: &House, units: Vec<PutUnit>, replace: bool) -> Result<Vec<UnitChange>, Error> {
    let list: List<UnitChange> = house.client.post("/v1/units", &PutUnits { units, replace }).await?;
    Ok(list.items)
}

async fn launch(house: &House, name: &str, text: &str) -> UnitChange {
    put_all(house, vec![put(name, Some(text), Some(DesiredState::Launched))], false).await.unwrap().remove(0)
}

async fn destroy(house: &House, names: &[&str]) -> Result<Vec<UnitName>, Error> {
    let names = names.iter().map(|name| name.parse().unwrap()).collect();
    let list: List<UnitName> = house.client.post("/v1/units/destroy", &DestroyUnits { names }).await?;
    Ok(list.items)
}

async fn watch(house: &House, name: &str) -> Lines<UnitEvent> {
    let names = vec![name.parse().unwrap()];
    house.client.post_lines("/v1/units/watch", &WatchUnits { names }).await.unwrap()
}

/// Follows the stream until the unit is like that.
async fn until(lines: &mut Lines<UnitEvent>, what: &str, wanted: impl Fn(&UnitEvent) -> bool) -> UnitEvent {
    soon(what, async {
        loop {
            let event = lines.next().await.unwrap().expect("the watch ended");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_unit_is_submitted_started_and_destroyed_and_a_watch_sees_it_all() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 0), 1).await;
    let mut seen = watch(&house, "a.service").await;
    until(&mut seen, "nothing", |event| event.view.is_none()).await;

    let change = put_all(&house, vec![put("a.service", Some(SLEEP), None)], false).await.unwrap().remove(0);
    assert_eq!((change.change, change.differs), (Change::Created, false));
    let view = until(&mut seen, "a record", |event| event.view.is_some()).await.view.unwrap();
    assert_eq!((view.unit.desired, view.placement), (DesiredState::Inactive, None));
    assert_eq!(view.unit.text, "", "a watch leaves the text out");
    let whole: UnitView = house.get("/v1/units/a.service").await.unwrap();
    assert_eq!(whole.unit.text, SLEEP);

    // By its name alone: the text is known.
    let change =
        put_all(&house, vec![put("a.service", None, Some(DesiredState::Launched))], false).await.unwrap();
    assert_eq!(change[0].change, Change::Changed);
    assert!(change[0].generation > whole.unit.generation);
    agent.hear_until("the unit", |agent| agent.unit_names() == ["a.service"]).await;
    let view = until(&mut seen, "a target", |event| {
        event.view.as_ref().is_some_and(|view| !view.targets.is_empty())
    });
    assert_eq!(view.await.view.unwrap().targets, [agent.machine.id.clone()]);
    agent.report_all_up().await;
    let up = |event: &UnitEvent| {
        let statuses = event.view.iter().flat_map(|view| view.statuses.values());
        statuses.filter(|status| status.active == ActiveState::Active).count() == 1
    };
    until(&mut seen, "an active unit", up).await;

    assert_eq!(destroy(&house, &["a.service", "b.service"]).await.unwrap(), ["a.service".parse().unwrap()]);
    let leaving = until(&mut seen, "its end", |event| event.view.is_none()).await.leaving;
    assert_eq!(leaving, [agent.machine.id.clone()], "the machine has not confirmed");
    agent.hear_until("the end", |agent| agent.unit_names().is_empty()).await;
    agent.report(Vec::new(), &["a.service"]).await.unwrap();
    until(&mut seen, "the confirmation", |event| event.leaving.is_empty()).await;
    assert_eq!(destroy(&house, &["a.service"]).await.unwrap(), []);
    assert_refused(house.get::<UnitView>("/v1/units/a.service").await, 404, "not-found");
}

#[tokio::test]
async fn the_same_again_changes_nothing_and_another_text_wants_to_be_meant() {
    let house = House::open().await;
    let first = launch(&house, "a.service", SLEEP).await;
    let again = launch(&house, "a.service", SLEEP).await;
    assert_eq!((again.change, again.generation), (Change::Unchanged, first.generation));
    let other = "[Service]\nExecStart=/bin/sleep 2d\n";
    let kept = launch(&house, "a.service", other).await;
    assert_eq!((kept.change, kept.differs), (Change::Unchanged, true));
    let replaced = put_all(&house, vec![put("a.service", Some(other), None)], true).await.unwrap().remove(0);
    assert_eq!((replaced.change, replaced.differs), (Change::Changed, false));
    let view: UnitView = house.get("/v1/units/a.service").await.unwrap();
    assert_eq!((&*view.unit.text, view.unit.desired), (other, DesiredState::Launched));
    // A restart is a change of its own.
    let restart = PutUnit { restart: true, ..put("a.service", None, None) };
    assert_eq!(put_all(&house, vec![restart], false).await.unwrap()[0].change, Change::Changed);
    assert_eq!(house.get::<UnitView>("/v1/units/a.service").await.unwrap().unit.restarts, 1);
}

#[tokio::test]
async fn a_unit_that_comes_back_is_newer_than_what_was_destroyed() {
    let house = House::open().await;
    let first = launch(&house, "a.service", SLEEP).await;
    destroy(&house, &["a.service"]).await.unwrap();
    assert!(launch(&house, "a.service", SLEEP).await.generation > first.generation);
}

#[tokio::test]
async fn instances_take_their_templates_text() {
    let house = House::open().await;
    let text = "[Service]\nExecStart=/bin/sleep %i\n\n[X-Fleet]\nConflicts=%p@*\n";
    put_all(&house, vec![put("x@.service", Some(text), None)], false).await.unwrap();
    put_all(&house, vec![put("x@1.service", None, Some(DesiredState::Launched))], false).await.unwrap();
    let view: UnitView = house.get("/v1/units/x@1.service").await.unwrap();
    assert_eq!(view.unit.text, text);
    assert!(view.unit.requirements.conflicts.contains("x@*"), "{:?}", view.unit.requirements);
    // The template's later texts are not the instance's.
    put_all(&house, vec![put("x@.service", Some(SLEEP), None)], true).await.unwrap();
    assert_eq!(house.get::<UnitView>("/v1/units/x@1.service").await.unwrap().unit.text, text);
    let none = put_all(&house, vec![put("y@1.service", None, None)], false).await;
    let (status, _, message) = refused(none);
    assert!(status == 404 && message.contains("y@.service"), "{message}");
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_and_changes_nothing() {
    let house = House::open().await;
    let good = || put("good.service", Some(SLEEP), None);
    let contradicts = "[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\nMachineOf=a.service\n";
    let huge = format!("[Service]\nExecStart=/bin/true\n#{}\n", "x".repeat(120_000));
    let drop_in = PutUnit { drop_ins: [("../x.conf".into(), String::new())].into(), ..good() };
    let template = put("x@.service", Some(SLEEP), Some(DesiredState::Launched));
    for (bad, status, words) in [
        (put("bad.service", Some(contradicts), None), 400, "bad.service:5:1"),
        (put("bad.service", Some(&huge), None), 400, "larger than"),
        (put("none.service", None, None), 404, "no unit none.service"),
        (good(), 400, "named twice"),
        (PutUnit { name: "b.service".parse().unwrap(), ..drop_in }, 400, "drop-in"),
        (template, 400, "a template"),
    ] {
        let (found, _, message) = refused(put_all(&house, vec![good(), bad], false).await);
        assert!(found == status && message.contains(words), "{found} {message}");
    }
    assert!(house.units().await.is_empty());
}

#[tokio::test]
async fn units_of_an_app_are_not_changed_by_hand() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 1), 1).await;
    house.deploy(&mut agent, "hello", 1, &[("a.service", SLEEP)]).await;
    agent.hear_until("the unit", |agent| !agent.units.is_empty()).await;
    assert_refused(
        put_all(&house, vec![put("a.service", None, Some(DesiredState::Inactive))], false).await,
        409,
        "conflict",
    );
    assert_refused(destroy(&house, &["a.service"]).await, 409, "conflict");
}

#[tokio::test]
async fn a_record_that_is_not_understood_is_told_and_can_be_destroyed() {
    let house = House::open().await;
    house.store.commit(Txn::new().put("units/broken.service", "not json")).await.unwrap();
    house.caught_up().await;
    launch(&house, "fine.service", SLEEP).await;
    assert_eq!(house.status().await.unreadable, ["units/broken.service"]);
    assert_eq!(house.units().await.keys().collect::<Vec<_>>(), ["fine.service"]);
    assert_refused(house.get::<UnitView>("/v1/units/broken.service").await, 409, "conflict");
    assert_eq!(destroy(&house, &["broken.service"]).await.unwrap().len(), 1);
    assert!(house.status().await.unreadable.is_empty());
}

#[tokio::test]
async fn hundreds_of_units_are_one_request() {
    let house = House::open().await;
    let text = format!("{SLEEP}#{}\n", "x".repeat(9_000));
    let units = (0..500).map(|n| put(&format!("u{n}.service"), Some(&text), None)).collect();
    let changes = put_all(&house, units, false).await.unwrap();
    assert_eq!(changes.iter().filter(|change| change.change == Change::Created).count(), 500);
    let short: List<UnitView> = house.get("/v1/units?text=false").await.unwrap();
    assert!(short.items.len() == 500 && short.items.iter().all(|view| view.unit.text.is_empty()));
    let names: Vec<_> = (0..500).map(|n| format!("u{n}.service")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(destroy(&house, &names).await.unwrap().len(), 500);
    assert!(house.units().await.is_empty());
}

#[tokio::test]
async fn every_machine_says_what_it_is_to_a_unit() {
    let house = House::open().await;
    let one = Agent::begin(&house, &machine(1, 0), 1).await;
    let _two = Agent::begin(&house, &machine(2, 0), 1).await;
    let text = format!("{SLEEP}\n[X-Fleet]\nMachineID={}\n", one.machine.id);
    launch(&house, "a.service", &text).await;
    let mut seen = watch(&house, "a.service").await;
    until(&mut seen, "a placement", |event| event.view.as_ref().is_some_and(|view| view.placement.is_some()))
        .await;
    let verdicts: List<MachineVerdict> = house.get("/v1/units/a.service/explain").await.unwrap();
    let verdicts: Vec<_> = verdicts.items.iter().map(|one| (&*one.name, one.verdict, &*one.reason)).collect();
    assert_eq!(verdicts[0], ("host-1", Suitability::Here, "it is here"));
    assert!(verdicts[1].1 == Suitability::No && verdicts[1].2.contains("MachineID="), "{verdicts:?}");
}

async fn settings(house: &House, of: &Agent, change: ChangeSettings) -> Result<MachineSettings, Error> {
    house.client.post(&format!("/v1/machines/{}/settings", of.machine.id), &change).await
}

#[tokio::test]
async fn settings_of_a_machine_are_put_over_what_it_says() {
    let house = House::open().await;
    let mut machine = machine(1, 0);
    machine.metadata = [("disk", "hdd"), ("region", "eu")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let agent = Agent::begin(&house, &machine, 1).await;
    let set = |metadata: &[(&str, Option<&str>)]| ChangeSettings {
        metadata: metadata.iter().map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned))).collect(),
        ..ChangeSettings::default()
    };
    settings(&house, &agent, set(&[("disk", Some("ssd")), ("region", None)])).await.unwrap();
    let drained = ChangeSettings { availability: Some(Availability::Drained), ..ChangeSettings::default() };
    settings(&house, &agent, drained).await.unwrap();
    let list: List<MachineStatus> = house.get("/v1/machines").await.unwrap();
    let found = &list.items[0];
    assert_eq!(found.metadata(), [("disk".to_owned(), "ssd".to_owned())].into());
    assert_eq!(found.settings.availability, Availability::Drained, "what is not named stays");
    let unset = ChangeSettings { unset: ["disk".to_owned()].into(), ..ChangeSettings::default() };
    settings(&house, &agent, unset).await.unwrap();
    let list: List<MachineStatus> = house.get("/v1/machines").await.unwrap();
    assert_eq!(list.items[0].metadata(), [("disk".to_owned(), "hdd".to_owned())].into());

    // Maintenance that is over is forgotten; the test's clock begins at 1,000,000.
    let span = |from, until| Maintenance { from: Timestamp(from), until: Timestamp(until) };
    let planned = ChangeSettings {
        maintenance: Some(vec![span(0, 10), span(5_000_000, 6_000_000)]),
        ..ChangeSettings::default()
    };
    assert_eq!(settings(&house, &agent, planned).await.unwrap().maintenance, [span(5_000_000, 6_000_000)]);
    for bad in [
        ChangeSettings { maintenance: Some(vec![span(7_000_000, 6_000_000)]), ..ChangeSettings::default() },
        set(&[("", Some("x"))]),
        set(&[("a=b", Some("x"))]),
    ] {
        assert_refused(settings(&house, &agent, bad).await, 400, "invalid");
    }
    let nobody = format!("/v1/machines/{}/settings", "f".repeat(32));
    let answer: Result<MachineSettings, Error> = house.client.post(&nobody, &ChangeSettings::default()).await;
    assert_refused(answer, 404, "not-found");
}

/// What operators set of a machine stops and starts its global units, also where nothing else is on the machine.
#[tokio::test]
async fn global_units_go_by_drains_by_metadata_and_by_maintenance() {
    let house = House::open().await;
    let mut agent = Agent::begin(&house, &machine(1, 0), 1).await;
    launch(&house, "g.service", &format!("{SLEEP}\n[X-Fleet]\nGlobal=yes\n")).await;
    launch(&house, "s.service", &format!("{SLEEP}\n[X-Fleet]\nGlobal=yes\nMachineMetadata=disk=ssd\n")).await;
    let runs = |wanted: &'static [&'static str]| move |agent: &Agent| agent.unit_names() == wanted;
    agent.hear_until("the global unit", runs(&["g.service"])).await;
    let ssd = [("disk".to_owned(), Some("ssd".to_owned()))].into();
    settings(&house, &agent, ChangeSettings { metadata: ssd, ..ChangeSettings::default() }).await.unwrap();
    agent.hear_until("the one for such a disk", runs(&["g.service", "s.service"])).await;
    let to = |availability| ChangeSettings { availability: Some(availability), ..ChangeSettings::default() };
    settings(&house, &agent, to(Availability::Drained)).await.unwrap();
    agent.hear_until("their end", runs(&[])).await;
    settings(&house, &agent, to(Availability::Active)).await.unwrap();
    agent.hear_until("both again", runs(&["g.service", "s.service"])).await;
    agent.report_all_up().await;

    // The clock tells that maintenance begins, and nobody writes anything.
    let begins = Timestamp((house.clock)().0 + 1_000_000);
    let span = Maintenance { from: begins, until: Timestamp(begins.0 + 1_000_000) };
    let planned = ChangeSettings { maintenance: Some(vec![span]), ..ChangeSettings::default() };
    assert!(!settings(&house, &agent, planned).await.unwrap().in_maintenance);
    house.pass(1_001);
    // The controller waits for that moment by a timer, which does not know that the test's clock was turned; any change
    // has it look at the clock.
    launch(&house, "other.service", &format!("{SLEEP}\n[X-Fleet]\nMachineMetadata=region=moon\n")).await;
    agent.hear_until("their end", runs(&[])).await;
    let list: List<MachineStatus> = house.get("/v1/machines").await.unwrap();
    assert!(list.items[0].settings.in_maintenance);
    let written = house.store.revision().await.unwrap();
    house.caught_up().await;
    assert_eq!(house.store.revision().await.unwrap(), written, "once is enough");
    house.pass(1_000);
    destroy(&house, &["other.service"]).await.unwrap();
    agent.hear_until("both again", runs(&["g.service", "s.service"])).await;
    let list: List<MachineStatus> = house.get("/v1/machines").await.unwrap();
    assert_eq!(list.items[0].settings.maintenance, [], "what is over is forgotten");
    // One that begins now needs nobody to note it down.
    let now = (house.clock)();
    let span = Maintenance { from: now, until: Timestamp(now.0 + 1_000_000) };
    let planned = ChangeSettings { maintenance: Some(vec![span]), ..ChangeSettings::default() };
    assert!(settings(&house, &agent, planned).await.unwrap().in_maintenance);
    agent.hear_until("their end", runs(&[])).await;
}
