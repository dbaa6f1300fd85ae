//! TLS as others see it: openssl as the peer, peers that never finish, servers that come back, roots that change.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use sealift_access::{KeyRequest, Pin, Trust, client_config, roots_from_pem};
use sealift_client::api::{AuthorityInfo, AuthorityStep, MachineCertificate, Renew, Status};
use sealift_client::{Client, Error, Tls};
use sealift_model::{Projects, Role};
use sealift_store::{MemoryStore, Store};
use serde_json::json;
use tokio::net::TcpStream;

use crate::agent::{Agent, machine, unit_on};
use crate::house::{House, assert_refused, soon};
use crate::rights::{Joined, authority, clock, join, join_token, one, servers, user};

/// Runs openssl; it judges at the time of the server's clock.
fn openssl(dir: &Path, args: &[&str], input: &str) -> (bool, String) {
    let mut child = Command::new("openssl")
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is needed for this test");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

async fn blocking_openssl(dir: &Path, args: Vec<String>, input: String) -> (bool, String) {
    let dir = dir.to_owned();
    let work = move || openssl(&dir, &args.iter().map(String::as_str).collect::<Vec<_>>(), &input);
    soon("openssl", tokio::task::spawn_blocking(work)).await.unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(ToOwned::to_owned).collect()
}

#[tokio::test]
async fn openssl_takes_our_certificates_and_we_take_openssl() {
    let house = House::with_tls().await;
    let joined = join(&house, &machine(1, 0)).await;
    let dir = tempfile::tempdir().unwrap();
    let info = authority(&house).await;
    for (name, text) in [
        ("roots.pem", &info.roots),
        ("machine.pem", &joined.certificate.certificate),
        ("machine.key", &joined.key),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let (good, text) = openssl(
        dir.path(),
        &[
            "verify",
            "-attime",
            "2000",
            "-x509_strict",
            "-CAfile",
            "roots.pem",
            "-purpose",
            "sslclient",
            "machine.pem",
        ],
        "",
    );
    assert!(good, "{text}");
    // It is no server's certificate, and not good before its time.
    for (time, purpose) in [("2000", "sslserver"), ("10", "sslclient")] {
        let args = ["verify", "-attime", time, "-CAfile", "roots.pem", "-purpose", purpose, "machine.pem"];
        assert!(!openssl(dir.path(), &args, "").0, "{time} {purpose}");
    }
    let (_, text) = openssl(dir.path(), &["x509", "-in", "machine.pem", "-noout", "-text"], "");
    assert!(text.contains(&format!("URI:sealift://machine/{}", joined.id)), "{text}");
    let (_, print) =
        openssl(dir.path(), &["x509", "-in", "roots.pem", "-noout", "-fingerprint", "-sha256"], "");
    assert_eq!(print.trim().rsplit('=').next().unwrap().replace(':', "").to_lowercase(), info.pin);
    let port = house.tls.unwrap().port();
    let connect = format!(
        "s_client -connect 127.0.0.1:{port} -servername localhost -verify_hostname localhost -attime 2000 -CAfile roots.pem \
         -verify_return_error -quiet -no_ign_eof"
    );
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    // Until the server hangs up.
    let quiet = connect.replace(" -no_ign_eof", " -ign_eof");
    let (_, text) = blocking_openssl(dir.path(), words(&quiet), request("/healthz")).await;
    assert!(text.contains("HTTP/1.1 200") && text.contains("ok\n"), "{text}");
    let (_, text) = blocking_openssl(dir.path(), words(&quiet), request("/v1/status")).await;
    assert!(text.contains("HTTP/1.1 401"), "{text}");
    let with = format!("{quiet} -cert machine.pem -key machine.key");
    let path = format!("/v1/machines/{}/assignments?session=x", joined.id);
    let (_, text) = blocking_openssl(dir.path(), words(&with), request(&path)).await;
    assert!(text.contains("HTTP/1.1 400"), "{text}");
    // Nothing older than TLS 1.3 is spoken.
    let (good, text) = blocking_openssl(dir.path(), words(&format!("{quiet} -tls1_2")), String::new()).await;
    assert!(!good && text.contains("alert protocol version"), "{text}");
}

#[tokio::test]
async fn peers_that_never_finish_hold_up_nobody() {
    let house = House::with_tls().await;
    let joined = join(&house, &machine(1, 0)).await;
    let mut slow = Vec::new();
    for _ in 0..400 {
        slow.push(TcpStream::connect(house.tls.unwrap()).await.unwrap());
    }
    Agent::begin(&House::asking(&house, joined.client(&house)), &machine(1, 0), 1).await;
    // And they are hung up on.
    let mut byte = [0];
    let read = soon("the end", tokio::io::AsyncReadExt::read(&mut slow[0], &mut byte)).await;
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_the_same_to_its_machines() {
    let (dir, store) = (Arc::new(tempfile::tempdir().unwrap()), Arc::new(MemoryStore::new()));
    let house = House::over_tls(dir.clone(), store.clone()).await;
    let own = machine(1, 0);
    let (joined, info) = (join(&house, &own).await, authority(&house).await);
    let token = user(&house, Role::Viewer, Projects::None).await.token;
    let left = join_token(&house, one()).await;
    let first = house.tls.unwrap().port();
    house.close().await;
    let house = House::over_tls(dir, store).await;
    assert_eq!(authority(&house).await, info);
    // One of these servers is gone; the client finds the other by itself.
    let both =
        format!("https://localhost:{first},{}", servers(&house)).parse::<sealift_client::Servers>().unwrap();
    let trust = Trust::Roots(roots_from_pem(&joined.certificate.roots).unwrap());
    let config = client_config(&trust, None, &clock(&house)).unwrap();
    let client = Client::with_tls(both, Some(token), Tls::new(config));
    client.get::<Status>("/v1/status").await.unwrap();
    assert_eq!(client.address().to_string(), servers(&house).to_string());
    Agent::begin(&House::asking(&house, joined.client(&house)), &own, 1).await;
    let tokens: serde_json::Value = house.get("/v1/join-tokens").await.unwrap();
    assert_eq!(tokens["items"][0]["id"], left.info.id);
}

#[tokio::test]
async fn requests_share_connections_and_survive_their_end() {
    let house = House::with_tls().await;
    let joined = join(&house, &machine(1, 0)).await;
    let token = user(&house, Role::Viewer, Projects::None).await.token;
    let trust = Trust::Roots(roots_from_pem(&joined.certificate.roots).unwrap());
    let config = client_config(&trust, None, &clock(&house)).unwrap();
    // A door between, that counts and can close.
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = door.local_addr().unwrap().port();
    let (server, count) = (house.tls.unwrap(), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let (counted, (close, _)) = (count.clone(), tokio::sync::broadcast::channel::<()>(1));
    let closing = close.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = door.accept().await {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut closed = closing.subscribe();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = closed.recv() => {}
                }
            });
        }
    });
    let address = format!("https://localhost:{port}").parse::<sealift_client::Servers>().unwrap();
    let client = Client::with_tls(address, Some(token), Tls::new(config.clone()));
    for _ in 0..20 {
        client.get::<Status>("/v1/status").await.unwrap();
    }
    let used = count.load(std::sync::atomic::Ordering::SeqCst);
    assert!(used <= 3, "{used} connections for 20 requests");
    close.send(()).unwrap();
    client.get::<Status>("/v1/status").await.unwrap();
}

