//! The `coreos.etcd2` section of a cloud-config, and the older `coreos.etcd`: what a member is started with.
//!
//! Keys are etcd's options, with `-` or `_`. `$private_ipv4` and `$public_ipv4` stand for addresses.

use std::collections::BTreeMap;

use sealift_pipeline::yaml::{self, Node};

/// Keys of the older section that became others.
const RENAMED: [(&str, &str); 5] = [
    ("addr", "advertise-client-urls"),
    ("peer-addr", "initial-advertise-peer-urls"),
    ("bind-addr", "listen-client-urls"),
    ("peer-bind-addr", "listen-peer-urls"),
    ("snapshot", "snapshot-count"),
];
/// Keys that etcd 3.4 and later take no more, and that change nothing where they are left out.
const GONE: [&str; 8] = [
    "version",
    "proxy",
    "proxy-failure-wait",
    "proxy-refresh-interval",
    "proxy-dial-timeout",
    "proxy-write-timeout",
    "proxy-read-timeout",
    "log-package-levels",
];
/// What our etcd understands; a key that is none of these is a slip of the pen.
const KNOWN: [&str; 33] = [
    "advertise-client-urls",
    "auto-compaction-retention",
    "cert-file",
    "client-cert-auth",
    "cors",
    "data-dir",
    "debug",
    "discovery",
    "discovery-fallback",
    "discovery-proxy",
    "discovery-srv",
    "election-timeout",
    "enable-pprof",
    "enable-v2",
    "force-new-cluster",
    "heartbeat-interval",
    "initial-advertise-peer-urls",
    "initial-cluster",
    "initial-cluster-state",
    "initial-cluster-token",
    "key-file",
    "listen-client-urls",
    "listen-peer-urls",
    "max-snapshots",
    "max-wals",
    "name",
    "peer-cert-file",
    "peer-client-cert-auth",
    "peer-key-file",
    "peer-trusted-ca-file",
    "snapshot-count",
    "strict-reconfig-check",
    "trusted-ca-file",
];
/// Not in etcd any more under these names.
const AUTHORITIES: [(&str, &str); 2] =
    [("ca-file", "trusted-ca-file"), ("peer-ca-file", "peer-trusted-ca-file")];

/// Options of etcd by their names without dashes in front, and what was left aside.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    pub(super) options: BTreeMap<String, String>,
    pub(super) notes: Vec<String>,
}

/// Reads the section; the error names the place.
pub(super) fn read(text: &str, private: &str, public: &str) -> Result<Section, String> {
    if text.lines().next().map(str::trim_end) != Some("#cloud-config") {
        return Err("line 1: it is no cloud-config, which begins with #cloud-config".into());
    }
    let root = yaml::parse(text).map_err(|error| error.to_string())?;
    let coreos = root.as_ref().and_then(|root| child(root, "coreos"));
    let section = |name| coreos.and_then(|coreos| child(coreos, name));
    let (node, old) = match (section("etcd2"), section("etcd")) {
        (Some(node), _) => (node, false),
        (None, Some(node)) => (node, true),
        (None, None) => return Err("it has no section coreos.etcd2, nor the older coreos.etcd".into()),
    };
    let pairs = node.mapping().ok_or_else(|| format!("line {}: expected keys and values", node.at.line))?;
    let mut read = Section::default();
    for (key, value) in pairs {
        let line = key.at.line;
        let name = key.text().unwrap_or_default().replace('_', "-");
        let text = value.text().ok_or_else(|| format!("line {line}: {name}: expected one value"))?;
        let mut text = substitute(text, private, public);
        if GONE.contains(&name.as_str()) {
            read.notes.push(format!("line {line}: {name} is left out; etcd has no such option any more"));
            continue;
        }
        let renamed =
            AUTHORITIES.iter().chain(RENAMED.iter().filter(|_| old)).find(|(from, _)| *from == name);
        let name = match renamed {
            Some((from, to)) => {
                read.notes.push(format!("line {line}: {from} is {to} now"));
                // In the old section it was an address, not a URL.
                if to.ends_with("-urls") && !text.contains("://") {
                    text = format!("http://{text}");
                }
                (*to).to_owned()
            }
            None => name,
        };
        if !KNOWN.contains(&name.as_str()) {
            return Err(format!("line {line}: {name:?} is no option of etcd; nothing was started"));
        }
        read.options.insert(name, text);
    }
    Ok(read)
}

fn child<'a>(node: &'a Node, name: &str) -> Option<&'a Node> {
    let pairs = node.mapping()?;
    pairs.iter().find(|(key, _)| key.text() == Some(name)).map(|(_, value)| value)
}

fn substitute(text: &str, private: &str, public: &str) -> String {
    text.replace("$private_ipv4", private).replace("$public_ipv4", public)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_was_written_for_coreos() {
        let text = "#cloud-config\n\nhostname: a\ncoreos:\n  etcd2:\n    # a new token for each cluster\n    discovery: https://discovery.example.com/abc\n    advertise_client_urls: http://$public_ipv4:2379\n    initial-advertise-peer-urls: http://$private_ipv4:2380\n    listen-client-urls: http://0.0.0.0:2379,http://0.0.0.0:4001\n    listen-peer-urls: \"http://$private_ipv4:2380\"\n    proxy: off\n    heartbeat-interval: 100\n";
        let section = read(text, "10.0.0.1", "1.2.3.4").unwrap();
        let option = |name: &str| section.options[name].as_str();
        assert_eq!(option("discovery"), "https://discovery.example.com/abc");
        assert_eq!(option("advertise-client-urls"), "http://1.2.3.4:2379");
        assert_eq!(option("initial-advertise-peer-urls"), "http://10.0.0.1:2380");
        assert_eq!(option("heartbeat-interval"), "100");
        assert_eq!((section.options.len(), section.notes.len()), (6, 1), "{section:?}");

        let old = read("#cloud-config\ncoreos:\n  etcd:\n    name: n\n    addr: $public_ipv4:4001\n    peer-addr: $private_ipv4:7001\n", "10.0.0.1", "1.2.3.4").unwrap();
        assert_eq!(old.options["advertise-client-urls"], "http://1.2.3.4:4001");
        assert_eq!(old.options["initial-advertise-peer-urls"], "http://10.0.0.1:7001");
    }

    #[test]
    fn says_where_it_is_wrong() {
        let says = |text: &str| read(text, "a", "b").unwrap_err();
        assert!(says("coreos: {}\n").contains("line 1"));
        assert!(says("#cloud-config\ncoreos: {}\n").contains("coreos.etcd2"));
        assert!(says("#cloud-config\ncoreos:\n  etcd2:\n    nane: x\n").contains("line 4: \"nane\""));
        assert!(says("#cloud-config\ncoreos:\n  etcd2:\n    name: [x]\n").contains("line 4"));
    }
}
