//! A cluster of Sealift on hosts: an etcd member and a server on the first of them, an agent on every one, each a service of
//! the host's own systemd.
//!
//! How a server is reached and how an agent is let in is said here and nowhere else in the lab: agents join with a token and
//! speak TLS to any of the servers; the lab itself asks over plain HTTP, with the token that each server keeps.
//!
//! It must not know what units are tried on it.

pub mod judge;
pub mod soak;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use sealift_client::api::{
    DestroyUnits, List, MachineStatus, PutUnit, PutUnits, Status, UnitChange, UnitView,
};
use sealift_client::{Address, Client};
use sealift_model::{ActiveState, DesiredState, UnitName};

use crate::hosts::etcd::Etcd;
use crate::hosts::{self, Bind, Host, Hosts, Options, RETRY, Volume};
use sealift_model::diagnostic::chain;

/// Where the program is on every host.
const PROGRAM: &str = "/usr/local/bin/sealift";
/// The services, without `.service`.
pub const SERVER: &str = "sealift-server";
pub const AGENT: &str = "sealift-agent";
/// What is kept of both on a host, on a file system of its own.
pub const STATE: &str = "/var/lib/sealift";
const STATE_MEBIBYTES: u32 = 256;
/// Over plain HTTP, for the lab alone, and over TLS, for agents.
const PORT: u16 = 4640;
const TLS_PORT: u16 = 4641;
const TOKEN: &str = "/var/lib/sealift/token";
/// What a machine joins with.
const JOIN_TOKEN: &str = "/etc/sealift-join";
/// How long a machine counts as present: as short as a busy test machine allows, because every story waits for it.
pub const MACHINE_TTL: Duration = Duration::from_secs(5);
/// How long a cluster may take for what takes seconds on a machine with nothing else to do.
pub const LONG: Duration = Duration::from_secs(90);

/// Why a cluster is not there, or does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Hosts(#[from] hosts::Error),
    #[error("there is no program {}; cargo build -p sealift makes it", .0.display())]
    NoProgram(PathBuf),
    #[error("{servers} servers do not fit on {hosts} hosts")]
    Servers { servers: usize, hosts: usize },
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the server on {server} does not do it")]
    Asked {
        server: String,
        #[source]
        source: sealift_client::Error,
    },
    #[error("cannot start a runtime to ask with")]
    Runtime(#[source] std::io::Error),
    #[error("{what}: not within {} s: {}", limit.as_secs(), complaints.join("; "))]
    Late { what: String, limit: Duration, complaints: Vec<String> },
}

/// What cluster to make.
#[derive(Debug, Clone)]
pub struct Plan {
    pub hosts: usize,
    /// So many of them, the first, have a server and a member of etcd.
    pub servers: usize,
    pub base: PathBuf,
    /// The `sealift` to run.
    pub program: PathBuf,
}

/// A cluster that is up. It goes when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    hosts: Hosts,
    etcd: Etcd,
    servers: usize,
    program: PathBuf,
}

impl Cluster {
    /// Boots the hosts and waits until every machine is present.
    ///
    /// # Errors
    /// When the hosts do not come up, or the cluster does not come together.
    pub fn start(plan: &Plan) -> Result<Cluster, Error> {
        if !(1..=plan.hosts).contains(&plan.servers) {
            return Err(Error::Servers { servers: plan.servers, hosts: plan.hosts });
        }
        if !plan.program.is_file() {
            return Err(Error::NoProgram(plan.program.clone()));
        }
        let hosts = Hosts::make(Options {
            binds: vec![Bind { from: plan.program.clone(), to: PROGRAM.into() }],
            volumes: vec![Volume { path: STATE.into(), mebibytes: STATE_MEBIBYTES }],
            clocked: vec![SERVER.into(), AGENT.into()],
            ..Options::new(plan.hosts, plan.base.clone())
        })?;
        let with_server = hosts.all().get(..plan.servers).unwrap_or_default();
        let etcd = Etcd::install(&with_server.iter().collect::<Vec<_>>())?;
        let members = etcd.endpoints(&hosts)?.join(",");
        let servers: Vec<_> =
            with_server.iter().map(|host| format!("https://{}:{TLS_PORT}", host.address())).collect();
        for host in hosts.all() {
            let words = format!("agent --server {} --join {JOIN_TOKEN}", servers.join(","));
            install(host, AGENT, &words)?;
        }
        for host in with_server {
            let (ttl, address) = (MACHINE_TTL.as_secs(), host.address());
            let words = format!(
                "server --listen 0.0.0.0:{PORT} --plain --listen-tls 0.0.0.0:{TLS_PORT} --tls-name {address} \
                 --etcd {members} --machine-ttl {ttl}s"
            );
            install(host, SERVER, &words)?;
        }
        hosts.start()?;
        let cluster = Cluster { etcd, servers: plan.servers, program: plan.program.clone(), hosts };
        for host in cluster.server_hosts() {
            cluster.wait_for_server(host, LONG)?;
        }
        // Agents ask for it again and again.
        let uses = plan.hosts.to_string();
        let (first, token) = (cluster.hosts.host(1)?, RefCell::new(String::new()));
        // The first server that leads makes the authority, in its own time.
        wait("there is a token to join with", LONG, || {
            match first.run(PROGRAM, &["machine", "join-token", "--uses", &uses]) {
                Ok(text) => *token.borrow_mut() = text,
                Err(error) => return Ok(vec![chain(&error)]),
            }
            Ok(Vec::new())
        })?;
        let token = token.into_inner();
        for host in cluster.hosts.all() {
            host.write(JOIN_TOKEN, &token)?;
        }
        cluster.wait_for_machines(plan.hosts, LONG)?;
        Ok(cluster)
    }