#[tokio::test]
async fn an_agent_stays_connected_while_its_certificate_changes() {
    let house = House::with_tls().await;
    let own = machine(1, 0);
    let joined = join(&house, &own).await;
    let tls = Tls::new(joined.config(&house));
    let client = Client::with_tls(servers(&house), None, tls.clone());
    let mut agent = Agent::begin(&House::asking(&house, client.clone()), &own, 1).await;
    let renewed = renew(&house, &client, &joined).await;
    tls.replace(renewed.config(&house));
    // The stream that was opened with the old one goes on, and what is said comes with the new one.
    let unit = json!({ "name": "web.service", "text": unit_on(&own, "/bin/true"), "desired": "launched" });
    house.post("/v1/units", json!({ "units": [unit] })).await.unwrap();
    agent.hear_until("the unit", |agent| !agent.units.is_empty()).await;
    agent.keep_alive().await.unwrap();
}

async fn renew(house: &House, client: &Client, of: &Joined) -> Joined {
    let key = KeyRequest::generate().unwrap();
    let path = format!("/v1/machines/{}/certificate", of.id);
    let certificate: MachineCertificate = client.post(&path, &Renew { request: key.request }).await.unwrap();
    assert!(house.tls.is_some());
    Joined { id: of.id.clone(), key: key.key, certificate }
}

