//! fleet's API as its document tells it, the inputs that broke fleet among it.

use sealift_model::ActiveState;
use sealift_store::Txn;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::agent::{Agent, machine};
use crate::house::House;
use crate::wire;

const SLEEP: &str = "[Service]\nExecStart=/bin/sleep 1d\n";
/// sha1sum of the text above.
const SLEEP_HASH: &str = "6cff4623f30236de664919cd42d8a00601a43de5";

fn options() -> Value {
    json!([{ "section": "Service", "name": "ExecStart", "value": "/bin/sleep 1d" }])
}

async fn ask(house: &House, method: &str, path: &str, body: &Value) -> (u16, Value) {
    let stream = UnixStream::connect(house.socket()).await.unwrap();
    let headers = [("content-type", "application/json")];
    let answer = wire::ask(stream, method, path, &headers, &body.to_string()).await;
    assert!(answer.head.to_ascii_lowercase().contains("\r\nserver: fleetd/"), "{answer:?}");
    let value =
        if answer.body.is_empty() { Value::Null } else { serde_json::from_str(&answer.body).unwrap() };
    (answer.status, value)
}

async fn get(house: &House, path: &str) -> Value {
    let (status, value) = ask(house, "GET", path, &Value::Null).await;
    assert_eq!(status, 200, "{path}: {value}");
    value
}

async fn put(house: &House, unit: &str, body: Value) -> (u16, Value) {
    ask(house, "PUT", &format!("/fleet/v1/units/{unit}"), &body).await
}

