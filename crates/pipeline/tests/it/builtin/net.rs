//! Steps that speak to a service of the world: real tools against `fixtures/peer.py`, which stands for the service and
//! looks, while it is asked, whether a secret stands in the arguments of any process.

use serde_json::Value;

use super::{DEBIAN, SHELLS, code, debian, job, stand_in};
use crate::host::{Job, Ran};

const SECRETS: [&str; 2] = ["s3cr3t-t0ken", "p4ss\"w0rd"];

/// A job whose first step starts the peer; its address is in `$PEER`.
fn with_peer(shell: &str, steps: &str) -> Job {
    let start = "mkfifo /tmp/ready\npython3 /pipeline/source/peer.py /tmp/ready $WERCKER_OUTPUT_DIR/requests 2>$WERCKER_OUTPUT_DIR/errors &\nread -r port safe </tmp/ready\nexport PEER=http://127.0.0.1:$port SAFE=https://localhost:$safe\nrm /tmp/ready";
    // Nothing that a step wrote down is there after it.
    let look = "ls -A /tmp ~/.kube 2>/dev/null | grep -v -e ^bin$ -e ^calls$ -e ^$ -e : || echo clean\ngrep -rlF \"$TOKEN\" /tmp /pipeline/steps /pipeline/report /pipeline/cache ~ || echo clean";
    let mut job = job(DEBIAN, shell, &format!("{}{steps}{}", code("peer", start), code("look", look)));
    let fixtures = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    for file in ["peer.py", "tls/server.pem", "tls/server.key", "tls/ca.pem"] {
        let name = file.rsplit('/').next().unwrap();
        std::fs::copy(fixtures.join(file), job.dir.path().join("project").join(name)).unwrap();
    }
    job.spec.hidden_env = vec![
        ("TOKEN".into(), SECRETS[0].into()),
        ("PASSWORD".into(), SECRETS[1].into()),
        ("SECRETS".into(), SECRETS.join(" ")),
    ];
    job
}

/// What the peer was asked, after it was made sure that nothing leaked and nothing is left.
fn asked(ran: &Ran) -> Vec<Value> {
    let last = ran.all_passed().started() - 1;
    assert_eq!(ran.output(last), "clean\nclean\n");
    for step in 0..last {
        for secret in SECRETS {
            assert!(!ran.output(step).contains(secret), "step {step} prints a secret: {}", ran.output(step));
        }
    }
    requests(ran, "output")
}

fn requests(ran: &Ran, below: &str) -> Vec<Value> {
    let file = ran.dir.path().join("work/pipeline").join(below).join("requests");
    let text = std::fs::read_to_string(file).unwrap();
    let requests: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for request in &requests {
        assert_eq!(request["leaks"], Value::Array(Vec::new()), "a secret is in the arguments of a process");
    }
    requests
}

fn body(request: &Value) -> Value {
    serde_json::from_str(request["body"].as_str().unwrap())
        .unwrap_or_else(|error| panic!("{error}: {request}"))
}

#[tokio::test]
async fn slack_notifier() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        for tool in ["curl", "wget"] {
            let lay = if tool == "wget" { "rm /usr/bin/curl" } else { "true" };
            let steps = format!(
                "{}- slack-notifier:\n    url: $PEER/slack/$TOKEN?x=\"y\n    channel: builds\n    username: the \"bot\"\n    icon_url: http://h/i.png\n- slack-notifier:\n    url: $PEER/slack\n    channel: \"@ada\"\n    branch: other\n- slack-notifier:\n    url: $PEER/slack\n    notify_on: failed\n- slack-notifier:\n    url: $PEER/slack\n    notify_on: passed\n    branch: main\n",
                code("lay", lay)
            );
            let ran = with_peer(shell, &steps).run(&engine).await;
            let asked = asked(&ran);
            assert_eq!(asked.len(), 2, "{shell} {tool}");
            assert_eq!(asked[0]["headers"]["content-type"], "application/json");
            assert!(asked[0]["path"].as_str().unwrap().starts_with("/slack/s3cr3t-t0ken?x="));
            let text = "build of hello (main abc) has passed, started by tester";
            let want = serde_json::json!({
                "channel": "#builds", "username": "the \"bot\"", "icon_url": "http://h/i.png",
                "attachments": [{"fallback": text, "text": text, "color": "good"}],
            });
            assert_eq!(body(&asked[0]), want, "{shell} {tool}");
            assert_eq!(body(&asked[1]).get("channel"), None);
        }
        let ran =
            with_peer(shell, "- slack-notifier:\n    url: $PEER/slack/refuse/$TOKEN\n").run(&engine).await;
        let refusal = ran.refusal(1);
        assert!(refusal.starts_with("slack-notifier: the webhook did not take the message"), "{refusal}");
        assert!(!ran.output(1).contains("s3cr3t"), "{}", ran.output(1));
    }
}