#[tokio::test]
async fn a_root_takes_the_place_of_another_while_machines_stay_in_contact() {
    let house = House::with_tls().await;
    let joined = join(&house, &machine(1, 0)).await;
    let absent = join(&house, &machine(2, 0)).await;
    let step = |step: &'static str, force: bool| {
        let client = house.client.clone();
        async move {
            client.post::<_, AuthorityInfo>(&format!("/v1/authority/{step}"), &AuthorityStep { force }).await
        }
    };
    let old: Pin = authority(&house).await.pin.parse().unwrap();
    assert_refused(step("activate", false).await, 409, "conflict");
    let prepared = step("prepare", false).await.unwrap();
    assert_eq!((prepared.change.as_str(), prepared.pins.len(), prepared.unaware.len()), ("prepared", 2, 2));
    // Nobody is cut off by an oversight.
    assert_refused(step("activate", false).await, 400, "invalid");
    let renewed = renew(&house, &joined.client(&house), &joined).await;
    assert_eq!(authority(&house).await.unaware, std::slice::from_ref(&absent.id));
    let active = step("activate", true).await.unwrap();
    let new: Pin = active.pin.parse().unwrap();
    assert_ne!(new, old);
    // The server shows a certificate of the new root from now on.
    let pinned = Trust::Pin(new.clone());
    soon("the new certificate", async {
        loop {
            let config = client_config(&pinned, None, &clock(&house)).unwrap();
            let client = Client::with_tls(servers(&house), None, Tls::new(config));
            match client.get::<Status>("/v1/status").await {
                Err(Error::Refused { status: 401, .. }) => return,
                Err(Error::Untrusted { .. }) => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    // Who knew of it is in contact, and who did not is not.
    let last = renew(&house, &renewed.client(&house), &renewed).await;
    let path = format!("/v1/machines/{}/certificate", absent.id);
    let asked = Renew { request: KeyRequest::generate().unwrap().request };
    assert!(matches!(
        absent.client(&house).post::<_, MachineCertificate>(&path, &asked).await,
        Err(Error::Untrusted { .. })
    ));
    let done = step("retire", true).await.unwrap();
    assert_eq!((done.change.as_str(), done.pins), ("no", vec![new.to_string()]));
    // What the old root signed is over once the server shows so; what the new one signed is not.
    soon("the end of the old root", async {
        while renewed
            .client(&house)
            .get::<Status>("/v1/status")
            .await
            .as_ref()
            .err()
            .and_then(Error::code)
            .is_some()
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    renew(&house, &last.client(&house), &last).await;
}

#[tokio::test]
async fn servers_that_begin_at_once_agree_on_one_authority() {
    let store = Arc::new(MemoryStore::new());
    let house = || House::over_tls(Arc::new(tempfile::tempdir().unwrap()), store.clone() as Arc<dyn Store>);
    let (first, second) = tokio::join!(house(), house());
    assert_eq!(authority(&first).await.pin, authority(&second).await.pin);
    // What one lets in, the other knows.
    let joined = join(&first, &machine(1, 0)).await;
    Agent::begin(&House::asking(&second, joined.client(&second)), &machine(1, 0), 1).await;
}
