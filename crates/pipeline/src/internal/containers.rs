//! `internal/docker-run` and `internal/docker-kill`: containers beside the box, for as long as the run takes.
//!
//! Guarantees: such a container carries the run's labels and goes with the run, if no step removes it before.
//!
//! It must not know what runs in them.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, EndpointSettings, HostConfig, NetworkingConfig};

use super::properties::Properties;
use super::{Context, Error};
use crate::config::BoxConfig;
use crate::leftovers;
use crate::pull::{self, Tell};
use crate::registry;
use crate::run::Publishing;

pub(super) async fn run(properties: &Properties<'_>, context: &Context<'_>) -> Result<(), Error> {
    let alias = properties.needed("name")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !alias.chars().all(plain) || alias.len() > 63 || alias.starts_with(['-', '.']) {
        let why = format!("`{alias}` is no name of a host: letters, digits, `-`, `_` and `.`");
        return Err(Error::Property { name: "name", why });
    }
    if context.made.things().containers.contains_key(&alias) {
        let why = format!("a container {alias} runs already; internal/docker-kill ends it");
        return Err(Error::Property { name: "name", why });
    }
    let given = properties.needed("image")?;
    let option = |key: &str| properties.option(key);
    let image = match context.made.built(&given) {
        Some(built) => built,
        None => {
            let config = BoxConfig { id: given, ..BoxConfig::default() };
            registry::qualify(&config.image(&|_| None), &option)
        }
    };
    pull::ensure(context.engine, &image, &option, &context.spec.auth_files, context).await?;

    let words = |key: &str| Some(properties.words(key)).filter(|words| !words.is_empty());
    let env = properties.pairs("env")?.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let ports = properties.list("ports");
    let mut host = HostConfig {
        network_mode: Some(context.network.to_owned()),
        extra_hosts: Some(context.hosts.to_vec()),
        ..HostConfig::default()
    };
    let mut exposed = None;
    if context.spec.expose_ports {
        let publishing = Publishing::of(&ports).map_err(|why| Error::Property { name: "ports", why })?;
        host.port_bindings = Some(publishing.bindings);
        exposed = Some(publishing.exposed);
    } else if !ports.is_empty() {
        context
            .warn(format!(
                "the ports of {alias} are not published: the run does not allow it (`--expose-ports` does)"
            ))
            .await;
    }
    let endpoint = EndpointSettings { aliases: Some(vec![alias.clone()]), ..EndpointSettings::default() };
    let body = ContainerCreateBody {
        image: Some(image.clone()),
        cmd: words("cmd"),
        entrypoint: words("entrypoint"),
        env: Some(env),
        working_dir: properties.text("working-dir"),
        user: properties.text("user"),
        hostname: Some(alias.clone()),
        exposed_ports: exposed,
        labels: Some(leftovers::labels(&context.spec.key, &context.spec.owner, "container")),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(context.network.to_owned(), endpoint)])),
        }),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    };
    let name = format!("{}-run-{alias}", context.prefix);
    context.engine.create(&name, body).await?;
    context.made.things().containers.insert(alias.clone(), name.clone());
    context.engine.start(&name).await?;
    context.say(format!("started {alias} ({image})")).await;
    Ok(())
}

pub(super) async fn kill(properties: &Properties<'_>, context: &Context<'_>) -> Result<(), Error> {
    let alias = properties.needed("name")?;
    let known = context.made.things().containers.get(&alias).cloned();
    let Some(name) = known else {
        let mut known: Vec<String> = context.made.things().containers.keys().cloned().collect();
        known.sort();
        let there = if known.is_empty() { "none does".to_owned() } else { known.join(", ") };
        let why = format!("no container {alias} runs; {there}");
        return Err(Error::Property { name: "name", why });
    };
    context.engine.remove(&name).await?;
    context.made.things().containers.remove(&alias);
    context.say(format!("removed {alias}")).await;
    Ok(())
}