#[tokio::test]
async fn slack_notifier_tells_why_a_run_failed() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        // The peer must outlive the steps, which are ended before the after-steps begin.
        let message = "fail 'it \"broke\"\n\tat C:\\x → 漢'";
        let mut job = with_peer(shell, &code("build & test", message));
        let start = "mkfifo /tmp/ready2\npython3 peer.py /tmp/ready2 $WERCKER_OUTPUT_DIR/requests &\nread -r port safe </tmp/ready2\nexport PEER=http://127.0.0.1:$port";
        job.yaml.push_str("  after-steps:\n");
        job.yaml.push_str(&crate::host::script("peer", start));
        job.yaml.push_str("    - slack-notifier:\n        url: $PEER/slack\n        notify_on: failed\n");
        let ran = job.run(&engine).await;
        assert!(!ran.outcome().passed);
        let asked = requests(&ran, "output");
        let attachment = &body(&asked[0])["attachments"][0];
        let text = "build of hello (main abc) has failed, started by tester: step build & test: it \"broke\"\n\tat C:\\x → 漢";
        assert_eq!(
            (attachment["text"].as_str(), attachment["color"].as_str()),
            (Some(text), Some("danger")),
            "{shell}"
        );
    }
}

#[tokio::test]
async fn github_create_release_and_upload_asset() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        let steps = format!(
            "{}- github-create-release:\n    token: $TOKEN\n    owner: me\n    repo: hello\n    tag: v1.0\n    title: The \"first\"\n    body: |\n      one \\ two\n      three → 漢\n    draft: true\n    export_id: MY_RELEASE\n    api-url: $PEER\n- github-upload-asset:\n    token: $TOKEN\n    owner: me\n    repo: hello\n    file: build.bin\n    filename: a b&c.bin\n    content-type: application/x-mine\n    api-url: $PEER\n{}",
            code("build", "printf 'bytes' >build.bin"),
            code(
                "show",
                "echo $MY_RELEASE $WERCKER_GITHUB_CREATE_RELEASE_ID $WERCKER_GITHUB_UPLOAD_ASSET_ID"
            )
        );
        let ran = with_peer(shell, &steps).run(&engine).await;
        let asked = asked(&ran);
        assert_eq!(ran.output(4), "42 42 99\n");
        let places: Vec<_> =
            asked.iter().map(|r| format!("{} {}", r["method"], r["path"]).replace('"', "")).collect();
        assert_eq!(
            places,
            [
                "POST /repos/me/hello/releases",
                "POST /repos/me/hello/releases/42/assets?name=%61%20%62%26%63%2e%62%69%6e"
            ]
        );
        for request in &asked {
            assert_eq!(request["headers"]["authorization"], "token s3cr3t-t0ken");
        }
        let want = serde_json::json!({
            "tag_name": "v1.0", "name": "The \"first\"", "body": "one \\ two\nthree → 漢\n",
            "target_commitish": "abc", "draft": true,
        });
        assert_eq!(body(&asked[0]), want, "{shell}");
        assert_eq!(
            (asked[1]["body"].as_str(), asked[1]["headers"]["content-type"].as_str()),
            (Some("bytes"), Some("application/x-mine"))
        );

        for (properties, want) in [
            (
                "owner: refused\n    tag: v1\n    token: $TOKEN",
                "github-create-release: GitHub answered with status 422",
            ),
            (
                "owner: me\n    tag: v1\n    token: x\n    export_id: a;b",
                "github-create-release: a;b is no name of a variable",
            ),
            ("owner: me\n    token: $TOKEN", "github-create-release: the property \"tag\" is missing"),
            ("owner: me\n    tag: v1", "github-create-release: the property \"token\" is missing"),
        ] {
            let steps =
                format!("- github-create-release:\n    repo: r\n    api-url: $PEER\n    {properties}\n");
            let ran = with_peer(shell, &steps).run(&engine).await;
            assert_eq!(ran.refusal(1), want, "{shell}");
            assert!(!ran.output(1).contains("s3cr3t"));
        }
    }
}

