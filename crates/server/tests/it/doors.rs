//! Who comes in, and what is said to those who ask for what there is not.

use std::collections::BTreeSet;

use sealift_client::{Address, Client};
use tokio::net::{TcpStream, UnixStream};

use crate::agent::{Agent, machine};
use crate::house::{House, TOKEN, assert_refused};
use crate::wire;

/// Every route but `/healthz` and `/v1/join`, by the methods that it has.
const ROUTES: [(&str, &str); 70] = [
    ("GET", "/v1/status"),
    ("GET", "/v1/units"),
    ("POST", "/v1/units"),
    ("POST", "/v1/units/destroy"),
    ("POST", "/v1/units/watch"),
    ("GET", "/v1/rollouts"),
    ("POST", "/v1/rollouts/{unit}"),
    ("GET", "/v1/units/{unit}"),
    ("GET", "/v1/units/{unit}/explain"),
    ("GET", "/v1/units/{unit}/journal"),
    ("GET", "/v1/units/{unit}/systemd"),
    ("POST", "/v1/machines/{machine}/answers/{question}"),
    ("POST", "/v1/plan"),
    ("POST", "/v1/rebalance"),
    ("GET", "/v1/packages"),
    ("GET", "/v1/machines"),
    ("DELETE", "/v1/machines/{machine}"),
    ("POST", "/v1/machines/{machine}/certificate"),
    ("POST", "/v1/machines/{machine}/settings"),
    ("POST", "/v1/machines/{machine}/session"),
    ("POST", "/v1/machines/{machine}/keep-alive"),
    ("GET", "/v1/machines/{machine}/assignments"),
    ("POST", "/v1/machines/{machine}/statuses"),
    ("GET", "/v1/runs"),
    ("POST", "/v1/runs"),
    ("GET", "/v1/runs/{run}"),
    ("POST", "/v1/runs/{run}/abort"),
    ("GET", "/v1/runs/{run}/log"),
    ("POST", "/v1/runs/{run}/attempts/{attempt}/events"),
    ("POST", "/v1/runs/{run}/attempts/{attempt}/finish"),
    ("POST", "/v1/runs/{run}/attempts/{attempt}/secrets"),
    ("POST", "/v1/runs/{run}/attempts/{attempt}/approvals"),
    ("POST", "/v1/runs/{run}/answer"),
    ("GET", "/v1/approvals"),
    ("GET", "/v1/projects/{project}/secrets"),
    ("PUT", "/v1/projects/{project}/secrets/{name}"),
    ("DELETE", "/v1/projects/{project}/secrets/{name}"),
    ("GET", "/v1/apps"),
    ("GET", "/v1/apps/{project}"),
    ("GET", "/v1/apps/{project}/watch"),
    ("POST", "/v1/apps/{project}/rollback"),
    ("GET", "/v1/blobs/{digest}"),
    ("GET", "/v1/tokens"),
    ("POST", "/v1/tokens"),
    ("DELETE", "/v1/tokens/{token}"),
    ("GET", "/v1/join-tokens"),
    ("POST", "/v1/join-tokens"),
    ("DELETE", "/v1/join-tokens/{token}"),
    ("GET", "/v1/authority"),
    ("POST", "/v1/authority/{step}"),
    ("GET", "/v1/audit"),
    ("GET", "/fleet/v1/units"),
    ("GET", "/fleet/v1/units/{unit}"),
    ("PUT", "/fleet/v1/units/{unit}"),
    ("DELETE", "/fleet/v1/units/{unit}"),
    ("GET", "/fleet/v1/state"),
    ("GET", "/fleet/v1/state/{unit}"),
    ("GET", "/fleet/v1/machines"),
    ("PATCH", "/fleet/v1/machines"),
    ("GET", "/fleet/v1/discovery"),
    ("GET", "/v1-alpha/units"),
    ("GET", "/v1-alpha/units/{unit}"),
    ("PUT", "/v1-alpha/units/{unit}"),
    ("DELETE", "/v1-alpha/units/{unit}"),
    ("GET", "/v1-alpha/state"),
    ("GET", "/v1-alpha/state/{unit}"),
    ("GET", "/v1-alpha/machines"),
    ("PATCH", "/v1-alpha/machines"),
    ("GET", "/v1-alpha/discovery"),
    ("GET", "/metrics"),
];

fn filled_in(route: &str) -> String {
    route
        .replace("{machine}", &"0".repeat(32))
        .replace("{unit}", "web.service")
        .replace("{run}", "hello-1")
        .replace("{attempt}", "1")
        .replace("{project}", "hello")
        .replace("{name}", "TOKEN")
        .replace("{unit}", "web.service")
        .replace("{token}", &"0".repeat(16))
        .replace("{step}", "none")
        .replace("{question}", "5")
        .replace("{digest}", &"0".repeat(64))
}

/// All routes, among them the one whose body is not JSON.
fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.into_iter().chain([("POST", "/v1/blobs")])
}

/// What the router serves, by its source.
pub(crate) fn served(source: &'static str) -> BTreeSet<(&'static str, &'static str)> {
    let mut served = BTreeSet::new();
    for part in source.split(".route(\"").skip(1) {
        let (path, rest) = part.split_once('"').unwrap();
        let handlers = rest.split(".route(").next().unwrap().lines().next().unwrap();
        const CALLS: [(&str, &str); 5] =
            [("GET", "get("), ("POST", "post("), ("PUT", "put("), ("DELETE", "delete("), ("PATCH", "patch(")];
        for (method, call) in CALLS {
            if handlers.contains(call) {
                served.insert((method, path));
            }
        }
    }
    served
}

