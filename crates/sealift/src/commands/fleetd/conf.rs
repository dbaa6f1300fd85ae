//! `fleet.conf`: lines of `key=value`, over which variables `FLEET_<KEY>` count.
//!
//! Guarantees: every key that fleet documented is known. One without effect says so if it was set to something; one
//! that nobody knows, and a value that is none, is an error with its place.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::Error;

/// What becomes of a key.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Works,
    /// It has no effect here, for this reason.
    Idle(&'static str),
}

const WATCHED: &str = "changes are told, nothing is polled";
const GRPC: &str = "agents always hold one stream to a server";

const KEYS: &[(&str, Fate)] = &[
    ("verbosity", Fate::Works),
    ("etcd_servers", Fate::Works),
    ("etcd_username", Fate::Works),
    ("etcd_password", Fate::Works),
    ("etcd_cafile", Fate::Works),
    ("etcd_certfile", Fate::Works),
    ("etcd_keyfile", Fate::Works),
    ("etcd_key_prefix", Fate::Works),
    ("public_ip", Fate::Works),
    ("metadata", Fate::Works),
    ("agent_ttl", Fate::Works),
    ("etcd_request_timeout", Fate::Idle("a call to etcd has 5 s")),
    ("engine_reconcile_interval", Fate::Idle(WATCHED)),
    ("disable_watches", Fate::Idle(WATCHED)),
    ("token_limit", Fate::Idle("a page has 100 entries")),
    ("disable_engine", Fate::Idle("any server may be chosen to decide")),
    ("enable_grpc", Fate::Idle(GRPC)),
    ("units_directory", Fate::Idle("units lie in systemd's own run-time directory")),
    ("systemd_user", Fate::Idle("the user whom fleetd runs as says which systemd is driven")),
    ("verify_units", Fate::Idle("fleet's signatures are gone")),
    ("authorized_keys_file", Fate::Idle("fleet's signatures are gone")),
];

/// What the file and the variables say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Conf {
    pub(super) verbose: bool,
    pub(super) etcd_servers: Vec<String>,
    pub(super) user: Option<(String, String)>,
    pub(super) ca: Option<String>,
    pub(super) identity: Option<(String, String)>,
    /// Of our own keys.
    pub(super) prefix: String,
    pub(super) public_ip: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) agent_ttl: Duration,
    /// Keys that were set and have no effect, with the reason.
    pub(super) idle: Vec<(String, &'static str)>,
}

/// Reads a file's text; `file` names it, `variable` looks up the environment.
pub(super) fn read(file: &str, text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Conf, Error> {
    let mut given: BTreeMap<&'static str, String> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let place = |message: String| Error::plain(format!("{file}:{number}: {message}"));
        let (key, value) = line.split_once('=').ok_or_else(|| place(format!("{line:?} is no key=value")))?;
        let key = key.trim();
        let known = KEYS.iter().find(|(known, _)| *known == key);
        let (known, _) = known.ok_or_else(|| place(format!("fleet.conf has no key {key:?}")))?;
        given.insert(known, unquoted(value.trim()).to_owned());
    }
    for (key, _) in KEYS {
        let value = variable(&format!("FLEET_{}", key.to_uppercase()));
        given.extend(value.map(|value| (*key, unquoted(value.trim()).to_owned())));
    }
    conf(file, given)
}

fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

fn conf(file: &str, mut given: BTreeMap<&'static str, String>) -> Result<Conf, Error> {
    let wrong = |key: &str, wanted: &str| Error::plain(format!("{file}: {key} is to be {wanted}"));
    let idle = KEYS.iter().filter_map(|(key, fate)| match fate {
        Fate::Idle(why) if given.contains_key(key) => Some(((*key).to_owned(), *why)),
        _ => None,
    });
    let idle = idle.collect();
    let mut take = |key: &str| given.remove(key).filter(|value| !value.is_empty());
    let verbosity = take("verbosity").unwrap_or_else(|| "0".into());
    let verbosity: u32 = verbosity.parse().map_err(|_| wrong("verbosity", "a number"))?;
    let etcd_servers = match take("etcd_servers") {
        Some(text) => list(&text),
        None => vec!["http://127.0.0.1:2379".into()],
    };
    let is_url = |server: &String| server.starts_with("http://") || server.starts_with("https://");
    if etcd_servers.is_empty() || !etcd_servers.iter().all(is_url) {
        return Err(wrong("etcd_servers", "a list of URLs such as [\"http://127.0.0.1:2379\"]"));
    }
    let pair = |one: Option<String>, other: Option<String>, names: &str| match (one, other) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        _ => Err(wrong(names, "given together")),
    };
    let user = pair(take("etcd_username"), take("etcd_password"), "etcd_username and etcd_password")?;
    let identity = pair(take("etcd_certfile"), take("etcd_keyfile"), "etcd_certfile and etcd_keyfile")?;
    let prefix = prefix(&take("etcd_key_prefix").unwrap_or_else(|| "/_coreos.com/fleet/".into()));
    let mut metadata = BTreeMap::new();
    for part in take("metadata").unwrap_or_default().split(',').filter(|part| !part.trim().is_empty()) {
        let (key, value) = part.split_once('=').ok_or_else(|| wrong("metadata", "key=value,key=value"))?;
        metadata.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    let ttl = take("agent_ttl").unwrap_or_else(|| "30s".into());
    let agent_ttl =
        duration(&ttl).ok_or_else(|| wrong("agent_ttl", "a time such as 30s or 1m, from 1s to 1h"))?;
    Ok(Conf {
        verbose: verbosity > 0,
        etcd_servers,
        user,
        ca: take("etcd_cafile"),
        identity,
        prefix,
        public_ip: take("public_ip"),
        metadata,
        agent_ttl,
        idle,
    })
}

