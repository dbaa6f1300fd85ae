//! The container engine: Docker or Podman through the Docker-compatible API, whichever answers.
//!
//! Guarantees: every call ends, by an answer or by a limit of time; what it makes carries labels, so that it can be
//! found again after a crash. A Podman service that this program had to start ends with the last [`Engine`].
//!
//! It must not know what is run in the containers.

mod images;
mod interactive;
mod wire;

use std::collections::HashMap;
use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error as ApiError;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::models::{ContainerCreateBody, ImageConfig, NetworkCreateRequest, ResourcesUlimits};
use bollard::query_parameters as query;
use bollard::{API_DEFAULT_VERSION, Docker};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use rustix::process::{Resource, getrlimit};
use tokio::time::{Instant, sleep, timeout};

use crate::lenient::{self, Container};
use crate::podman::{self, Service};

pub(crate) use images::is_passing;
pub use interactive::{Interactive, Resizer};
pub(crate) use wire::{Answer, Body, stream as body_of};

/// For calls that engines answer at once.
const QUICK: Duration = Duration::from_secs(20);
/// For calls that make or remove something, on a loaded machine.
const SLOW: Duration = Duration::from_secs(60);
/// How long a container that has just ended may be in the way of its own removal, and how often to try.
const SETTLE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(50);
/// For the first word of an engine that may not be there.
const PROBE: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no container engine answers (looked at {}); install one: `apt-get install podman`, or Docker",
        looked.join(", ")
    )]
    NoEngine { looked: Vec<String> },
    #[error("cannot start the podman service")]
    Podman(#[source] podman::Error),
    #[error("the engine at {address} does not answer: {reason}")]
    Silent { address: String, reason: String },
    #[error("{what}: {answer}")]
    Refused { what: String, answer: String },
    #[error("{what}: the connection to the engine failed")]
    Connection {
        what: String,
        #[source]
        source: ApiError,
    },
    #[error("{what}")]
    Answer {
        what: String,
        #[source]
        source: lenient::Error,
    },
    #[error("{what}: no answer from the engine within {} s", limit.as_secs())]
    TimedOut { what: String, limit: Duration },
}

/// Where to look for an engine. All that would come from the environment comes in here.
#[derive(Debug, Clone, Default)]
pub struct EngineOptions {
    /// An address to use and no other: `unix:///path` or `tcp://host:port`.
    pub address: Option<String>,
    /// The value of `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// The value of `XDG_RUNTIME_DIR`.
    pub xdg_runtime_dir: Option<PathBuf>,
    /// The value of `PATH`, to look for podman on.
    pub path: OsString,
    /// A private directory for the socket of a podman service that has to be started. The service is found there
    /// again by the next program, should this one be killed.
    pub socket_dir: PathBuf,
}

/// An engine that has answered. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    address: String,
    name: String,
    /// The version of the interface that the engine and bollard agreed on, such as `v1.41`.
    version: String,
    podman: bool,
    rootless: bool,
    shares_mounts: bool,
    /// Kept for its end: the last one who drops it stops the service.
    _service: Option<Service>,
}

impl Engine {
    /// Finds an engine: the given address; else `DOCKER_HOST`, Docker's sockets, Podman's sockets; else a podman
    /// service is started.
    ///
    /// # Errors
    /// [`Error::NoEngine`] says what was looked at.
    pub async fn connect(options: &EngineOptions) -> Result<Engine, Error> {
        let given =
            options.address.as_ref().or(options.docker_host.as_ref()).filter(|given| !given.is_empty());
        if let Some(address) = given {
            // Whoever names an engine wants that one: another would run the steps in the wrong place.
            return Engine::probe(address, None)
                .await
                .map_err(|reason| Error::Silent { address: address.clone(), reason });
        }
        let mut sockets = vec![
            PathBuf::from("/run/docker.sock"),
            "/var/run/docker.sock".into(),
            "/run/podman/podman.sock".into(),
        ];
        sockets.extend(options.xdg_runtime_dir.as_ref().map(|dir| dir.join("podman/podman.sock")));
        let own = options.socket_dir.join(podman::SOCKET);
        let binary = podman::find("podman", &options.path);
        if binary.is_none() {
            // One that somebody else keeps there.
            sockets.push(own.clone());
        }
        let mut looked = Vec::new();
        for socket in sockets {
            let address = format!("unix://{}", socket.display());
            match Engine::probe(&address, None).await {
                Ok(engine) => return Ok(engine),
                Err(reason) => looked.push(format!("{}: {reason}", socket.display())),
            }
        }
        let Some(binary) = binary else {
            looked.push("podman on PATH: not there".to_owned());
            return Err(Error::NoEngine { looked });
        };
        let service = Service::share(&binary, &options.path, &own).await.map_err(Error::Podman)?;
        let address = format!("unix://{}", own.display());
        Engine::probe(&address, Some(service)).await.map_err(|reason| Error::Silent { address, reason })
    }