/// A route that comes to the server has to come to the list above, or nobody asks whether it is guarded.
#[test]
fn the_list_of_routes_is_whole() {
    let mut served = served(include_str!("../../src/api/mod.rs"));
    assert!(served.remove(&("GET", "/healthz")) && served.remove(&("POST", "/v1/join")));
    assert_eq!(served, routes().collect());
}

#[tokio::test]
async fn over_tcp_every_route_asks_for_the_token() {
    let house = House::open().await;
    house.push("hello", "main", 1).await;
    let before = house.everything().await;
    let almost = format!("Bearer {}", &TOKEN[1..]);
    let longer = format!("Bearer {TOKEN}x");
    let basic = format!("Basic {TOKEN}");
    let json = ("content-type", "application/json");
    for (method, route) in routes() {
        let path = filled_in(route);
        for given in
            [None, Some(""), Some("Bearer "), Some(&*almost), Some(&*longer), Some(TOKEN), Some(&*basic)]
        {
            let mut headers = vec![json];
            headers.extend(given.map(|given| ("authorization", given)));
            let stream = TcpStream::connect(house.tcp).await.unwrap();
            let answer = wire::ask(stream, method, &path, &headers, "{}").await;
            assert_eq!(
                (answer.status, &*answer.code()),
                (401, "unauthorized"),
                "{method} {path} with {given:?}"
            );
        }
    }
    assert!(before == house.everything().await, "something was changed");
    let stream = TcpStream::connect(house.tcp).await.unwrap();
    let health = wire::ask(stream, "GET", "/healthz", &[], "").await;
    assert_eq!((health.status, &*health.body), (200, "ok\n"));
}

#[tokio::test]
async fn the_right_token_opens_every_route() {
    let house = House::open().await;
    let bearer = format!("Bearer {TOKEN}");
    for (method, route) in routes() {
        let stream = TcpStream::connect(house.tcp).await.unwrap();
        let headers = [("content-type", "application/json"), ("authorization", &*bearer)];
        let answer = wire::ask(stream, method, &filled_in(route), &headers, "{}").await;
        assert_ne!(answer.status, 401, "{method} {route}");
        assert!(answer.status < 500, "{method} {route}: {answer:?}");
        if answer.status >= 400 {
            answer.code();
        }
    }
    let address = Address::Tcp { host: house.tcp.ip().to_string(), port: house.tcp.port() };
    let client = Client::new(address.clone(), Some(TOKEN.into()));
    let status: sealift_client::api::Status = client.get("/v1/status").await.unwrap();
    assert_eq!(status, house.status().await);
    // An agent works over it as over the socket.
    let mut over_tcp = house;
    over_tcp.client = client;
    let mut agent = Agent::begin(&over_tcp, &machine(1, 1), 1).await;
    over_tcp.deploy(&mut agent, "hello", 1, &[]).await;
    let stranger = Client::new(address, Some("guessed".into()));
    assert_refused(stranger.get::<serde_json::Value>("/v1/status").await, 401, "unauthorized");
}

#[tokio::test]
async fn refusals_are_json_whatever_is_wrong() {
    let house = House::open().await;
    house.push("hello", "main", 1).await;
    let json = [("content-type", "application/json")];
    let machine = format!("/v1/machines/{}", "0".repeat(32));
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(9 << 20));
    for (method, path, headers, body, status, code) in [
        ("GET", "/", &json[..], "", 404, "not-found"),
        ("GET", "/v1", &json, "", 404, "not-found"),
        ("GET", "/v1/nothing", &json, "", 404, "not-found"),
        ("POST", "/v2/runs", &json, "{}", 404, "not-found"),
        ("GET", "/v1/runs/hello-2", &json, "", 404, "not-found"),
        ("DELETE", "/v1/runs/hello-1", &json, "", 405, "method-not-allowed"),
        ("PUT", "/v1/runs", &json, "{}", 405, "method-not-allowed"),
        ("GET", "/v1/blobs", &json, "", 405, "method-not-allowed"),
        ("POST", "/v1/status", &json, "{}", 405, "method-not-allowed"),
        ("GET", "/v1/runs/hello", &json, "", 400, "invalid"),
        ("GET", "/v1/runs/hello-1/log?follow=perhaps", &json, "", 400, "invalid"),
        ("GET", "/v1/runs?limit=many", &json, "", 400, "invalid"),
        ("GET", "/v1/runs?project=Hello", &json, "", 400, "invalid"),
        ("GET", "/v1/machines/zz/assignments?session=1", &json, "", 400, "invalid"),
        ("GET", &format!("{machine}/assignments"), &json, "", 400, "invalid"),
        ("POST", &format!("{machine}/keep-alive"), &json, "{\"session\":1}", 400, "invalid"),
        ("POST", "/v1/runs/hello-1/attempts/first/finish", &json, "{}", 400, "invalid"),
        ("POST", "/v1/runs", &json, "not json", 400, "invalid"),
        ("POST", "/v1/runs", &json, "{}", 400, "invalid"),
        ("POST", "/v1/runs", &[], "{}", 415, "invalid"),
        ("POST", "/v1/runs", &json, &huge, 413, "too-large"),
    ] {
        let stream = UnixStream::connect(house.socket()).await.unwrap();
        let answer = wire::ask(stream, method, path, headers, body).await;
        assert_eq!((answer.status, &*answer.code()), (status, code), "{method} {path}");
    }
    assert_eq!(house.runs().await.len(), 1);
}