/// `["a", "b"]`, or `a,b`.
fn list(text: &str) -> Vec<String> {
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let parts = inner.split(',').map(|part| unquoted(part.trim()).to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Our keys lie beside fleet's, which we neither read nor write: `/_coreos.com/fleet/` gives `/_coreos.com/sealift/`.
fn prefix(fleets: &str) -> String {
    let trimmed = fleets.trim_end_matches('/');
    match trimmed.rsplit_once('/') {
        Some((parent, "fleet")) => format!("{parent}/sealift/"),
        Some((parent, name)) => format!("{parent}/{name}.sealift/"),
        None => format!("/{trimmed}.sealift/"),
    }
}

/// Go's durations, as far as they are whole seconds.
fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit {
        "s" => number,
        "m" => number.checked_mul(60)?,
        "h" => number.checked_mul(3600)?,
        _ => return None,
    };
    (1..=3600).contains(&seconds).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf(text: &str) -> Result<Conf, String> {
        read("fleet.conf", text, |_| None).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        let read = conf(
            "# comment\nverbosity=1\netcd_servers=[\"http://a:2379\", \"http://b:2379\"]\netcd_username=me\n\
             etcd_password=secret\netcd_key_prefix=/one/fleet/\npublic_ip=\"10.0.0.1\"\nmetadata=\"zone=a, disk=ssd\"\n\
             agent_ttl=\"1m\"\nenable_grpc=true\n",
        )
        .unwrap();
        assert!(read.verbose);
        assert_eq!(read.etcd_servers, ["http://a:2379", "http://b:2379"]);
        assert_eq!(read.user, Some(("me".into(), "secret".into())));
        assert_eq!((read.prefix.as_str(), read.public_ip.as_deref()), ("/one/sealift/", Some("10.0.0.1")));
        assert_eq!(read.metadata, [("zone".into(), "a".into()), ("disk".into(), "ssd".into())].into());
        assert_eq!(
            (read.agent_ttl, read.idle),
            (Duration::from_secs(60), vec![("enable_grpc".into(), GRPC)])
        );
        let plain = conf("").unwrap();
        assert_eq!((plain.prefix.as_str(), plain.agent_ttl.as_secs()), ("/_coreos.com/sealift/", 30));
        assert_eq!(plain.etcd_servers, ["http://127.0.0.1:2379"]);
    }

    #[test]
    fn variables_count_more_and_mistakes_have_a_place() {
        let variable = |name: &str| (name == "FLEET_PUBLIC_IP").then(|| "10.0.0.2".to_owned());
        let conf_of = |text| read("fleet.conf", text, variable).map(|conf| conf.public_ip);
        assert_eq!(conf_of("public_ip=10.0.0.1").unwrap().as_deref(), Some("10.0.0.2"));
        for (text, wanted) in [
            ("\nbogus=1", "fleet.conf:2: fleet.conf has no key \"bogus\""),
            ("[fleet]", "fleet.conf:1: \"[fleet]\" is no key=value"),
            ("agent_ttl=soon", "agent_ttl is to be a time"),
            ("agent_ttl=0s", "agent_ttl is to be a time"),
            ("metadata=zone", "metadata is to be key=value"),
            ("etcd_username=me", "given together"),
            ("etcd_servers=[]", "etcd_servers is to be"),
            ("verbosity=loud", "verbosity is to be a number"),
        ] {
            let said = conf(text).unwrap_err();
            assert!(said.contains(wanted), "{text}: {said}");
        }
    }

    #[test]
    fn our_keys_are_never_fleets() {
        for (fleets, ours) in [
            ("/_coreos.com/fleet/", "/_coreos.com/sealift/"),
            ("/_coreos.com/fleet", "/_coreos.com/sealift/"),
            ("/custom/", "/custom.sealift/"),
            ("custom", "/custom.sealift/"),
        ] {
            assert_eq!(prefix(fleets), ours);
            assert!(!ours.starts_with(fleets));
        }
    }
}