    async fn probe(address: &str, service: Option<Service>) -> Result<Engine, String> {
        let limit = SLOW.as_secs();
        let mut peer = None;
        let docker = match address.strip_prefix("unix://") {
            // Connecting says clearly whether there is a socket, whether we may use it, and whether somebody listens.
            Some(path) => {
                let connected = timeout(PROBE, tokio::net::UnixStream::connect(path)).await;
                let stream =
                    connected.map_err(|_| "does not answer".to_owned())?.map_err(|e| e.to_string())?;
                peer = stream.peer_cred().ok();
                Docker::connect_with_unix(path, limit, API_DEFAULT_VERSION)
            }
            None => Docker::connect_with_http(address, limit, API_DEFAULT_VERSION),
        };
        let docker = docker.map_err(|e| e.to_string())?;
        let docker = timeout(PROBE, docker.negotiate_version()).await;
        let docker = docker.map_err(|_| "does not answer".to_owned())?.map_err(|e| e.to_string())?;
        let version = timeout(PROBE, docker.version()).await;
        let version = version.map_err(|_| "does not answer".to_owned())?.map_err(|e| e.to_string())?;
        let podman = version.components.iter().flatten().any(|part| part.name.starts_with("Podman"));
        let rootless = match peer.filter(|_| podman) {
            // Whose process it is says it. Podman's own answer takes long: it asks the package manager about its parts.
            Some(peer) => peer.uid() != 0,
            None => {
                let info = timeout(PROBE, docker.info()).await;
                let info = info.map_err(|_| "does not answer".to_owned())?.map_err(|e| e.to_string())?;
                info.security_options.iter().flatten().any(|option| option.contains("rootless"))
            }
        };
        let shares_mounts = !rootless && peer.and_then(|peer| peer.pid()).is_some_and(sees_our_mounts);
        let kind = if podman { "Podman" } else { "Docker" };
        let name = format!("{kind} {}", version.version.unwrap_or_default());
        tracing::debug!(address, name, rootless, "container engine");
        let address = address.to_owned();
        let version = docker.client_version();
        let version = format!("v{}.{}", version.major_version, version.minor_version);
        Ok(Engine {
            docker,
            inner: Arc::new(Inner {
                address,
                name,
                version,
                podman,
                rootless,
                shares_mounts,
                _service: service,
            }),
        })
    }

    /// Name and version, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    #[must_use]
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    /// Whether root in a container is an ordinary user of this machine.
    pub(crate) fn rootless(&self) -> bool {
        self.inner.rootless
    }

    /// Whether containers see what we mount.
    pub(crate) fn shares_mounts(&self) -> bool {
        self.inner.shares_mounts
    }

    /// The image's configuration; none where the engine has not got the image.
    pub(crate) async fn image(&self, image: &str) -> Result<Option<ImageConfig>, Error> {
        self.inspect_image(image).await.map(|found| found.map(|(_, config)| config))
    }

    /// Which image goes by this name; none where the engine has not got one.
    pub(crate) async fn image_id(&self, image: &str) -> Result<Option<String>, Error> {
        self.inspect_image(image).await.map(|found| found.map(|(id, _)| id))
    }