    #[must_use]
    pub fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    #[must_use]
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// The hosts that have a server.
    #[must_use]
    pub fn server_hosts(&self) -> &[Host] {
        self.hosts.all().get(..self.servers).unwrap_or_default()
    }

    /// Asks the server on a host something, on the hosts' network.
    ///
    /// # Errors
    /// When it cannot be asked, or says no.
    pub fn ask<T: Send, F>(
        &self,
        server: &Host,
        question: impl FnOnce(Client) -> F + Send,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, sealift_client::Error>>,
    {
        let address = Address::Tcp { host: server.address().to_string(), port: PORT };
        let client = Client::new(address, Some(self.token(server)?));
        let outcome = self.hosts.network(|| -> Result<_, Error> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            Ok(runtime.map_err(Error::Runtime)?.block_on(question(client)))
        })?;
        outcome?.map_err(|source| Error::Asked { server: server.name().to_owned(), source })
    }

    /// Asks the servers one after the other until one does it. What is asked must be as good twice as once.
    ///
    /// # Errors
    /// The last server's.
    pub fn ask_any<T: Send, F>(&self, question: impl Fn(Client) -> F + Send + Sync) -> Result<T, Error>
    where
        F: Future<Output = Result<T, sealift_client::Error>>,
    {
        let mut outcome = Err(Error::Servers { servers: 0, hosts: 0 });
        for server in self.server_hosts() {
            outcome = self.ask(server, &question);
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// Calls the program with these words, as somebody does who is on the network and asks the server on this host.
    ///
    /// # Errors
    /// When it fails, or takes longer than this.
    pub fn call(&self, server: &Host, words: &[&str], limit: Duration) -> Result<String, Error> {
        let mut command = self.hosts.outside(&self.program.display().to_string());
        command.args(words).arg("--server").arg(format!("http://{}:{PORT}", server.address()));
        command.env("SEALIFT_TOKEN", self.token(server)?);
        Ok(hosts::run(command, limit)?)
    }

    /// The name of the server that decides, which is its host's.
    ///
    /// # Errors
    /// When no server answers.
    pub fn leader(&self) -> Result<Option<String>, Error> {
        let status = self.ask_any(|client| async move { client.get::<Status>("/v1/status").await });
        status.map(|status| status.leader)
    }

    fn token(&self, server: &Host) -> Result<String, Error> {
        let path = server.path(TOKEN);
        let text = std::fs::read_to_string(&path).map_err(|source| Error::Read { path, source })?;
        Ok(text.trim().to_owned())
    }

    /// Waits until the server on a host answers.
    ///
    /// # Errors
    /// When it does not within this time.
    pub fn wait_for_server(&self, server: &Host, limit: Duration) -> Result<(), Error> {
        wait("the server answers", limit, || {
            let status = self.ask(server, |client| async move { client.get::<Status>("/v1/status").await });
            Ok(status.err().map(|error| chain(&error)).into_iter().collect())
        })
    }

    /// Waits until so many machines are present.
    ///
    /// # Errors
    /// When they are not within this time.
    pub fn wait_for_machines(&self, count: usize, limit: Duration) -> Result<(), Error> {
        wait("the machines are present", limit, || match self.machines() {
            Ok(machines) => {
                let present = machines.iter().filter(|machine| machine.presence.is_some()).count();
                Ok((present != count).then(|| format!("{present} of {count} are")).into_iter().collect())
            }
            Err(error) => Ok(vec![chain(&error)]),
        })
    }

    /// Waits until the server on this host says that another host's machine is away.
    ///
    /// # Errors
    /// When it does not within this time.
    pub fn wait_until_away(&self, server: &Host, away: &Host, limit: Duration) -> Result<(), Error> {
        wait("the machine is away", limit, || {
            let list = self
                .ask(server, |client| async move { client.get::<List<MachineStatus>>("/v1/machines").await });
            let is_present =
                |machine: &MachineStatus| machine.machine.name == away.name() && machine.presence.is_some();
            Ok(match list {
                Ok(list) if list.items.iter().any(is_present) => vec!["it is present".into()],
                Ok(_) => Vec::new(),
                Err(error) => vec![chain(&error)],
            })
        })
    }

    /// Waits until the server on this host says that all these units run on machines that are present.
    ///
    /// # Errors
    /// When it does not within this time.
    pub fn wait_until_run(
        &self,
        server: &Host,
        units: &BTreeSet<UnitName>,
        limit: Duration,
    ) -> Result<(), Error> {
        wait("the units run", limit, || {
            let list = self.ask(server, |client| async move {
                client.get::<List<UnitView>>("/v1/units?text=false").await
            });
            let runs = |view: &UnitView| {
                let placement =
                    view.placement.as_ref().filter(|placement| !view.away.contains(&placement.machine));
                let status = placement.and_then(|placement| {
                    let status = view.statuses.get(placement.machine.as_str())?;
                    (status.placement == placement.id).then_some(status.active)
                });
                status == Some(ActiveState::Active)
            };
            Ok(match list {
                Ok(list) => {
                    let run = list
                        .items
                        .iter()
                        .filter(|view| units.contains(&view.unit.name) && runs(view))
                        .count();
                    (run != units.len()).then(|| format!("{run} of {} do", units.len())).into_iter().collect()
                }
                Err(error) => vec![chain(&error)],
            })
        })
    }

    /// The machines, as a server that answers says.
    ///
    /// # Errors
    /// When no server answers.
    pub fn machines(&self) -> Result<Vec<MachineStatus>, Error> {
        let list =
            self.ask_any(|client| async move { client.get::<List<MachineStatus>>("/v1/machines").await });
        list.map(|list| list.items)
    }

    /// Has units launched that have this text.
    ///
    /// # Errors
    /// When no server does it.
    pub fn launch(&self, names: &[UnitName], text: &str) -> Result<(), Error> {
        let unit = |name: &UnitName| PutUnit {
            text: Some(text.to_owned()),
            desired: Some(DesiredState::Launched),
            ..PutUnit::named(name.clone())
        };
        let wanted = PutUnits { units: names.iter().map(unit).collect(), replace: false };
        let wanted = &wanted;
        self.ask_any(|client| async move { client.post::<_, List<UnitChange>>("/v1/units", wanted).await })
            .map(drop)
    }

    /// Destroys units.
    ///
    /// # Errors
    /// When no server does it.
    pub fn destroy(&self, names: &[UnitName]) -> Result<(), Error> {
        let wanted = &DestroyUnits { names: names.to_vec() };
        let asked = self.ask_any(|client| async move {
            client.post::<_, List<UnitName>>("/v1/units/destroy", wanted).await
        });
        asked.map(drop)
    }
}

/// Puts a service of the program on a host that is off.
fn install(host: &Host, name: &str, words: &str) -> Result<(), Error> {
    let text = format!(
        "[Unit]\nAfter=network-online.target\nStartLimitIntervalSec=0\n\n\
         [Service]\nExecStart={PROGRAM} {words}\nRestart=always\nRestartSec=200ms\n"
    );
    let unit = format!("{name}.service");
    host.write(&format!("/etc/systemd/system/{unit}"), &text)?;
    Ok(host.enable(&unit)?)
}

/// Looks until there is nothing to complain about.
fn wait(what: &str, limit: Duration, look: impl Fn() -> Result<Vec<String>, Error>) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    loop {
        let complaints = look()?;
        if complaints.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::Late { what: what.to_owned(), limit, complaints });
        }
        std::thread::sleep(RETRY);
    }
}
