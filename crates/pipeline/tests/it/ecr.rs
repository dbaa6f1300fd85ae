//! Keys of Amazon's become a password that a real registry takes: asked of a stand-in that checks the signature.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sealift_model::StepOutcome;
use sealift_pipeline::EcrPasswords;
use sha2::{Digest, Sha256};

use crate::host::{Job, Ran, engine, forget, script};
use crate::internal::{job, passed, step};
use crate::registry::{PASSWORD, Registry, USER};

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const REGION: &str = "eu-west-1";
const ACCOUNT: &str = "123456789012";

fn tls(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(file)
}

/// What is answered to a question that is signed well.
#[derive(Clone, Copy)]
enum Answer {
    Busy,
    /// A token that ends in so many seconds.
    Token(u64),
}

struct Amazon {
    address: String,
    /// The bodies of all that was asked.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Amazon {
    /// Gives these answers in turn, the last one for ever.
    fn start(answers: &'static [Answer]) -> Amazon {
        let certificates = CertificateDer::pem_file_iter(tls("server.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(tls("server.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config =
            Arc::new(config.with_single_cert(certificates.map(Result::unwrap).collect(), key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = asked.clone();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let session = rustls::ServerConnection::new(config.clone()).unwrap();
                let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
                let (head, body) = request(&mut stream);
                let answer = answers.get(number).or(answers.last()).unwrap();
                let (status, text) = match (is_signed(&head, &body), answer) {
                    (false, _) => {
                        let kind = "InvalidSignatureException";
                        ("400 Bad Request", serde_json::json!({ "__type": kind, "message": "not this key" }))
                    }
                    (true, Answer::Busy) => ("503 Busy", serde_json::json!({})),
                    (true, Answer::Token(seconds)) => {
                        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
                        let token = STANDARD.encode(format!("{USER}:{PASSWORD}"));
                        let data = serde_json::json!({
                            "authorizationToken": token, "expiresAt": (now + seconds) as f64, "proxyEndpoint": "x",
                        });
                        ("200 OK", serde_json::json!({ "authorizationData": [data] }))
                    }
                };
                let text = text.to_string();
                list.lock().unwrap().push(body);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", text.len());
                stream.write_all(format!("{head}{text}").as_bytes()).unwrap();
                stream.conn.send_close_notify();
                stream.flush().ok();
            }
        });
        Amazon { address, asked }
    }

    fn passwords(&self) -> Arc<EcrPasswords> {
        Arc::new(EcrPasswords::from_stand_in(&self.address, &tls("ca.pem")))
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Head and body of a request.
fn request(stream: &mut impl Read) -> (String, String) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = header(&head, "content-length").parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
}

/// Whether the head is signed with the secret: worked out from what arrived, as the documentation of Signature Version 4
/// says.
fn is_signed(head: &str, body: &str) -> bool {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let hmac = |key: &[u8], text: &str| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(text.as_bytes());
        mac.finalize().into_bytes().to_vec()
    };
    let time = header(head, "x-amz-date");
    let scope = format!("{}/{REGION}/ecr/aws4_request", &time[..8]);
    let names = "content-type;host;x-amz-date;x-amz-target";
    let fields: String = names.split(';').map(|name| format!("{name}:{}\n", header(head, name))).collect();
    let canonical = format!("POST\n/\n\n{fields}\n{names}\n{}", hex(&Sha256::digest(body)));
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let day = hmac(format!("AWS4{SECRET}").as_bytes(), &time[..8]);
    let key = hmac(&hmac(&hmac(&day, REGION), "ecr"), "aws4_request");
    let signature = hex(&hmac(&key, &text));
    header(head, "x-amz-target") == "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
        && header(head, "authorization")
            == format!(
                "AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
            )
}

fn with_keys(mut job: Job, amazon: &Amazon, secret: &str) -> Job {
    job.spec.hidden_env = vec![("KEY".into(), KEY.into()), ("SECRET".into(), secret.into())];
    job.spec.ecr = amazon.passwords();
    job
}

fn push(repository: &str, tag: &str) -> String {
    step(
        "docker-push",
        &[
            ("repository", repository),
            ("tag", tag),
            ("aws-access-key", "$KEY"),
            ("aws-secret-key", "$SECRET"),
            ("aws-region", REGION),
            ("aws-registry-id", ACCOUNT),
            ("aws-strict-auth", "true"),
        ],
    )
}

fn tells_no_secret(ran: &Ran) {
    let told = format!("{:?} {:?}", ran.events, ran.result);
    for secret in [SECRET, PASSWORD, &STANDARD.encode(format!("{USER}:{PASSWORD}")), "wrong-geheim"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
}

#[tokio::test]
async fn keys_of_amazon_become_a_password() {
    let Some(engine) = engine().await else { return };
    let registry = Registry::closed();
    let repository = format!("{}/me/ecr", registry.host);
    // The first token ends too soon to be used twice.
    let amazon = Amazon::start(&[Answer::Busy, Answer::Token(300), Answer::Token(12 * 3600)]);
    let pushes = [push(&repository, "one"), push(&repository, "two"), push(&repository, "three")];
    let ran = with_keys(job(&pushes), &amazon, SECRET).run(&engine).await;
    passed(&ran);
    tells_no_secret(&ran);
    let body = format!(r#"{{"registryIds":["{ACCOUNT}"]}}"#);
    assert_eq!(amazon.asked(), vec![body; 3], "a failure, the token of the first push, that of the others");
    assert!(ran.output(0).contains("trying again"), "{}", ran.output(0));

    // A box and a service from there, with one question.
    let options = format!(
        "  aws-access-key: $KEY\n  aws-secret-key: $SECRET\n  aws-region: {REGION}\n  registry: https://{}\n",
        registry.host
    );
    let service = options.replace("  ", "    ");
    let yaml = format!(
        "box:\n  id: me/ecr\n  tag: one\n{options}services:\n  - id: me/ecr\n    tag: two\n    name: other\n    cmd: httpd -f -p 7000\n{service}build:\n  steps:\n{}",
        script("a", "echo ok")
    );
    let ran = with_keys(Job::new(yaml), &amazon, SECRET).run(&engine).await;
    passed(&ran);
    tells_no_secret(&ran);
    assert_eq!(amazon.asked()[3..], ["{}"]);
    for tag in ["one", "two"] {
        forget(&engine, &format!("{repository}:{tag}")).await;
    }

    let refused = with_keys(job(&[push(&repository, "four")]), &amazon, "wrong-geheim").run(&engine).await;
    let (outcome, _, message) = refused.finished(0);
    let message = message.unwrap();
    assert_eq!(outcome, StepOutcome::Failed);
    assert!(message.contains("status 400: InvalidSignatureException: not this key"), "{message}");
    tells_no_secret(&refused);
    assert_eq!(amazon.asked().len(), 5, "who said no is not asked again");
}
