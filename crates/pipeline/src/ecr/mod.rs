//! Passwords for Amazon's registry (ECR), made of the keys of an account.
//!
//! Guarantees: what is signed goes to Amazon and nowhere else, over https; a password is asked for once, until shortly
//! before its end; the question and its answer are bounded; neither keys nor passwords are in a message or a `Debug`.
//!
//! It must not know what the registry is used for.

mod sign;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sealift_model::Timestamp;
use serde::Deserialize;
use tokio::sync::Mutex;

use self::sign::{Signer, Unsigned};
use crate::http::{self, Limits};

const LIMITS: Limits = Limits { whole: Duration::from_secs(30), redirects: 0 };
/// A password is some 2 KB; Amazon's answer holds one.
const LARGEST: u64 = 64 * 1024;
/// A password that ends sooner is asked for anew: what it is for takes its time. They are good for 12 hours.
const MARGIN: Duration = Duration::from_secs(15 * 60);
/// More than there are registries in any run.
const MOST_KNOWN: usize = 64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{name}` is to be {want}")]
    Malformed { name: &'static str, want: &'static str },
    #[error("`aws-region` is missing, and the registry's name does not tell the region")]
    NoRegion,
    #[error(
        "aws-* keys are for Amazon's registry, and {host} is none: name ACCOUNT.dkr.ecr.REGION.amazonaws.com before the \
         image, or give `aws-registry-id` and `aws-region`"
    )]
    Elsewhere { host: String },
    #[error("Amazon refuses a password for its registry, with status {status}: {reason}")]
    Refused { status: u16, reason: String },
    #[error("Amazon cannot be asked for a password")]
    Transport(#[source] Box<ureq::Error>),
    #[error("Amazon cannot be asked for a password")]
    Client(#[from] http::Error),
    #[error("Amazon's answer holds no password for its registry")]
    Answer,
    #[error("the question for a password broke off")]
    Broken(#[source] tokio::task::JoinError),
}

impl Error {
    /// Whether it may be gone in a moment.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Error::Refused { status, reason } => {
                http::is_passing_status(*status) || reason.starts_with("Throttling")
            }
            Error::Transport(error) => http::is_passing(error),
            _ => false,
        }
    }
}

/// What a password is asked for with.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Keys {
    host: String,
    access_key: String,
    secret_key: String,
    region: String,
    /// The account that the registry belongs to; without it, that of the keys.
    account: Option<String>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({} in {})", self.host, self.region)
    }
}

impl Keys {
    /// For the registry at `host`, with what stands beside an image's name.
    pub(crate) fn new(
        host: &str,
        access_key: String,
        secret_key: String,
        option: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Keys, Error> {
        for (name, value) in [("aws-access-key", &access_key), ("aws-secret-key", &secret_key)] {
            if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(Error::Malformed { name, want: "one word of plain letters, digits and signs" });
            }
        }
        let known = Place::of(host);
        // A password is good in its own region only, and the name cannot be wrong about that.
        let region = match &known {
            Some(place) => place.region.to_owned(),
            None => region(option)?.ok_or(Error::NoRegion)?,
        };
        let account = account(option)?.or(known.map(|place| place.account.to_owned()));
        Ok(Keys { host: host.to_owned(), access_key, secret_key, region, account })
    }
}

fn given(option: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    option(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

fn region(option: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Error> {
    let region = given(option, "aws-region");
    match region {
        Some(text) if !is_region(&text) => {
            Err(Error::Malformed { name: "aws-region", want: "the name of a region, such as eu-west-1" })
        }
        region => Ok(region),
    }
}

fn account(option: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, Error> {
    let account = given(option, "aws-registry-id");
    match account {
        Some(text) if !is_account(&text) => {
            Err(Error::Malformed { name: "aws-registry-id", want: "the 12 digits of an account, in quotes" })
        }
        account => Ok(account),
    }
}

/// It becomes part of the name of a host: nothing may lead elsewhere.
fn is_region(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// China is a realm of its own.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// What the name of a registry of Amazon's tells.
struct Place<'a> {
    account: &'a str,
    region: &'a str,
}

impl<'a> Place<'a> {
    fn of(host: &'a str) -> Option<Place<'a>> {
        let labels: Vec<&str> = host.split('.').collect();
        let ([account, "dkr", "ecr" | "ecr-fips", region, "amazonaws", "com"]
        | [account, "dkr", "ecr", region, "amazonaws", "com", "cn"]
        | [account, "dkr-ecr" | "dkr-ecr-fips", region, "on", "aws"]) = labels[..]
        else {
            return None;
        };
        (is_account(account) && is_region(region)).then_some(Place { account, region })
    }
}

/// The registry that `aws-registry-id` and `aws-region` name.
pub(crate) fn host(option: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let (account, region) = (account(option).ok()??, region(option).ok()??);
    Some(format!("{account}.dkr.ecr.{region}.{}", domain(&region)))
}

/// A user and a password.
#[derive(Clone)]
pub(crate) struct Password {
    pub(crate) username: String,
    pub(crate) password: String,
    ends: Duration,
}

/// The passwords that were given, for as long as this is there.
#[derive(Default)]
pub struct EcrPasswords {
    known: Mutex<HashMap<Keys, Password>>,
    stand_in: Option<StandIn>,
}

/// Something that answers in Amazon's place.
struct StandIn {
    address: String,
    ca_file: PathBuf,
}

impl fmt::Debug for EcrPasswords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EcrPasswords")
    }
}

impl EcrPasswords {
    /// For tests: asks `address` (`https://host:port`) instead of Amazon, trusting `ca_file` alone, and takes
    /// any registry for one of Amazon's. There is no variable that does so: whoever could set it would get the keys' signatures.
    #[doc(hidden)]
    #[must_use]
    pub fn from_stand_in(address: &str, ca_file: &Path) -> EcrPasswords {
        let stand_in = StandIn { address: address.to_owned(), ca_file: ca_file.to_owned() };
        EcrPasswords { stand_in: Some(stand_in), ..EcrPasswords::default() }
    }

    /// The password that these keys give. Asks once at most; another try is the caller's.
    pub(crate) async fn password(&self, keys: &Keys) -> Result<Password, Error> {
        if self.stand_in.is_none() && Place::of(&keys.host).is_none() {
            return Err(Error::Elsewhere { host: keys.host.clone() });
        }
        // Held while Amazon is asked: who wants the same password waits for this one.
        let mut known = self.known.lock().await;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        if let Some(password) = known.get(keys).filter(|password| password.ends > now + MARGIN) {
            return Ok(password.clone());
        }
        let (address, ca_file) = match &self.stand_in {
            Some(StandIn { address, ca_file }) => (address.clone(), Some(ca_file.clone())),
            None => (format!("https://api.ecr.{}.{}", keys.region, domain(&keys.region)), None),
        };
        let asked = keys.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&address, ca_file.as_deref(), &asked, now));
        let password = answer.await.map_err(Error::Broken)??;
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        known.insert(keys.clone(), password.clone());
        Ok(password)
    }
}

