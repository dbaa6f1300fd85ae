//! Who is let in: users, certificates, prefixes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use sealift_store::etcd::{EtcdOptions, EtcdStore, OpenError};
use sealift_store::{Error, Store, Txn};

use super::cluster::{Cluster, has_etcd};

/// Makes a key and a certificate in `dir`, signed by the CA there; the CA signs itself.
fn make_certificate(dir: &Path, name: &str, is_ca: bool) {
    let config = dir.join("openssl.cnf");
    std::fs::write(&config, "[req]\ndistinguished_name=dn\n[dn]\n").unwrap();
    let mut command = Command::new("openssl");
    command
        .current_dir(dir)
        .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config", "openssl.cnf"])
        .args([
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.pem"),
        ]);
    if is_ca {
        command.args(["-addext", "basicConstraints=critical,CA:TRUE"]);
    } else {
        command
            .args(["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "extendedKeyUsage=serverAuth,clientAuth"]);
    }
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

async fn refused(options: EtcdOptions) -> Error {
    match EtcdStore::open(options.timeout(Duration::from_secs(6))).await {
        Err(OpenError::Unreachable { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

/// The words of the whole chain of causes.
fn words(error: &Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words += &format!(": {cause}");
        source = cause.source();
    }
    words
}

fn is_denied(error: &Error) -> bool {
    matches!(error, Error::Storage { cause, .. } if cause.kind() == std::io::ErrorKind::PermissionDenied)
}

#[tokio::test]
async fn certificates_are_asked_for_and_checked() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start_with(1, "https", |dir| {
        make_certificate(dir, "ca", true);
        make_certificate(dir, "server", false);
        make_certificate(dir, "client", false);
        let file = |name: &str| dir.join(name).display().to_string();
        let option = |option: &str, name: &str| format!("{option}={}", file(name));
        vec![
            option("--cert-file", "server.pem"),
            option("--key-file", "server.key"),
            option("--trusted-ca-file", "ca.pem"),
            "--client-cert-auth".to_owned(),
        ]
    });
    let read = |name: &str| std::fs::read(cluster.dir().join(name)).unwrap();
    let with_ca = || cluster.options().ca(read("ca.pem"));
    let store = cluster.open_with(with_ca().identity(read("client.pem"), read("client.key"))).await;
    let mut watch = store.watch("", store.revision().await.unwrap()).await.unwrap();
    let put = store.commit(Txn::new().put("a", "1")).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, put);

    // Without a client's certificate; with etcd's signed by somebody unknown to us; with one of another CA.
    let strangers = tempfile::tempdir().unwrap();
    make_certificate(strangers.path(), "ca", true);
    make_certificate(strangers.path(), "client", false);
    let strange = |name: &str| std::fs::read(strangers.path().join(name)).unwrap();
    let (none, no_ca, other_ca, other_identity) = tokio::join!(
        refused(with_ca()),
        refused(cluster.options().identity(read("client.pem"), read("client.key"))),
        refused(cluster.options().ca(strange("ca.pem"))),
        refused(with_ca().identity(strange("client.pem"), strange("client.key"))),
    );
    for error in [&none, &no_ca, &other_ca, &other_identity] {
        assert!(error.retryable() && !error.is_unknown(), "{error:?}");
    }
    assert!(words(&no_ca).contains("UnknownIssuer"), "{}", words(&no_ca));
    assert!(words(&other_ca).contains("certificate"), "{}", words(&other_ca));
}

#[tokio::test]
async fn a_user_has_its_prefix_and_nothing_else() {
    if !has_etcd() {
        return;
    }
    let mut cluster = Cluster::start(1);
    cluster.open().await;
    for command in [
        &["user", "add", "root:rootsecret"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "sealift:secret"],
        &["role", "add", "sealift"],
        &["role", "grant-permission", "sealift", "--prefix=true", "readwrite", "/test/"],
        &["user", "grant-role", "sealift", "sealift"],
        &["auth", "enable"],
    ] {
        let said = cluster.etcdctl(&cluster.endpoints(), command);
        assert!(!said.is_empty(), "{command:?} failed");
    }

    let options = cluster.options().user("sealift", "secret");
    let store = cluster.open_with(options.clone()).await;
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("", start).await.unwrap();
    let lease = store.grant_lease(Duration::from_secs(60)).await.unwrap();
    let put = store.commit(Txn::new().if_absent("a").put_leased("a", "1", lease)).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    assert_eq!(store.range("").await.unwrap().entries.len(), 1);
    assert_eq!(watch.next().await.unwrap().unwrap().revision, put);

    for wrong in [
        cluster.options(),
        cluster.options().user("sealift", "wrong"),
        cluster.options().user("nobody", "secret"),
        EtcdOptions::new(cluster.endpoints(), "/other/").user("sealift", "secret"),
    ] {
        let error = refused(wrong.clone()).await;
        // Trying again would not help, so it is not done.
        assert!(is_denied(&error) && !error.retryable(), "{wrong:?}: {error:?}");
        assert!(!format!("{wrong:?}{error:?}").contains("secret"), "a password is shown");
    }

    // A member that starts again knows nobody's token.
    cluster.kill(0);
    cluster.spawn(0);
    cluster.open_with(options).await;
    let mut another = store.watch("", start).await.unwrap();
    let put = store.commit(Txn::new().put("b", "2")).await.unwrap();
    store.keep_alive(lease).await.unwrap();
    another.next().await.unwrap().unwrap();
    for watch in [&mut watch, &mut another] {
        assert_eq!(watch.next().await.unwrap().unwrap().revision, put);
    }
}

#[tokio::test]
async fn stores_do_not_see_each_other() {
    if !has_etcd() {
        return;
    }
    let cluster = Cluster::start(1);
    let a = cluster.open_with(EtcdOptions::new(cluster.endpoints(), "/a/")).await;
    let b = cluster.open_with(EtcdOptions::new(cluster.endpoints(), "/b/")).await;
    let start = a.revision().await.unwrap();
    let mut watch = a.watch("", start).await.unwrap();
    let before = b.commit(Txn::new().put("x", "of b").put("y", "")).await.unwrap();
    let put = a.commit(Txn::new().if_absent("x").put("x", "of a")).await.unwrap();
    b.commit(Txn::new().delete("x")).await.unwrap();
    b.barrier().await.unwrap();
    // What others did is no change, and still the revision is reached.
    let newest = a.revision().await.unwrap();
    let barrier = a.barrier().await.unwrap();
    assert!(before < put && put < newest && newest < barrier);
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events[0].key()), (put, "x"));
    let batch = watch.next().await.unwrap().unwrap();
    assert_eq!((batch.revision, batch.events.len()), (barrier, 0));
    let entries = a.range("").await.unwrap().entries;
    assert_eq!((entries.len(), &entries[0].value[..]), (1, &b"of a"[..]));
    assert_eq!(b.range("").await.unwrap().entries[0].key, "y");
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let url = "http://127.0.0.1:1";
    let options = |endpoint: &str, prefix: &str| EtcdOptions::new([endpoint], prefix);
    for (options, said) in [
        (EtcdOptions::new(Vec::<String>::new(), "/a/"), "no endpoint"),
        (options(url, "/a"), "prefix"),
        (options(url, ""), "prefix"),
        (options("127.0.0.1:1", "/a/"), "http"),
        (options("ftp://127.0.0.1:1", "/a/"), "URL"),
        (options(url, "/a/").ca("pem"), "https"),
        (options(url, "/a/").timeout(Duration::ZERO), "timeout"),
        (options("https://127.0.0.1:1", "/a/").ca("no pem").identity("no", "pem"), "https://127.0.0.1:1"),
    ] {
        let error = EtcdStore::open(options.clone()).await.unwrap_err();
        assert!(!matches!(error, OpenError::Unreachable { .. }), "{options:?}: {error:?}");
        assert!(error.to_string().contains(said), "{options:?}: {error}");
    }
    // Nobody is there.
    let error = refused(options(url, "/a/")).await;
    assert!(error.retryable() && words(&error).contains("refused"), "{}", words(&error));
}
