//! `sealift etcd start`: works out what etcd has to be told, and becomes it.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use sealift_store::etcd::{EtcdOptions, Maintenance};
use serde_json::json;

use super::cloud_config;
use super::member::initial_cluster;
use super::{asked, plain};
use crate::cli::{EtcdStart, Global};
use crate::commands::this_machine;
use crate::error::Error;
use crate::print::{Printer, visible};

const DATA_DIR: &str = "/var/lib/etcd";

pub(super) async fn start(args: EtcdStart, global: &Global) -> Result<ExitCode, Error> {
    let address = args.address.clone().or_else(this_machine::address).ok_or_else(|| {
        Error::with_help("no address of this machine is known", "say where others reach it: --address IP")
    })?;
    let section = match &args.cloud_config {
        None => cloud_config::Section::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
            let public = args.public_address.as_deref().unwrap_or(&address);
            cloud_config::read(&text, &address, public)
                .map_err(|problem| Error::plain(format!("{}: {problem}", path.display())))?
        }
    };
    for note in &section.notes {
        tracing::warn!("{note}");
    }
    let mut options = told(&args, section.options, &address);
    let data_dir = PathBuf::from(&options["data-dir"]);
    let member = data_dir.join("member");
    let has_data =
        member.try_exists().map_err(|source| Error::Io { action: "look for", path: member, source })?;
    match &args.join {
        // It is a member already, and goes on as one.
        Some(_) if has_data => {}
        Some(url) => {
            let initial = join(url, &options, args.print).await?;
            options.insert("initial-cluster".into(), initial);
            options.insert("initial-cluster-state".into(), "existing".into());
        }
        None if has_data
            || ["initial-cluster", "discovery", "discovery-srv"]
                .iter()
                .any(|how| options.contains_key(*how)) => {}
        None => {
            return Err(Error::with_help(
                "it is not said which cluster this member is of, and its data directory is empty; nothing was started",
                "begin one with --initial NAME=URL,..., or join one with --join URL, --discovery URL or --cloud-config FILE",
            ));
        }
    }
    let mut argv = vec!["etcd".to_owned()];
    argv.extend(options.iter().map(|(name, value)| format!("--{name}={value}")));
    argv.extend(args.more.iter().cloned());
    if args.print {
        let printer = Printer::new(global.output);
        if printer.is_json() {
            printer.json(&json!({ "command": argv, "has_data": has_data, "notes": section.notes }))?;
        } else {
            printer.line(&visible(&argv.join(" \\\n  ")))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    make(&data_dir)?;
    // The process is etcd's from here on, so that systemd and signals meet it and nothing between.
    let error = Command::new("etcd").args(&argv[1..]).exec();
    Err(Error::with_help(
        format!("etcd cannot be started: {error}"),
        "install etcd 3.4 or newer (Debian: etcd-server), so that `etcd` is found in PATH",
    ))
}

/// etcd's options; what is said on the command line counts more than the cloud-config.
fn told(args: &EtcdStart, mut options: BTreeMap<String, String>, address: &str) -> BTreeMap<String, String> {
    let mut set = |name: &str, said: Option<String>, otherwise: &dyn Fn() -> String| -> String {
        if let Some(said) = said {
            options.insert(name.into(), said);
        }
        options.entry(name.into()).or_insert_with(otherwise).clone()
    };
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    set("name", args.name.clone(), &this_machine::host_name);
    set("data-dir", args.data_dir.as_ref().map(|dir| dir.display().to_string()), &|| DATA_DIR.into());
    let client = set("advertise-client-urls", args.client_url.clone(), &|| format!("http://{host}:2379"));
    let peer = set("initial-advertise-peer-urls", args.peer_url.clone(), &|| format!("http://{host}:2380"));
    set("listen-client-urls", args.client_url.as_ref().map(|_| listen(&client)), &|| listen(&client));
    set("listen-peer-urls", args.peer_url.as_ref().map(|_| listen(&peer)), &|| listen(&peer));
    for (name, said) in [("initial-cluster", &args.initial), ("discovery", &args.discovery)] {
        if let Some(said) = said {
            // One way to the others, not two.
            for other in ["initial-cluster", "discovery", "discovery-srv"] {
                options.remove(other);
            }
            options.insert(name.into(), said.clone());
        }
    }
    options
}

/// etcd listens on addresses only: for a name, on all.
fn listen(urls: &str) -> String {
    let one = |url: &str| {
        let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
        let Some((host, port)) = rest.rsplit_once(':') else { return url.to_owned() };
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if bare.parse::<std::net::IpAddr>().is_ok() {
            url.to_owned()
        } else {
            format!("{scheme}://0.0.0.0:{port}")
        }
    };
    urls.split(',').map(one).collect::<Vec<_>>().join(",")
}

/// Tells the cluster of this member if it does not know yet; gives what etcd calls the initial cluster.
async fn join(url: &str, options: &BTreeMap<String, String>, only_look: bool) -> Result<String, Error> {
    let (name, peers) = (options["name"].as_str(), &options["initial-advertise-peer-urls"]);
    let peers: Vec<_> = peers.split(',').map(str::to_owned).collect();
    let mut at = EtcdOptions::new(url.split(','), "/");
    let file = |key: &str| -> Result<Option<Vec<u8>>, Error> {
        let Some(path) = options.get(key).map(Path::new) else { return Ok(None) };
        std::fs::read(path).map(Some).map_err(|source| Error::Io {
            action: "read",
            path: path.into(),
            source,
        })
    };
    if url.starts_with("https://") {
        if let Some(ca) = file("trusted-ca-file")? {
            at = at.ca(ca);
        }
        if let (Some(cert), Some(key)) = (file("cert-file")?, file("key-file")?) {
            at = at.identity(cert, key);
        }
    }
    let cluster = Maintenance::new(at).map_err(|error| Error::plain(plain(&error)))?;
    let members = cluster.members().await.map_err(asked)?;
    let own = members.iter().find(|member| member.peer_urls.iter().any(|url| peers.contains(url)));
    match own {
        // Added by hand, and started now for the first time.
        Some(own) if own.name.is_empty() => Ok(initial_cluster(&members, own.id, name)),
        Some(own) => Err(Error::with_help(
            format!(
                "the cluster has a member at {} already, {}, and there is no data here",
                peers.join(","),
                own.name
            ),
            format!("if its data is lost: sealift etcd member replace {}", own.name),
        )),
        None if members.iter().any(|member| member.name == name) => Err(Error::with_help(
            format!("the cluster has a member {name} already, elsewhere"),
            "choose another --name; if that member is lost: sealift etcd member replace --help",
        )),
        None if only_look => Err(Error::with_help(
            "the cluster does not know this member yet, and --print changes nothing",
            format!("sealift etcd member add {name} --peer-url {}", peers.join(",")),
        )),
        None => {
            let added = cluster.add(peers).await.map_err(asked)?;
            Ok(initial_cluster(&added.members, added.member.id, name))
        }
    }
}

/// etcd wants its directory to be its own.
fn make(dir: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| Error::Io {
        action: "make",
        path: dir.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_on_addresses() {
        assert_eq!(listen("http://10.0.0.1:2379"), "http://10.0.0.1:2379");
        assert_eq!(
            listen("https://node-1.example:2379,http://[::1]:1"),
            "https://0.0.0.0:2379,http://[::1]:1"
        );
    }
}