/// The number and the text of a refusal in fleet's form.
#[track_caller]
fn refusal((status, value): (u16, Value)) -> (u16, String) {
    assert_eq!(value["error"]["code"], status, "{value}");
    (status, value["error"]["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_unit_goes_its_way_and_every_entity_has_fleets_form() {
    let house = House::open().await;
    for path in ["units", "state", "machines"] {
        assert_eq!(get(&house, &format!("/fleet/v1/{path}?alt=json")).await, json!({}));
    }
    let mut own = machine(1, 0);
    own.address = Some("10.0.0.1".into());
    own.metadata.insert("zone".into(), "a".into());
    let mut agent = Agent::begin(&house, &own, 1).await;
    let id = own.id.to_string();
    assert_eq!(
        get(&house, "/v1-alpha/machines").await,
        json!({ "machines": [{ "id": id, "primaryIP": "10.0.0.1", "metadata": { "zone": "a" } }] })
    );
    let body = json!({ "name": "a.service", "desiredState": "inactive", "options": options() });
    assert_eq!(put(&house, "a.service", body).await.0, 201);
    let shown = get(&house, "/fleet/v1/units/a.service").await;
    assert_eq!(
        shown,
        json!({ "name": "a.service", "desiredState": "inactive", "currentState": "inactive", "options": options() })
    );
    let kept: sealift_client::api::UnitView = house.get("/v1/units/a.service").await.unwrap();
    assert_eq!(kept.unit.text, SLEEP, "the text that fleet's own serialiser made");

    assert_eq!(put(&house, "a.service", json!({ "desiredState": "launched" })).await.0, 204);
    agent.hear_until("the unit", |agent| agent.unit_names() == ["a.service"]).await;
    let shown = get(&house, "/fleet/v1/units/a.service").await;
    assert_eq!(
        (&shown["machineID"], &shown["currentState"]),
        (&json!(id), &json!("inactive")),
        "not a word yet"
    );
    let (status, value) = ask(&house, "GET", "/fleet/v1/state/a.service", &Value::Null).await;
    assert_eq!((status, &value["error"]["code"]), (404, &json!(404)), "fleet hung up here");
    agent.report_all_up().await;
    assert_eq!(get(&house, "/fleet/v1/units/a.service").await["currentState"], "launched");
    let state = json!({ "name": "a.service", "hash": SLEEP_HASH, "machineID": id, "systemdLoadState": "loaded",
        "systemdActiveState": "active", "systemdSubState": "running" });
    assert_eq!(get(&house, "/fleet/v1/state/a.service").await, state);
    for (filter, found) in [
        ("".to_owned(), true),
        (format!("?machineID={id}&unitName=a.service"), true),
        ("?machineID=x".to_owned(), false),
        ("?unitName=b.service".to_owned(), false),
    ] {
        let wanted = if found { json!({ "states": [state] }) } else { json!({}) };
        assert_eq!(get(&house, &format!("/fleet/v1/state{filter}")).await, wanted, "{filter}");
    }

    // The same again changes nothing; another text replaces it.
    let same = json!({ "desiredState": "launched", "options": options() });
    assert_eq!(put(&house, "a.service", same).await.0, 204);
    let other = json!({ "desiredState": "loaded", "options":
        [{ "section": "Service", "name": "ExecStart", "value": "/bin/sleep 2d" }] });
    assert_eq!(put(&house, "a.service", other).await.0, 201);
    let shown = get(&house, "/fleet/v1/units/a.service").await;
    assert_eq!(
        (&shown["desiredState"], &shown["currentState"]),
        (&json!("loaded"), &json!("launched")),
        "still"
    );
    agent
        .hear_until("the change", |agent| agent.units.values().any(|unit| unit.unit.text.contains("2d")))
        .await;
    agent.report(vec![agent.status("a.service", ActiveState::Inactive)], &[]).await.unwrap();
    assert_eq!(get(&house, "/fleet/v1/units/a.service").await["currentState"], "loaded");

    assert_eq!(ask(&house, "DELETE", "/fleet/v1/units/a.service", &Value::Null).await.0, 204);
    let gone = ask(&house, "DELETE", "/fleet/v1/units/a.service", &Value::Null).await;
    assert_eq!(refusal(gone), (404, "unit does not exist".into()));
    let discovery = get(&house, "/fleet/v1/discovery").await;
    assert_eq!(discovery["kind"], "discovery#restDescription");
}

#[tokio::test]
async fn what_fleet_refused_is_refused_in_its_words() {
    let house = House::open().await;
    put(&house, "a.service", json!({ "options": options() })).await;
    for (path, body, status, message) in [
        ("b.service", json!({}), 409, "unit does not exist and options field empty"),
        ("b.service", json!({ "options": [] }), 409, "unit does not exist and options field empty"),
        ("a.service", json!({}), 409, "must provide DesiredState to update existing unit"),
        (
            "a.service",
            json!({ "name": "b.service", "desiredState": "loaded" }),
            400,
            "differs from unit name",
        ),
        ("a.service", json!([1]), 400, "unable to decode body"),
        ("nonsense", json!({ "options": options() }), 400, "nonsense"),
        (
            "b.service",
            json!({ "options": [
            { "section": "X-Fleet", "name": "Global", "value": "true" },
            { "section": "X-Fleet", "name": "MachineOf", "value": "a.service" } ] }),
            400,
            "Global",
        ),
    ] {
        let (found, said) = refusal(put(&house, path, body.clone()).await);
        assert!(found == status && said.contains(message), "{path} {body}: {found} {said}");
    }
    let stream = UnixStream::connect(house.socket()).await.unwrap();
    let answer = wire::ask(stream, "PUT", "/fleet/v1/units/b.service", &[], "{}").await;
    assert_eq!(answer.status, 415);
    for (method, path, status) in [
        ("POST", "/fleet/v1/units", 405),
        ("PUT", "/fleet/v1/machines", 405),
        ("GET", "/fleet/v1/nothing", 404),
        ("GET", "/fleet/v1", 404),
        ("GET", "/fleet/v1/units/x", 404),
        ("GET", "/fleet/v1/units?nextPageToken=zzz", 400),
        ("GET", "/fleet/v1/state?nextPageToken=ZQABAA==", 400),
    ] {
        assert_eq!(refusal(ask(&house, method, path, &json!({})).await).0, status, "{method} {path}");
    }
    assert_eq!(get(&house, "/fleet/v1/units").await["units"].as_array().unwrap().len(), 1);
}

/// In fleet each of these stopped a listing, a unit or a whole host.
#[tokio::test]
async fn poison_is_refused_and_what_is_broken_holds_up_nothing() {
    let house = House::open().await;
    put(&house, "a.service", json!({ "options": options(), "desiredState": "loaded" })).await;
    let option = |section: &str, name: &str, value: &str| {
        json!({ "options":
        [{ "section": section, "name": name, "value": value }] })
    };
    for (unit, body) in [
        ("a.service", json!({ "desiredState": "bogus" })),
        ("b.service", json!({ "desiredState": "bogus", "options": options() })),
        ("t@.service", json!({ "desiredState": "launched", "options": options() })),
        ("b.service", option("Service", "ExecStart", "/bin/true\n[X-Fleet]\nGlobal=true")),
        ("b.service", option("Service]\nExecStart=/bin/true\n[X", "A", "b")),
        ("b.service", option("Service", "#ExecStart", "/bin/true")),
        ("b.service", option("", "ExecStart", "/bin/true")),
    ] {
        assert_eq!(refusal(put(&house, unit, body.clone()).await).0, 400, "{unit} {body}");
    }
    assert_eq!(get(&house, "/fleet/v1/units/a.service").await["desiredState"], "loaded");
    // Templates can be kept, and an instance of one is the client's to make.
    assert_eq!(put(&house, "t@.service", json!({ "options": options() })).await.0, 201);
    let (status, _) = put(&house, "t@1.service", json!({ "desiredState": "launched" })).await;
    assert_eq!(status, 409);

    // A record that is not understood is listed, and can be replaced and deleted.
    for value in ["{\"desired\":\"bogus\"}", "not json"] {
        let txn = Txn::new().put("units/broken.service".to_owned(), value.as_bytes().to_vec());
        house.store.commit(txn).await.unwrap();
        house.caught_up().await;
        let units = get(&house, "/fleet/v1/units").await;
        let names: Vec<_> = units["units"].as_array().unwrap().iter().map(|unit| &unit["name"]).collect();
        assert_eq!(names, ["a.service", "broken.service", "t@.service"]);
        assert_eq!(get(&house, "/fleet/v1/units/broken.service").await["name"], "broken.service");
        assert_eq!(ask(&house, "DELETE", "/fleet/v1/units/broken.service", &Value::Null).await.0, 204);
    }
    let txn = Txn::new().put("units/broken.service".to_owned(), b"[]".to_vec());
    house.store.commit(txn).await.unwrap();
    house.caught_up().await;
    assert_eq!(put(&house, "broken.service", json!({ "options": options() })).await.0, 201);
    assert!(get(&house, "/fleet/v1/units/broken.service").await["options"].is_array());
    // Other units of the same host go on.
    let mut agent = Agent::begin(&house, &machine(1, 0), 1).await;
    agent.hear_until("the good unit", |agent| agent.unit_names() == ["a.service"]).await;
}

#[tokio::test]
async fn a_text_with_comments_stays_while_its_options_do() {
    let house = House::open().await;
    let text = format!("# why\n{SLEEP}");
    let body = json!({ "units": [{ "name": "a.service", "text": text, "drop_ins": { "10-x.conf": "[Service]\nNice=1\n" } }] });
    house.post("/v1/units", body).await.unwrap();
    assert_eq!(get(&house, "/fleet/v1/units/a.service").await["options"], options());
    let same = json!({ "desiredState": "loaded", "options": options() });
    assert_eq!(put(&house, "a.service", same).await.0, 204);
    let kept = house.units().await.remove("a.service").unwrap().unit;
    assert_eq!((kept.text, kept.drop_ins.len()), (text, 1));
    let body = json!({ "desiredState": "loaded", "options":
        [{ "section": "Service", "name": "ExecStart", "value": "/bin/sleep 2d" }] });
    assert_eq!(put(&house, "a.service", body).await.0, 201);
    let kept = house.units().await.remove("a.service").unwrap().unit;
    assert_eq!((kept.text.as_str(), kept.drop_ins.len()), ("[Service]\nExecStart=/bin/sleep 2d\n", 1));
}

#[tokio::test]
async fn lists_come_in_pages_of_a_hundred() {
    let house = House::open().await;
    let units: Vec<_> =
        (0..250).map(|i| json!({ "name": format!("u{i:03}.service"), "text": SLEEP })).collect();
    house.post("/v1/units", json!({ "units": units })).await.unwrap();
    let (mut names, mut token) = (Vec::new(), String::new());
    for (page, count) in [(1, 100), (2, 100), (3, 50)] {
        let answer = get(&house, &format!("/fleet/v1/units?nextPageToken={token}")).await;
        let units = answer["units"].as_array().unwrap();
        assert_eq!(units.len(), count, "page {page}");
        names.extend(units.iter().map(|unit| unit["name"].as_str().unwrap().to_owned()));
        token = answer["nextPageToken"].as_str().unwrap_or_default().to_owned();
    }
    assert_eq!(token, "");
    assert_eq!(names, (0..250).map(|i| format!("u{i:03}.service")).collect::<Vec<_>>());
}

#[tokio::test]
async fn metadata_is_set_in_both_forms_and_taken_away() {
    let house = House::open().await;
    let mut own = machine(1, 0);
    own.metadata.insert("zone".into(), "a".into());
    Agent::begin(&house, &own, 1).await;
    let at = |key: &str| format!("/{}/metadata/{key}", own.id);
    let patch = json!([
        { "op": "add", "path": at("disk"), "value": { "value": "ssd" } },
        { "op": "replace", "path": at("rack"), "value": "7" },
        { "op": "remove", "path": at("zone") },
    ]);
    assert_eq!(ask(&house, "PATCH", "/fleet/v1/machines", &patch).await, (204, Value::Null));
    let metadata = json!({ "disk": "ssd", "rack": "7" });
    assert_eq!(get(&house, "/fleet/v1/machines").await["machines"][0]["metadata"], metadata);
    for (operation, status) in [
        (json!({ "op": "move", "path": at("x"), "value": "1" }), 400),
        (json!({ "op": "add", "path": at("x") }), 400),
        (json!({ "op": "add", "path": at("x"), "value": "" }), 400),
        (json!({ "op": "add", "path": at("x y"), "value": "1" }), 400),
        (json!({ "op": "add", "path": "/x", "value": "1" }), 400),
        (json!({ "op": "add", "path": format!("/{}/metadata/x", machine(9, 0).id), "value": "1" }), 404),
    ] {
        // With one that is right before it, which is not done either.
        let patch = json!([{ "op": "add", "path": at("rack"), "value": "8" }, operation]);
        let answer = ask(&house, "PATCH", "/fleet/v1/machines", &patch).await;
        assert_eq!(refusal(answer).0, status, "{operation}");
    }
    assert_eq!(get(&house, "/fleet/v1/machines").await["machines"][0]["metadata"], metadata);
}