    async fn inspect_image(&self, image: &str) -> Result<Option<(String, ImageConfig)>, Error> {
        let what = || format!("cannot look for image {image}");
        let deadline = Instant::now() + SETTLE;
        loop {
            match within(QUICK, what, self.docker.inspect_image(image)).await {
                Ok(found) => {
                    return Ok(Some((found.id.unwrap_or_default(), found.config.unwrap_or_default())));
                }
                Err(Error::Refused { answer, .. }) if answer.starts_with("404") => return Ok(None),
                // Podman stumbles over a name that goes to another image at this moment.
                Err(Error::Refused { answer, .. })
                    if answer.contains("image not known") && Instant::now() < deadline =>
                {
                    sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) async fn create_network(
        &self,
        name: &str,
        labels: HashMap<String, String>,
    ) -> Result<(), Error> {
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        let what = || format!("cannot create network {name}");
        within(SLOW, what, self.docker.create_network(request)).await.map(drop)
    }

    pub(crate) async fn remove_network(&self, name: &str) -> Result<(), Error> {
        let what = || format!("cannot remove network {name}");
        gone_is_fine(within(SLOW, what, self.docker.remove_network(name)).await)
    }

    pub(crate) async fn create(&self, name: &str, mut body: ContainerCreateBody) -> Result<(), Error> {
        if self.inner.podman {
            // Podman asks for more than a process without CAP_SYS_RESOURCE may give to its children, and the
            // container would not start; Docker's own process always may.
            body.host_config.get_or_insert_default().ulimits = Some(own_limits());
        }
        // Removing is killing: no grace for processes that do not listen to signals.
        body.stop_timeout = Some(0);
        let options = query::CreateContainerOptionsBuilder::default().name(name).build();
        let what = || format!("cannot create container {name}");
        within(SLOW, what, self.docker.create_container(Some(options), body)).await.map(drop)
    }

    pub(crate) async fn start(&self, name: &str) -> Result<(), Error> {
        let what = || format!("cannot start container {name}");
        let options = None::<query::StartContainerOptions>;
        within(SLOW, what, self.docker.start_container(name, options)).await
    }

    /// Kills what runs in a container, if anything does, and starts it again.
    pub(crate) async fn restart(&self, name: &str) -> Result<(), Error> {
        let options = query::RestartContainerOptionsBuilder::default().t(0).build();
        let what = || format!("cannot restart container {name}");
        within(SLOW, what, self.docker.restart_container(name, Some(options))).await
    }

    pub(crate) async fn inspect(&self, name: &str) -> Result<Container, Error> {
        let what = || format!("cannot inspect container {name}");
        read(what, lenient::container(&self.inner.address, &self.inner.version, name)).await
    }

    /// Kills and removes a container at once, with its anonymous volumes.
    pub(crate) async fn remove(&self, name: &str) -> Result<(), Error> {
        let what = || format!("cannot remove container {name}");
        let deadline = Instant::now() + SETTLE;
        loop {
            let options = query::RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            let removed = within(SLOW, what, self.docker.remove_container(name, Some(options))).await;
            match gone_is_fine(removed) {
                // Podman refuses it for the moment in which a container that ended by itself is put away.
                Err(Error::Refused { .. }) if Instant::now() < deadline => sleep(RETRY).await,
                result => return result,
            }
        }
    }

    /// Names of the containers and networks that carry a label (`key=value`).
    pub(crate) async fn labelled(&self, label: &str) -> Result<(Vec<String>, Vec<String>), Error> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let what = || "cannot list containers".to_owned();
        let containers =
            read(what, lenient::containers(&self.inner.address, &self.inner.version, label)).await?;
        let options = query::ListNetworksOptionsBuilder::default().filters(&filters).build();
        let what = || "cannot list networks".to_owned();
        let networks = within(QUICK, what, self.docker.list_networks(Some(options))).await?;
        let containers = containers.into_iter().map(|container| container.id).collect();
        Ok((containers, networks.into_iter().filter_map(|network| network.name).collect()))
    }

    /// The last lines that a container wrote.
    pub(crate) async fn last_lines(&self, name: &str, lines: usize) -> String {
        let options =
            query::LogsOptionsBuilder::default().stdout(true).stderr(true).tail(&lines.to_string()).build();
        let collect = async {
            let mut text = String::new();
            let mut stream = std::pin::pin!(self.docker.logs(name, Some(options)));
            while let Some(Ok(output)) = stream.next().await {
                text.push_str(&String::from_utf8_lossy(output.as_ref()));
            }
            text
        };
        timeout(QUICK, collect).await.unwrap_or_default().trim_end().to_owned()
    }

    /// What a container has written from its start on, and what it writes now.
    pub(crate) fn follow_log(
        &self,
        name: &str,
    ) -> BoxStream<'static, Result<bollard::container::LogOutput, ApiError>> {
        let options = query::LogsOptionsBuilder::default().stdout(true).stderr(true).follow(true).build();
        self.docker.logs(name, Some(options)).boxed()
    }

    /// Takes hold of the streams of a container's main process, which need not have been started yet.
    pub(crate) async fn attach(&self, container: &str) -> Result<Attached, Error> {
        let options = query::AttachContainerOptionsBuilder::default()
            .stream(true)
            .stdin(true)
            .stdout(true)
            .stderr(true)
            // Podman looks for them even where there is no terminal, and lets go in the middle of somebody's value.
            .detach_keys("")
            .build();
        let what = || format!("cannot attach to container {container}");
        let attached = within(SLOW, what, self.docker.attach_container(container, Some(options))).await?;
        Ok(Attached { output: attached.output, input: attached.input })
    }

    /// Runs a short command in a container and waits for its end; its output is thrown away.
    pub(crate) async fn command(
        &self,
        container: &str,
        user: Option<&str>,
        command: &[String],
        limit: Duration,
    ) -> Result<i64, Error> {
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            user: user.map(str::to_owned),
            cmd: Some(command.to_vec()),
            ..CreateExecOptions::default()
        };
        let what = || format!("cannot run {} in container {container}", command.join(" "));
        let run = async {
            let id = within(QUICK, what, self.docker.create_exec(container, options)).await?.id;
            let started = within(SLOW, what, self.docker.start_exec(&id, None)).await?;
            if let StartExecResults::Attached { mut output, .. } = started {
                while let Some(Ok(_)) = output.next().await {}
            }
            let ended = within(QUICK, what, self.docker.inspect_exec(&id)).await?;
            Ok(ended.exit_code.unwrap_or(-1))
        };
        timeout(limit, run).await.map_err(|_| Error::TimedOut { what: what(), limit })?
    }
}