#[tokio::test]
async fn kubectl() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        let steps = "- kubectl:\n    server: $SAFE\n    token: $TOKEN\n    certificate-authority: ca.pem\n    command: get --raw /version; echo 'and more'\n- kubectl:\n    server: $SAFE\n    username: me\n    password: $PASSWORD\n    insecure-skip-tls-verify: true\n    command: get --raw /version\n    debug: true\n- kubectl:\n    server: $SAFE\n    token: $TOKEN\n    command: create configmap greet --from-literal=\"who=it's me\" --dry-run=client\n    output: jsonpath={.data.who}{.metadata.namespace}\n    namespace: team\n";
        let ran = with_peer(shell, steps).run(&engine).await;
        let asked = asked(&ran);
        let version = "{\"major\": \"1\", \"minor\": \"20\"}";
        assert_eq!(ran.output(1), format!("{version}and more\n"), "{shell}");
        assert_eq!(ran.output(2), format!("kubectl get --raw /version\n{version}"), "{shell}");
        assert_eq!(ran.output(3), "it's meteam", "{shell}");
        let credentials: Vec<_> =
            asked.iter().map(|r| r["headers"]["authorization"].as_str().unwrap()).collect();
        // The second is "me", a colon and the password in base 64.
        assert_eq!(credentials, ["Bearer s3cr3t-t0ken", "Basic bWU6cDRzcyJ3MHJk"], "{shell}");
        for (properties, want) in [
            ("command: get --raw /version\n    server: $SAFE\n    token: x", "kubectl: ended with code 1"),
            ("command: version\n    token: x", "kubectl: name the server in the property \"server\""),
            ("server: $PEER", "kubectl: give what to do in the property \"command\""),
        ] {
            let ran = with_peer(shell, &format!("- kubectl:\n    {properties}\n")).run(&engine).await;
            assert_eq!(ran.refusal(1), want, "{shell}");
        }
    }
}

#[tokio::test]
async fn kubectl_with_a_stand_in_passes_every_flag_on() {
    let Some(engine) = debian().await else { return };
    let flags = [
        "all",
        "current-replicas",
        "deployment-label-key",
        "grace-period",
        "image",
        "interactive",
        "output",
        "overwrite",
        "patch",
        "pod",
        "poll-interval",
        "replicas",
        "resource-version",
        "rollback",
        "selector",
        "stdin",
        "template",
        "timeout",
        "tty",
        "update-period",
    ];
    for shell in SHELLS {
        let mut steps =
            code("lay", &format!("{}export PATH=/tmp/bin:$PATH", stand_in("kubectl", "cat \"$KUBECONFIG\"")));
        steps.push_str("- kubectl:\n    cmd: run x\n    file: a b.yml\n    server: https://h\n    certificate-authority: ca.pem\n    client-certificate: /c.pem\n    client-key: k.pem\n    raw-global-args: -v 3\n    flags: --context 'x y'\n    raw-args: -- sh\n");
        for flag in flags {
            steps.push_str(&format!("    {flag}: \"it's {flag}\"\n"));
        }
        steps.push_str(&code("show", "cat /tmp/calls"));
        let ran = job(DEBIAN, shell, &steps).run(&engine).await;
        let mut want: Vec<String> = flags.iter().map(|flag| format!(" <--{flag}=it's {flag}>")).collect();
        want.push(" <--filename=a b.yml>".into());
        want.sort();
        let said = ran.all_passed().output(2);
        let rest =
            said.strip_prefix("kubectl <-v> <3> <--context> <x y>").unwrap_or_else(|| panic!("{said}"));
        let rest = rest.strip_suffix(" <run> <x> <--> <sh>\n").unwrap_or_else(|| panic!("{said}"));
        let mut got: Vec<String> = rest.split(" <--").skip(1).map(|flag| format!(" <--{flag}")).collect();
        got.sort();
        assert_eq!(got, want, "{shell}");
        let config: Value = serde_json::from_str(&ran.output(1)).unwrap();
        assert_eq!(config["clusters"][0]["cluster"]["certificate-authority"], "/pipeline/source/ca.pem");
        assert_eq!(
            config["users"][0]["user"],
            serde_json::json!({"client-certificate": "/c.pem", "client-key": "/pipeline/source/k.pem"})
        );
    }
}

