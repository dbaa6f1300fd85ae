//! What the steps run in: images, the network, services and the box.
//!
//! Guarantees: all that is made carries the run's labels, so that it can be removed by them.
//!
//! It must not know what the steps do.

use std::path::Path;

use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, ImageConfig};
use sealift_model::EventKind;
use tokio::time::Instant;

use super::{Error, Leave, Run, SWEEP, millis};
use crate::config::{BoxConfig, Pipeline};
use crate::engine;
use crate::env::{self, Env};
use crate::layout::Layout;
use crate::pull::{self, Tell};
use crate::registry;
use crate::service::{self, Service};
use crate::session::{self, CONTROL, Session};
use crate::shell;

impl Tell for Run {
    async fn note(&self, text: String) {
        self.tell(EventKind::Note { text }).await;
    }

    async fn warn(&self, text: String) {
        self.tell(EventKind::Warning { text }).await;
    }
}

impl Run {
    /// The image's configuration; pulls the image if it is not there.
    pub(super) async fn image(
        &self,
        image: &str,
        config: &BoxConfig,
        env: &Env,
    ) -> Result<ImageConfig, Error> {
        let option = |key: &str| config.option(key).map(|value| env.fill(value));
        tokio::select! {
            image = pull::ensure(&self.engine, image, &option, self.spec.logins(), self) => Ok(image?),
            () = self.cancel.cancelled() => Err(Error::Cancelled),
        }
    }

    pub(super) async fn create_network(&self, network: &str) -> Result<(), Error> {
        let created = self.engine.create_network(network, self.labels("network")).await;
        if let Err(engine::Error::Refused { .. }) = &created {
            // Left by a run of the same name that crashed.
            self.clean_up().await?;
            return Ok(self.engine.create_network(network, self.labels("network")).await?);
        }
        Ok(created?)
    }

    pub(super) async fn services(
        &self,
        pipeline: &Pipeline,
        env: &Env,
        network: &str,
        layout: &Layout,
    ) -> Result<Vec<Service>, Error> {
        let mut services: Vec<Service> = Vec::new();
        let configs = self.config.services_of(pipeline);
        for config in configs {
            self.check()?;
            let built = self.built_service(config, env, layout).await?;
            let image = built.unwrap_or_else(|| image_of(config, env));
            let alias = config.alias();
            let image_config = self.image(&image, config, env).await?;
            self.note(format!("starting service {alias} ({image})")).await;
            let place = service::Place {
                container: self.container_name(Some(&format!("{}-{alias}", services.len()))),
                network,
                labels: self.labels("service"),
                earlier: &services,
                leave: self.leave_of_service(config, configs.len(), env).await?,
            };
            let service = service::start(&self.engine, config, &image, &image_config, env, place).await?;
            services.push(service);
        }
        for service in &services {
            let started = Instant::now();
            service.ready(&self.engine, self.spec.tuning.service_limit, &self.cancel).await?;
            let alias = &service.alias;
            let text = match service.awaited() {
                Some(what) => {
                    format!("service {alias} is ready: {what} answered after {} ms", millis(started))
                }
                None => format!("service {alias} runs; it exposes no ports, so nothing was waited for"),
            };
            self.note(text).await;
        }
        Ok(services)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one container, used once")]
    pub(super) async fn create_box(
        &self,
        the_box: &BoxConfig,
        image: &str,
        root: &str,
        env: &Env,
        layout: &Layout,
        network: &str,
        container: &str,
        hosts: Vec<String>,
        leave: Leave,
    ) -> Result<(), Error> {
        let mut binds =
            vec![bind(&layout.pipeline, "/pipeline", "rw")?, bind(&layout.control, CONTROL, "ro")?];
        if !layout.source.starts_with(&layout.pipeline) {
            binds.push(bind(&layout.source, "/pipeline/source", "rw")?);
        }
        if root != "/pipeline/source" {
            binds.push(bind(&layout.source, root, "rw")?);
        }
        let (entrypoint, cmd) = session::command(&shell_of(the_box, env));
        let mut host = HostConfig {
            binds: Some(binds),
            network_mode: Some(network.to_owned()),
            extra_hosts: Some(hosts),
            // We hear all of it; nobody is to write it to a disk as well.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..service::limits(the_box)
        };
        let (open, _) = env::of_box_by_secrecy(the_box, env, &self.spec.hidden_env);
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            exposed_ports: leave.grant(&mut host),
            entrypoint: Some(entrypoint),
            cmd: Some(cmd),
            open_stdin: Some(true),
            env: Some(open),
            labels: Some(self.labels("box")),
            working_dir: Some("/".to_owned()),
            user: the_box.user.clone(),
            networking_config: service::names(the_box, network),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        };
        Ok(self.engine.create(container, body).await?)
    }

    /// Files that root in the box made belong to root on this machine as well; hand them to the user we are, so that
    /// they can be read and removed. The session can do that if the box's user is root.
    pub(super) async fn give_back(&self, container: &str, root: bool, session: &mut Session) {
        if rustix::process::geteuid().is_root() {
            return;
        }
        let (uid, gid) = if self.engine.rootless() {
            (0, 0)
        } else {
            (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
        };
        let owner = format!("{uid}:{gid}");
        if root {
            match session.give_back(&owner).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "cannot hand the files back by the session"),
            }
        }
        let give = format!("kill -9 -1; chown -R {owner} /pipeline");
        match self
            .engine
            .command(container, Some("0"), &["/bin/sh", "-c", &give].map(str::to_owned), SWEEP)
            .await
        {
            Ok(0) => {}
            Ok(code) => tracing::debug!(code, "cannot hand the files back"),
            Err(error) => tracing::debug!(%error, "cannot hand the files back"),
        }
    }
}

fn bind(from: &Path, to: &str, mode: &str) -> Result<String, Error> {
    for path in [&*from.to_string_lossy(), to] {
        if path.contains(':') || !path.starts_with('/') {
            return Err(Error::Path { path: path.to_owned() });
        }
    }
    // `z`: where SELinux is on, the container may use it.
    Ok(format!("{}:{to}:{mode},z", from.display()))
}

pub(super) fn image_of(config: &BoxConfig, env: &Env) -> String {
    let image = config.image(&|name| env.get(name).map(str::to_owned));
    registry::qualify(&image, &|key| config.option(key).map(|value| env.fill(value)))
}

/// The box's own `entrypoint` and `cmd` are the shell that the steps are fed to.
fn shell_of(config: &BoxConfig, env: &Env) -> Vec<String> {
    let parts = [&config.entrypoint, &config.cmd];
    parts.into_iter().flatten().flat_map(|part| shell::split(&env.fill(part))).collect()
}
