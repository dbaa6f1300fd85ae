//! What a container gets of this machine: directories, ports, memory, the engine. None of it without leave.
//!
//! It must not know what runs in the containers.

use std::collections::HashMap;

use bollard::models::{HostConfig, PortBinding};

use super::{Error, Run};
use crate::config::{BoxConfig, Pipeline};
use crate::env::Env;
use crate::pull::Tell;

/// Where the engine's socket is in a box with `docker: true`.
const SOCKET: &str = "/var/run/docker.sock";

/// Ports of a container on this machine.
#[derive(Debug, Default)]
pub(crate) struct Publishing {
    pub(crate) bindings: HashMap<String, Option<Vec<PortBinding>>>,
    pub(crate) exposed: Vec<String>,
}

impl Publishing {
    /// Reads `[ip:][host:]container[/proto]`; without `host` it is the same number on both sides.
    pub(crate) fn of(ports: &[String]) -> Result<Publishing, String> {
        let mut publishing = Publishing::default();
        for port in ports {
            let wrong = || format!("`{port}` is not of the form [ip:][host:]container[/proto]");
            let (rest, proto) = port.split_once('/').unwrap_or((port, "tcp"));
            let (ip, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once("]:")) {
                Some((ip, rest)) => (ip, rest),
                None => ("", rest),
            };
            let parts: Vec<&str> = rest.split(':').collect();
            let (ip, host, container) = match parts[..] {
                [container] => (ip, container, container),
                [host, container] => (ip, if host.is_empty() { container } else { host }, container),
                [ip, host, container] => (ip, if host.is_empty() { container } else { host }, container),
                _ => return Err(wrong()),
            };
            let number = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
            let known = matches!(proto, "tcp" | "udp" | "sctp");
            if !number(host)
                || !number(container)
                || !known
                || !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err()
            {
                return Err(wrong());
            }
            let name = format!("{container}/{proto}");
            let binding = PortBinding {
                host_ip: (!ip.is_empty()).then(|| ip.to_owned()),
                host_port: Some(host.to_owned()),
            };
            publishing.bindings.entry(name.clone()).or_default().get_or_insert_default().push(binding);
            if !publishing.exposed.contains(&name) {
                publishing.exposed.push(name);
            }
        }
        Ok(publishing)
    }
}

/// What one container gets.
#[derive(Debug, Default)]
pub(crate) struct Leave {
    binds: Vec<String>,
    publishing: Publishing,
    /// In bytes.
    memory: Option<i64>,
    privileged: bool,
}

impl Leave {
    /// Adds it to a container's description; the ports that it exposes are the answer.
    pub(crate) fn grant(self, host: &mut HostConfig) -> Option<Vec<String>> {
        host.binds.get_or_insert_default().extend(self.binds);
        host.memory = [host.memory, self.memory].into_iter().flatten().min();
        host.privileged = self.privileged.then_some(true);
        if self.publishing.exposed.is_empty() {
            return None;
        }
        host.port_bindings = Some(self.publishing.bindings);
        Some(self.publishing.exposed)
    }
}

impl Run {
    /// What the box gets. With `docker: true`, `env` says where the engine is.
    pub(super) async fn leave_of_box(
        &self,
        pipeline: &Pipeline,
        the_box: &BoxConfig,
        env: &mut Env,
        network: &str,
    ) -> Result<Leave, Error> {
        let services = self.config.services_of(pipeline).len();
        let mut leave = self.leave(the_box, env, if services == 0 { (1, 1) } else { (3, 4) }).await?;
        if !pipeline.docker {
            return Ok(leave);
        }
        if !self.spec.allow_docker {
            let message = format!(
                "pipeline {} wants this machine's container engine for itself (`docker: true`), which gives it the \
                 whole machine; the run does not allow it (`--allow-docker` does)",
                pipeline.name
            );
            return Err(Error::Unusable { message });
        }
        match self.engine.address().strip_prefix("unix://") {
            Some(socket) => {
                leave.binds.push(format!("{socket}:{SOCKET}:rw"));
                env.set("DOCKER_HOST", format!("unix://{SOCKET}"));
            }
            None => env.set("DOCKER_HOST", self.engine.address()),
        }
        env.set("DOCKER_NETWORK_NAME", network);
        leave.privileged = true;
        Ok(leave)
    }

    /// What one of the services gets.
    pub(super) async fn leave_of_service(
        &self,
        config: &BoxConfig,
        services: usize,
        env: &Env,
    ) -> Result<Leave, Error> {
        self.leave(config, env, (1, 4 * u64::try_from(services).unwrap_or(1).max(1))).await
    }

    async fn leave(&self, config: &BoxConfig, env: &Env, (part, of): (u64, u64)) -> Result<Leave, Error> {
        let mut leave = Leave::default();
        let volumes = env.fill(config.option("volumes").unwrap_or_default());
        let volumes = volumes.split([',', ' ', '\n']).filter(|volume| !volume.is_empty());
        for volume in volumes {
            if !self.spec.enable_volumes {
                self.warn(format!(
                    "the volume {volume} is not mounted: the run does not allow it (`--enable-volumes` does)"
                ))
                .await;
                continue;
            }
            let (from, to) = volume.split_once(':').unwrap_or((volume, volume));
            if ![from, to].iter().all(|path| path.starts_with('/') && !path.contains(':')) {
                return Err(Error::Path { path: volume.to_owned() });
            }
            leave.binds.push(format!("{from}:{to}:rw"));
        }
        if self.spec.expose_ports {
            let ports: Vec<String> = config.ports.iter().map(|port| env.fill(port)).collect();
            leave.publishing = Publishing::of(&ports).map_err(|message| Error::Unusable { message })?;
        }
        leave.memory = self.spec.memory.and_then(|memory| i64::try_from(memory / of * part).ok());
        Ok(leave)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ports() {
        for (port, want) in [
            ("80", Some(("80/tcp", "", "80"))),
            ("8080:80", Some(("80/tcp", "", "8080"))),
            ("127.0.0.1:8080:80/udp", Some(("80/udp", "127.0.0.1", "8080"))),
            ("127.0.0.1::80", Some(("80/tcp", "127.0.0.1", "80"))),
            ("[::1]:8080:80", Some(("80/tcp", "::1", "8080"))),
            ("", None),
            ("a", None),
            ("1:2:3:4", None),
            ("80/http", None),
            ("0", None),
        ] {
            let got = Publishing::of(&[port.to_owned()]).ok();
            let got = got.map(|publishing| {
                let binding = publishing.bindings[&publishing.exposed[0]].as_ref().unwrap()[0].clone();
                (
                    publishing.exposed[0].clone(),
                    binding.host_ip.unwrap_or_default(),
                    binding.host_port.unwrap(),
                )
            });
            assert_eq!(got, want.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())), "{port}");
        }
    }
}
