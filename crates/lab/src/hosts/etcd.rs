//! An etcd whose members are on hosts: Debian's own service under each host's systemd, with its data on the host's disk.
//!
//! It must not know who uses it.

use std::time::{Duration, Instant};

use super::{Error, Host, Hosts, RETRY};

/// The port that members listen on for clients.
const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const UNIT: &str = "etcd.service";
/// A member that cannot reach the others keeps trying. Debian's service gives up.
const DROP_IN: &str = "[Unit]\nStartLimitIntervalSec=0\nWants=network-online.target\nAfter=network-online.target\n\n\
    [Service]\nRestart=always\nRestartSec=200ms\nTimeoutStartSec=infinity\n";
/// For one question to etcd.
const ASK: Duration = Duration::from_secs(5);

/// An etcd.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// The numbers of the hosts that have a member.
    members: Vec<usize>,
}

impl Etcd {
    /// Puts a member on each of these hosts, which are off; it starts with its host.
    ///
    /// # Errors
    /// When a disk does not take it.
    pub fn install(hosts: &[&Host]) -> Result<Etcd, Error> {
        let peer = |host: &Host| format!("http://{}:{PEER_PORT}", host.address());
        let cluster: Vec<_> = hosts.iter().map(|host| format!("{}={}", host.name(), peer(host))).collect();
        for host in hosts {
            let (name, peer, client) = (host.name(), peer(host), client(host));
            let text = format!(
                "ETCD_NAME={name}\nETCD_DATA_DIR=/var/lib/etcd/{name}\nETCD_LISTEN_PEER_URLS={peer}\n\
                 ETCD_INITIAL_ADVERTISE_PEER_URLS={peer}\nETCD_ADVERTISE_CLIENT_URLS={client}\n\
                 ETCD_LISTEN_CLIENT_URLS={client},http://127.0.0.1:{CLIENT_PORT}\nETCD_INITIAL_CLUSTER={}\n\
                 ETCD_INITIAL_CLUSTER_STATE=new\nETCD_ENABLE_V2=false\nETCD_LOGGER=zap\n",
                cluster.join(",")
            );
            host.write("/etc/default/etcd", &text)?;
            host.write("/etc/systemd/system/etcd.service.d/lab.conf", DROP_IN)?;
            host.enable(UNIT)?;
        }
        Ok(Etcd { members: hosts.iter().map(|host| host.number()).collect() })
    }

    /// The numbers of the hosts that have a member.
    #[must_use]
    pub fn members(&self) -> &[usize] {
        &self.members
    }

    /// Where clients reach the members.
    ///
    /// # Errors
    /// When these are not the hosts that it was installed on.
    pub fn endpoints(&self, hosts: &Hosts) -> Result<Vec<String>, Error> {
        self.members.iter().map(|number| hosts.host(*number).map(client)).collect()
    }

    /// Waits until this host's member takes part in a majority: until it answers a read that takes one.
    ///
    /// # Errors
    /// When it does not within this time.
    pub fn wait(&self, hosts: &Hosts, host: &Host, limit: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            match ask(hosts, host, &["endpoint", "health"]) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => return Err(error),
                Err(_) => std::thread::sleep(RETRY),
            }
        }
    }

    /// Waits until all members take part.
    ///
    /// # Errors
    /// When one does not within this time.
    pub fn wait_all(&self, hosts: &Hosts, limit: Duration) -> Result<(), Error> {
        self.members.iter().try_for_each(|number| self.wait(hosts, hosts.host(*number)?, limit))
    }

    /// The host whose member leads, by its own word; none while there is no leader.
    ///
    /// # Errors
    /// When these are not the hosts that it was installed on.
    pub fn leader<'a>(&self, hosts: &'a Hosts) -> Result<Option<&'a Host>, Error> {
        for number in &self.members {
            let host = hosts.host(*number)?;
            let Ok(said) = ask(hosts, host, &["endpoint", "status", "--write-out=fields"]) else { continue };
            let field = |name: &str| said.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let (leader, member) = (field("\"Leader\" :"), field("\"MemberID\" :"));
            if leader.is_some() && leader == member {
                return Ok(Some(host));
            }
        }
        Ok(None)
    }

    /// A number that the member on this host counts, from its metrics: the sum over all labels.
    ///
    /// # Errors
    /// When the member does not answer, or counts nothing of that name.
    pub fn metric(&self, hosts: &Hosts, host: &Host, name: &str) -> Result<f64, Error> {
        let url = format!("{}/metrics", client(host));
        let text = hosts.run_outside("curl", &["--silent", "--fail", "--max-time", "5", &url], ASK)?;
        let of_name = text.lines().filter_map(|line| {
            let (key, value) = line.rsplit_once(' ')?;
            (key.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok()).flatten()
        });
        let values: Vec<f64> = of_name.collect();
        if values.is_empty() {
            return Err(Error::Failed { what: url, said: format!("there is no {name}") });
        }
        Ok(values.iter().sum())
    }
}

fn client(host: &Host) -> String {
    format!("http://{}:{CLIENT_PORT}", host.address())
}

/// Asks the member on this host and no other.
fn ask(hosts: &Hosts, host: &Host, question: &[&str]) -> Result<String, Error> {
    let endpoint = format!("--endpoints={}", client(host));
    let mut arguments =
        vec!["ETCDCTL_API=3", "etcdctl", "--dial-timeout=1s", "--command-timeout=2s", &endpoint];
    arguments.extend(question);
    hosts.run_outside("env", &arguments, ASK)
}