/// GetAuthorizationToken, as the reference of Amazon's API has it. Blocks.
fn ask(address: &str, ca_file: Option<&Path>, keys: &Keys, now: Duration) -> Result<Password, Error> {
    let body = match &keys.account {
        Some(account) => serde_json::json!({ "registryIds": [account] }),
        None => serde_json::json!({}),
    };
    let body = body.to_string();
    let time = amazon_time(now);
    let headers = [
        ("content-type", "application/x-amz-json-1.1"),
        ("host", address.split_once("://").map_or(address, |(_, host)| host)),
        ("x-amz-date", &time),
        ("x-amz-target", "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"),
    ];
    let Keys { access_key, secret_key, region, .. } = keys;
    let signer = Signer { access_key, secret_key, region, service: "ecr", time: &time };
    let unsigned =
        Unsigned { method: "POST", path: "/", query: "", headers: &headers, body: body.as_bytes() };
    let authorization = signer.authorization(&unsigned);

    let agent = http::agent(false, ca_file, &LIMITS)?;
    let mut request = agent.post(format!("{address}/"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let transport = |error| Error::Transport(Box::new(error));
    let sent = request.header("authorization", authorization).send(body.as_bytes());
    let mut response = sent.map_err(transport)?;
    let answer = response.body_mut().with_config().limit(LARGEST).read_to_vec().map_err(transport)?;
    match response.status().as_u16() {
        200 => read(&answer).ok_or(Error::Answer),
        status => Err(Error::Refused { status, reason: reason(&answer) }),
    }
}

/// `20150830T123600Z`
fn amazon_time(now: Duration) -> String {
    let text = Timestamp(now.as_secs() * 1000).to_string();
    let whole = text.split('.').next().unwrap_or_default();
    format!("{}Z", whole.replace(['-', ':'], ""))
}

fn read(answer: &[u8]) -> Option<Password> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        authorization_data: Vec<Data>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        authorization_token: String,
        /// In seconds.
        #[serde(default)]
        expires_at: f64,
    }
    let answer: Answer = serde_json::from_slice(answer).ok()?;
    let data = answer.authorization_data.into_iter().next()?;
    let text = String::from_utf8(STANDARD.decode(data.authorization_token).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    let ends = Duration::try_from_secs_f64(data.expires_at).unwrap_or_default();
    Some(Password { username: username.to_owned(), password: password.to_owned(), ends })
}

/// What Amazon says against it, in one line: the kind of the error, and a sentence.
fn reason(answer: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Refusal {
        #[serde(rename = "__type")]
        kind: String,
        #[serde(alias = "Message")]
        message: String,
    }
    let Refusal { kind, message } = serde_json::from_slice(answer).unwrap_or_default();
    let kind = kind.rsplit('#').next().unwrap_or_default();
    let line = message.lines().next().unwrap_or_default();
    let text: String = format!("{kind}: {line}").chars().filter(|c| !c.is_control()).take(300).collect();
    if kind.is_empty() { "it does not say why".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRANKFURT: &str = "123456789012.dkr.ecr.eu-central-1.amazonaws.com";

    fn keys(host: &str, options: &[(&str, &str)]) -> Result<Keys, Error> {
        let option =
            |key: &str| options.iter().find(|(known, _)| *known == key).map(|(_, value)| (*value).to_owned());
        Keys::new(host, "AKIDEXAMPLE".into(), "geheim".into(), &option)
    }

    #[test]
    fn the_name_of_a_registry_tells_where_it_is() {
        for (host, want) in [
            (FRANKFURT, Some(("123456789012", "eu-central-1"))),
            ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", Some(("123456789012", "cn-north-1"))),
            ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", Some(("123456789012", "us-east-1"))),
            ("123456789012.dkr-ecr.eu-west-1.on.aws", Some(("123456789012", "eu-west-1"))),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com.example.org", None),
            ("123456789012.dkr.ecr.eu_west.amazonaws.com", None),
            ("1234.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("123456789012.dkr.ecr.eu-west-1.amazonaws.com:444", None),
            ("quay.io", None),
        ] {
            let place = Place::of(host).map(|place| (place.account, place.region));
            assert_eq!(place, want, "{host}");
        }
    }

    #[test]
    fn the_region_is_that_of_the_name_or_of_the_option() {
        let of = |keys: Keys| (keys.region, keys.account);
        let named = Some("123456789012".to_owned());
        assert_eq!(of(keys(FRANKFURT, &[]).unwrap()), ("eu-central-1".into(), named));
        let other = [("aws-region", "us-east-1"), ("aws-registry-id", "210987654321")];
        assert_eq!(
            of(keys(FRANKFURT, &other).unwrap()),
            ("eu-central-1".into(), Some("210987654321".into()))
        );
        assert_eq!(of(keys("127.0.0.1:5000", &other[..1]).unwrap()), ("us-east-1".into(), None));
        assert!(matches!(keys("127.0.0.1:5000", &[]), Err(Error::NoRegion)));
        let option = |key: &str| other.iter().find(|(k, _)| *k == key).map(|(_, v)| (*v).to_owned());
        assert_eq!(host(&option).as_deref(), Some("210987654321.dkr.ecr.us-east-1.amazonaws.com"));
    }

    #[test]
    fn nothing_leads_a_signature_elsewhere() {
        for region in ["x.evil.example/", "a@b", "eu west", "EU-WEST-1", "-", "a#"] {
            let made = keys("127.0.0.1:5000", &[("aws-region", region)]);
            assert!(matches!(made, Err(Error::Malformed { name: "aws-region", .. })), "{region}");
        }
        let made = keys(FRANKFURT, &[("aws-registry-id", "1\"]")]);
        assert!(matches!(made, Err(Error::Malformed { name: "aws-registry-id", .. })));
        let made = Keys::new(FRANKFURT, "A\r\nX: y".into(), "geheim".into(), &|_| None).unwrap_err();
        assert!(!made.to_string().contains("X: y"));
    }

    #[tokio::test]
    async fn keys_are_for_amazon_alone() {
        let keys = keys("quay.io", &[("aws-region", "eu-west-1")]).unwrap();
        let refused = EcrPasswords::default().password(&keys).await.map(|_| ());
        assert!(matches!(refused, Err(Error::Elsewhere { host }) if host == "quay.io"));
    }

    #[test]
    fn times_are_written_amazons_way() {
        assert_eq!(amazon_time(Duration::from_millis(1_440_938_160_123)), "20150830T123600Z");
    }

    #[test]
    fn answers_are_read_or_refused() {
        let answer = r#"{"authorizationData":[{"authorizationToken":"QVdTOnBhOnNz","expiresAt":1.5E9,"proxyEndpoint":"x"}]}"#;
        let Password { username, password, ends } = read(answer.as_bytes()).unwrap();
        assert_eq!((username.as_str(), password.as_str(), ends.as_secs()), ("AWS", "pa:ss", 1_500_000_000));
        for wrong in [
            "",
            "{}",
            r#"{"authorizationData":[]}"#,
            r#"{"authorizationData":[{"authorizationToken":"?"}]}"#,
            r#"{"authorizationData":[{"authorizationToken":"QVdT"}]}"#,
        ] {
            assert!(read(wrong.as_bytes()).is_none(), "{wrong}");
        }
        let said = br#"{"__type":"a.b#UnrecognizedClientException","message":"The security token is invalid.\nmore"}"#;
        assert_eq!(reason(said), "UnrecognizedClientException: The security token is invalid.");
        assert_eq!(reason(b"<html>"), "it does not say why");
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = keys(FRANKFURT, &[]).unwrap();
        assert!(!format!("{keys:?}").contains("geheim") && !format!("{keys:?}").contains("AKID"));
    }
}
