//! Services: containers beside the box, such as a database.
//!
//! Guarantees: when a service is said to be ready, a connection from the box to its ports is accepted (or the
//! image's own health check passes, or what the file's `ready` asks for is so); one that never gets there ends the wait with the reason and its last words.
//!
//! It must not know about steps.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, ImageConfig, NetworkingConfig,
};
use futures_util::StreamExt;
use memchr::memmem;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::settings::Probe;
use crate::config::{BoxConfig, Ready};
use crate::engine::{self, Engine};
use crate::env::{self, Env};
use crate::run::Leave;
use crate::shell;

/// How often a service that is not ready is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How often a service whose log is silent is looked at: it may have ended without a word.
const LOOK: Duration = Duration::from_secs(2);
/// How long one try may take.
const TRY: Duration = Duration::from_millis(500);
/// How long one run of a health check may take where the image does not say.
const HEALTH: Duration = Duration::from_secs(30);
/// Lines of a service's log that an error shows.
const LAST_LINES: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error("service {alias} has no address on the network")]
    NoAddress { alias: String },
    #[error("service {alias} ended with code {code}{last}")]
    Ended { alias: String, code: i64, last: LastWords },
    #[error("service {alias} is not ready after {} s: {why}{last}", limit.as_secs())]
    NotReady { alias: String, limit: Duration, why: String, last: LastWords },
    #[error("the run was cancelled")]
    Cancelled,
}

/// The end of a service's log, as an error shows it.
#[derive(Debug, Clone)]
pub struct LastWords(String);

impl fmt::Display for LastWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "; its last lines:\n{}", self.0) }
    }
}

/// A service that runs.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) alias: String,
    /// More names.
    aliases: Vec<String>,
    /// When it counts as ready; none: by its health check, or its ports.
    wanted: Option<Ready>,
    container: String,
    /// At which it is asked whether it is ready, and which the variables name.
    address: IpAddr,
    /// All of them, that one included.
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
    health: Option<(Vec<String>, Duration)>,
    /// The variables by which others find it.
    pub(crate) links: Vec<(String, String)>,
}

/// Where a service is to run.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    pub(crate) container: String,
    pub(crate) network: &'a str,
    pub(crate) labels: HashMap<String, String>,
    /// Services that were started before.
    pub(crate) earlier: &'a [Service],
    pub(crate) leave: Leave,
}

/// Starts the container of a service.
pub(crate) async fn start(
    engine: &Engine,
    config: &BoxConfig,
    image: &str,
    image_config: &ImageConfig,
    env: &Env,
    place: Place<'_>,
) -> Result<Service, Error> {
    let alias = config.alias();
    let own_env = env::of_box(config, env);
    let links = place.earlier.iter().flat_map(|service| &service.links);
    let mut full_env: Vec<String> = links.map(|(name, value)| format!("{name}={value}")).collect();
    full_env.extend(own_env.iter().cloned());
    let command = |text: &Option<String>| text.as_ref().map(|text| shell::split(&env.fill(text)));
    let mut host = HostConfig {
        network_mode: Some(place.network.to_owned()),
        extra_hosts: Some(hosts(place.earlier)),
        ..limits(config)
    };
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        exposed_ports: place.leave.grant(&mut host),
        cmd: command(&config.cmd),
        entrypoint: command(&config.entrypoint),
        env: Some(full_env),
        labels: Some(place.labels),
        user: config.user.clone(),
        host_config: Some(host),
        networking_config: names(config, place.network),
        ..ContainerCreateBody::default()
    };
    engine.create(&place.container, body).await?;
    engine.start(&place.container).await?;
    let ports = ports(config, image_config);
    let state = engine.inspect(&place.container).await?;
    let addresses = state.addresses(place.network);
    let Some(address) = addresses.first().copied() else {
        // One that ended at once has lost its address by now.
        if state.state.running {
            return Err(Error::NoAddress { alias });
        }
        let last = LastWords(engine.last_lines(&place.container, LAST_LINES).await);
        return Err(Error::Ended { alias, code: state.state.exit_code, last });
    };
    let mut known_env = image_config.env.clone().unwrap_or_default();
    known_env.extend(own_env);
    let links = env::links(&alias, &address.to_string(), &ports, &known_env);
    let health = image_config.healthcheck.as_ref().and_then(health);
    let (aliases, wanted) = (config.aliases.clone(), config.ready.as_deref().cloned());
    let container = place.container;
    Ok(Service { alias, aliases, wanted, container, address, addresses, ports, health, links })
}