#[tokio::test]
async fn s3sync_by_s3cmd() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        let steps = format!(
            "{}- s3sync:\n    key_id: id\n    key_secret: $TOKEN\n    bucket_url: s3://bucket/site\n    source_dir: build\n    endpoint-url: $PEER\n    opts: --acl-private\n",
            code("build", "mkdir -p build/sub; echo one >build/index.html; echo two >build/sub/two.html")
        );
        let ran = with_peer(shell, &steps).run(&engine).await;
        let asked = asked(&ran);
        let changes: Vec<_> = asked.iter().filter(|r| r["method"] != "GET").collect();
        let mut puts: Vec<_> =
            changes.iter().filter(|r| r["method"] == "PUT").map(|r| r["path"].as_str().unwrap()).collect();
        puts.sort_unstable();
        assert_eq!(
            puts,
            ["/bucket/site/index.html", "/bucket/site/sub/two.html"],
            "{shell}: {}",
            ran.output(2)
        );
        let deleted =
            changes.iter().any(|r| r["body"].as_str().unwrap().contains("<Key>site/gone.html</Key>"));
        assert!(deleted, "{changes:?}");
        for request in &asked {
            assert!(
                request["headers"]["authorization"].as_str().unwrap().contains("Credential=id/"),
                "{request}"
            );
        }
        let acl = changes.iter().find(|r| r["method"] == "PUT").unwrap()["headers"]["x-amz-acl"].clone();
        assert!(acl.is_null() || acl == "private", "{acl}");

        for (properties, want) in [
            (
                "key-id: a\n    key-secret: b\n    bucket-url: bucket",
                "s3sync: bucket-url is s3://BUCKET or s3://BUCKET/PREFIX, not bucket",
            ),
            ("key-id: a\n    bucket-url: s3://b", "s3sync: the property \"key-secret\" is missing"),
            (
                "key-id: a\n    key-secret: b\n    bucket-url: s3://b\n    source-dir: none",
                "s3sync: there is no directory none",
            ),
        ] {
            let ran = job(DEBIAN, shell, &format!("- s3sync:\n    {properties}\n")).run(&engine).await;
            assert_eq!(ran.refusal(0), want, "{shell}");
        }
    }
}

#[tokio::test]
async fn s3sync_with_a_stand_in_for_aws() {
    let Some(engine) = debian().await else { return };
    for shell in SHELLS {
        let steps = format!(
            "{}- s3sync:\n    key-id: id\n    key-secret: $TOKEN\n    bucket-url: s3://bucket\n    delete-removed: false\n    opts: --acl-public --exclude *.md\n    region: eu-west-1\n{}",
            code(
                "lay",
                &format!(
                    "{}export PATH=/tmp/bin:$PATH",
                    stand_in("aws", "echo $AWS_ACCESS_KEY_ID $AWS_DEFAULT_REGION ${#AWS_SECRET_ACCESS_KEY}")
                )
            ),
            code("show", "cat /tmp/calls; rm -rf /tmp/bin /usr/bin/s3cmd; hash -r")
        );
        let mut job = job(
            DEBIAN,
            shell,
            &format!("{steps}- s3sync:\n    key-id: a\n    key-secret: b\n    bucket-url: s3://b\n"),
        );
        job.spec.hidden_env = vec![("TOKEN".into(), SECRETS[0].into())];
        let ran = job.run(&engine).await;
        assert_eq!(ran.output(1), "id eu-west-1 12\n", "{shell}: {:#?}", ran.events);
        assert_eq!(
            ran.output(2),
            "aws <s3> <sync> <./> <s3://bucket/> <--no-progress> <--acl> <public-read> <--exclude> <*.md>\n"
        );
        assert_eq!(
            ran.refusal(3),
            "s3sync: the box has neither aws nor s3cmd: install one of the packages awscli and s3cmd before"
        );
    }
}