/// The streams of a container's main process.
pub(crate) struct Attached {
    pub(crate) output: BoxStream<'static, Result<bollard::container::LogOutput, ApiError>>,
    pub(crate) input: std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>,
}

async fn within<T>(
    limit: Duration,
    what: impl Fn() -> String,
    call: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, Error> {
    match timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ApiError::DockerResponseServerError { status_code, message })) => {
            Err(Error::Refused { what: what(), answer: format!("{status_code} {}", message.trim()) })
        }
        Ok(Err(source)) => Err(Error::Connection { what: what(), source }),
        Err(_) => Err(Error::TimedOut { what: what(), limit }),
    }
}

async fn read<T>(
    what: impl Fn() -> String,
    call: impl Future<Output = Result<T, lenient::Error>>,
) -> Result<T, Error> {
    match timeout(QUICK, call).await {
        Ok(answer) => answer.map_err(|source| Error::Answer { what: what(), source }),
        Err(_) => Err(Error::TimedOut { what: what(), limit: QUICK }),
    }
}

fn gone_is_fine(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Refused { answer, .. }) if answer.starts_with("404") => Ok(()),
        other => other,
    }
}

/// Whether a process lives in our mount namespace.
fn sees_our_mounts(pid: i32) -> bool {
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/mnt"));
    matches!((namespace("self"), namespace(&pid.to_string())), (Ok(ours), Ok(its)) if ours == its)
}

/// The most that a process like ours may hand on.
fn own_limits() -> Vec<ResourcesUlimits> {
    let hard = |resource| getrlimit(resource).maximum.and_then(|hard| i64::try_from(hard).ok());
    // Podman lowers its own limit of processes to the kernel's.
    let pid_max =
        std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    let nproc = [hard(Resource::Nproc), pid_max].into_iter().flatten().min();
    [("nofile", hard(Resource::Nofile)), ("nproc", nproc)]
        .into_iter()
        .filter_map(|(name, limit)| {
            let limit = limit?;
            Some(ResourcesUlimits { name: Some(name.to_owned()), soft: Some(limit), hard: Some(limit) })
        })
        .collect()
}