/// What a box or service may use of the machine.
pub(crate) fn limits(config: &BoxConfig) -> HostConfig {
    HostConfig {
        memory: config.memory.and_then(|bytes| i64::try_from(bytes).ok()),
        nano_cpus: config.cpu_millis.map(|millis| i64::from(millis) * 1_000_000),
        ..HostConfig::default()
    }
}

/// The names by which an engine with a name service lets others find it, besides [`hosts`].
pub(crate) fn names(config: &BoxConfig, network: &str) -> Option<NetworkingConfig> {
    if config.aliases.is_empty() {
        return None;
    }
    let endpoint = EndpointSettings { aliases: Some(config.aliases.clone()), ..EndpointSettings::default() };
    Some(NetworkingConfig { endpoints_config: Some(HashMap::from([(network.to_owned(), endpoint)])) })
}

/// Lines for `/etc/hosts`.
pub(crate) fn hosts(services: &[Service]) -> Vec<String> {
    let of_one = |service: &Service| {
        let names = std::iter::once(&service.alias).chain(&service.aliases);
        let lines = |name| service.addresses.iter().map(move |address| format!("{name}:{address}"));
        names.flat_map(lines).collect::<Vec<_>>()
    };
    services.iter().flat_map(of_one).collect()
}

/// The TCP ports that a service is known to serve: those that the file names, else those that the image exposes.
fn ports(config: &BoxConfig, image: &ImageConfig) -> Vec<u16> {
    let tcp = |text: &str| {
        let (port, proto) = text.split_once('/').unwrap_or((text, "tcp"));
        let inner = port.rsplit(':').next().unwrap_or_default();
        if proto == "tcp" { inner.parse::<u16>().ok() } else { None }
    };
    let mut ports: Vec<u16> = config.ports.iter().filter_map(|port| tcp(port)).collect();
    if let Some(Probe::Port(port)) = config.ready.as_ref().map(|ready| &ready.probe) {
        ports.push(*port);
    }
    if ports.is_empty() {
        ports = image.exposed_ports.iter().flatten().filter_map(|port| tcp(port)).collect();
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// An image's own check as a command. It is run by us, because Podman leaves that to systemd, which not every
/// machine has.
fn health(config: &HealthConfig) -> Option<(Vec<String>, Duration)> {
    let test = config.test.as_ref()?;
    let command = match test.split_first()? {
        (kind, rest) if kind == "CMD" => rest.to_vec(),
        (kind, rest) if kind == "CMD-SHELL" => vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")],
        _ => return None,
    };
    let limit = config.timeout.and_then(|nanos| u64::try_from(nanos).ok()).filter(|nanos| *nanos > 0);
    Some((command, limit.map_or(HEALTH, Duration::from_nanos)))
}

impl Service {
    /// What will be waited for, for people; none if nothing can be.
    pub(crate) fn awaited(&self) -> Option<String> {
        match self.wanted.as_ref().map(|wanted| &wanted.probe) {
            Some(Probe::Port(port)) => return Some(format!("port {port}")),
            Some(Probe::Log(_)) => return Some("its log".to_owned()),
            Some(Probe::Command(_)) => return Some("its command".to_owned()),
            None => {}
        }
        match (&self.health, self.ports.as_slice()) {
            (Some(_), _) => Some("its health check".to_owned()),
            (None, []) => None,
            (None, [port]) => Some(format!("port {port}")),
            (None, ports) => {
                Some(format!("ports {}", ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")))
            }
        }
    }

    /// How it ended, if it has ended.
    pub(crate) async fn ended(&self, engine: &Engine) -> Option<Error> {
        let state = engine.inspect(&self.container).await.ok()?.state;
        if state.running {
            return None;
        }
        let last = LastWords(engine.last_lines(&self.container, LAST_LINES).await);
        Some(Error::Ended { alias: self.alias.clone(), code: state.exit_code, last })
    }

    /// Waits until it is ready, at most for `limit`.
    pub(crate) async fn ready(
        &self,
        engine: &Engine,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let limit = self.wanted.as_ref().map_or(limit, |wanted| wanted.timeout);
        let deadline = Instant::now() + limit;
        if let Some(Ready { probe: Probe::Log(text), .. }) = &self.wanted {
            return self.has_said(engine, text, limit, cancel).await;
        }
        loop {
            let missing = self.missing(engine).await?;
            // Looked at after the try: an address without its container may be answered by anybody on the way.
            let state = engine.inspect(&self.container).await?.state;
            if !state.running {
                let last = LastWords(engine.last_lines(&self.container, LAST_LINES).await);
                return Err(Error::Ended { alias: self.alias.clone(), code: state.exit_code, last });
            }
            let Some(why) = missing else { return Ok(()) };
            if Instant::now() >= deadline {
                let why = self.only_loopback(state.pid).unwrap_or(why);
                let last = LastWords(engine.last_lines(&self.container, LAST_LINES).await);
                return Err(Error::NotReady { alias: self.alias.clone(), limit, why, last });
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = cancel.cancelled() => return Err(Error::Cancelled),
            }
        }
    }

    /// Waits until a line of its output holds `text`, at most for `limit`.
    async fn has_said(
        &self,
        engine: &Engine,
        text: &str,
        limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            // From its beginning: nothing was missed, and one that broke off is taken up again.
            let mut log = engine.follow_log(&self.container);
            let mut searches = [Search::new(text), Search::new(text)];
            let mut look = Instant::now() + LOOK;
            let found = loop {
                tokio::select! {
                    next = log.next() => match next {
                        Some(Ok(LogOutput::StdErr { message })) if searches[1].push(&message) => break true,
                        Some(Ok(LogOutput::StdOut { message } | LogOutput::Console { message }))
                            if searches[0].push(&message) => break true,
                        Some(Ok(_)) => {}
                        Some(Err(_)) | None => break false,
                    },
                    () = sleep_until(look) => {
                        look += LOOK;
                        if !engine.inspect(&self.container).await?.state.running {
                            break false;
                        }
                    }
                    () = sleep_until(deadline) => {
                        let why = format!("its log has no line with {text:?}");
                        let last = LastWords(engine.last_lines(&self.container, LAST_LINES).await);
                        return Err(Error::NotReady { alias: self.alias.clone(), limit, why, last });
                    }
                    () = cancel.cancelled() => return Err(Error::Cancelled),
                }
            };
            let state = engine.inspect(&self.container).await?.state;
            if !state.running {
                let last = LastWords(engine.last_lines(&self.container, LAST_LINES).await);
                return Err(Error::Ended { alias: self.alias.clone(), code: state.exit_code, last });
            }
            if found {
                return Ok(());
            }
            sleep(RETRY).await;
        }
    }

    /// What is still missing, if anything.
    async fn missing(&self, engine: &Engine) -> Result<Option<String>, Error> {
        let (what, check) = match self.wanted.as_ref().map(|wanted| (&wanted.probe, wanted.timeout)) {
            Some((Probe::Command(command), limit)) => {
                let command = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
                ("its command", Some((command, limit)))
            }
            Some(_) => ("", None),
            None => ("its health check", self.health.clone()),
        };
        if let Some((command, limit)) = check {
            return Ok(match engine.command(&self.container, None, &command, limit).await {
                Ok(0) => None,
                Ok(code) => Some(format!("{what} ends with code {code}")),
                Err(engine::Error::TimedOut { limit, .. }) => {
                    Some(format!("{what} takes longer than {} s", limit.as_secs()))
                }
                Err(error) => return Err(error.into()),
            });
        }
        for port in self.wanted_ports() {
            let connected = timeout(TRY, TcpStream::connect((self.address, *port))).await;
            if matches!(connected, Ok(Ok(_))) {
                continue;
            }
            // A rootless engine's network cannot be reached from here; what the service listens on can be read.
            let pid = engine.inspect(&self.container).await?.state.pid;
            if !listens(pid, *port).iter().any(|address| !address.is_loopback()) || !engine.rootless() {
                return Ok(Some(format!("nothing accepts connections on port {port}")));
            }
        }
        Ok(None)
    }

    /// The ports that have to accept connections.
    fn wanted_ports(&self) -> &[u16] {
        match self.wanted.as_ref().map(|wanted| &wanted.probe) {
            Some(Probe::Port(port)) => std::slice::from_ref(port),
            _ => &self.ports,
        }
    }

    /// Says so if the service listens where nobody else can reach it.
    fn only_loopback(&self, pid: i64) -> Option<String> {
        self.wanted_ports().iter().find_map(|port| {
            let addresses = listens(pid, *port);
            let only = !addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback);
            only.then(|| format!("it listens on port {port} of 127.0.0.1 only; let it listen on 0.0.0.0"))
        })
    }
}

/// Looks for a text in a stream, however it is cut into chunks; keeps no more than one text's length of it.
struct Search<'a> {
    text: memmem::Finder<'a>,
    tail: Vec<u8>,
}

impl<'a> Search<'a> {
    fn new(text: &'a str) -> Search<'a> {
        Search { text: memmem::Finder::new(text), tail: Vec::new() }
    }

    /// Whether it has come by now.
    fn push(&mut self, chunk: &[u8]) -> bool {
        self.tail.extend_from_slice(chunk);
        let found = self.text.find(&self.tail).is_some();
        let keep = self.text.needle().len().saturating_sub(1).min(self.tail.len());
        self.tail.drain(..self.tail.len() - keep);
        found
    }
}

/// The addresses on which the network namespace of process `pid` listens on `port`, from /proc/PID/net/tcp and tcp6
/// (proc_pid_net(5)); none where they cannot be read.
fn listens(pid: i64, port: u16) -> Vec<IpAddr> {
    if pid <= 0 {
        return Vec::new();
    }
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    [read("tcp"), read("tcp6")]
        .iter()
        .flat_map(|table| table.lines().skip(1))
        .filter_map(|row| listener(row, port))
        .collect()
}

fn listener(row: &str, port: u16) -> Option<IpAddr> {
    const LISTEN: &str = "0A";
    let mut columns = row.split_whitespace().skip(1);
    let (address, local_port) = columns.next()?.split_once(':')?;
    let state = columns.nth(1)?;
    if state != LISTEN || u16::from_str_radix(local_port, 16).ok()? != port {
        return None;
    }
    // Words of four bytes in the machine's order.
    let word = |at: usize| u32::from_str_radix(address.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match address.len() {
        8 => Some(IpAddr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::from(bytes).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn reads_listeners() {
        for (row, want) in [
            ("0: 0100007F:18EB 00000000:0000 0A 0:0 0:0 0 0 0 1", Some("127.0.0.1")),
            ("0: 00000000:18EB 00000000:0000 0A 0:0 0:0 0 0 0 1", Some("0.0.0.0")),
            ("0: 00000000:18EC 00000000:0000 0A 0:0", None),
            ("0: 00000000:18EB 0100007F:0000 01 0:0", None),
            ("0: 00000000000000000000000000000000:18EB 0:0 0A", Some("::")),
            ("0: 00000000000000000000000001000000:18EB 0:0 0A", Some("::1")),
            ("nonsense", None),
        ] {
            assert_eq!(listener(row, 6379), want.map(|a| a.parse().unwrap()), "{row}");
        }
    }

    #[test]
    fn a_text_is_found_however_it_comes() {
        let log = b"one\nready to go\nnot ready\n";
        for cut in 0..log.len() {
            for other in cut..log.len() {
                let mut search = Search::new("ready to");
                let found = [&log[..cut], &log[cut..other], &log[other..]].map(|chunk| search.push(chunk));
                assert!(found.contains(&true), "{cut} {other}");
                assert!(search.tail.len() < "ready to".len());
            }
        }
        let mut search = Search::new("ready to");
        assert!(!search.push(b"ready \n") && !search.push(b"to\nread"));
    }

    #[test]
    fn knows_ports() {
        let config = |ports: &[&str]| BoxConfig {
            ports: ports.iter().map(|p| (*p).to_owned()).collect(),
            ..BoxConfig::default()
        };
        let image = ImageConfig {
            exposed_ports: Some(vec!["6379/tcp".into(), "53/udp".into()]),
            ..ImageConfig::default()
        };
        assert_eq!(ports(&config(&[]), &image), [6379]);
        assert_eq!(ports(&config(&["127.0.0.1:8080:80", "5", "9/udp"]), &image), [5, 80]);
    }
}
