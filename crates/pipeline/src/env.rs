//! The variables that a pipeline's steps find.
//!
//! Differs from the reference on purpose: `CI=true` in every pipeline, and `WERCKER_REPORT_DIR` is where the reports
//! really are. Values arrive as they are; nothing in them is filled in by a shell.
//!
//! It must not know how they get into the container.

use crate::config::{BoxConfig, interpolate};
use crate::shell;
use crate::spec::RunSpec;

/// A list of variables in which a later value replaces an earlier one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env(Vec<(String, String)>);

impl From<Vec<(String, String)>> for Env {
    /// Of names that differ.
    fn from(entries: Vec<(String, String)>) -> Env {
        Env(entries)
    }
}

impl Env {
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn entries(&self) -> &[(String, String)] {
        &self.0
    }

    /// `text` with `$NAME` filled in from here.
    pub(crate) fn fill(&self, text: &str) -> String {
        interpolate(text, &|name| self.get(name).map(str::to_owned))
    }
}

/// What every pipeline has, and what the caller adds. Names that no shell takes are left out and handed back.
pub(crate) fn base(spec: &RunSpec, source_dir: &str) -> (Env, Vec<String>) {
    let mut env = Env::default();
    for (name, value) in [
        ("WERCKER", "true"),
        ("CI", "true"),
        ("TERM", "xterm-256color"),
        ("WERCKER_ROOT", "/pipeline/source"),
        ("WERCKER_SOURCE_DIR", source_dir),
        ("WERCKER_CACHE_DIR", "/pipeline/cache"),
        ("WERCKER_OUTPUT_DIR", "/pipeline/output"),
        ("WERCKER_PIPELINE_DIR", "/pipeline"),
        ("WERCKER_REPORT_DIR", "/pipeline/report"),
        ("WERCKER_APPLICATION_ID", &spec.project),
        ("WERCKER_APPLICATION_NAME", spec.project.rsplit('/').next().unwrap_or_default()),
        ("WERCKER_APPLICATION_OWNER_NAME", &spec.git.owner),
        ("WERCKER_APPLICATION_URL", ""),
        ("WERCKER_STARTED_BY", &spec.started_by),
        ("WERCKER_RUN_ID", &spec.run_id),
        ("WERCKER_RUN_URL", ""),
        ("WERCKER_GIT_DOMAIN", &spec.git.domain),
        ("WERCKER_GIT_OWNER", &spec.git.owner),
        ("WERCKER_GIT_REPOSITORY", &spec.git.repository),
        ("WERCKER_GIT_BRANCH", &spec.git.branch),
        ("WERCKER_GIT_TAG", &spec.git.tag),
        ("WERCKER_GIT_COMMIT", &spec.git.commit),
    ] {
        env.set(name, value);
    }
    // As the reference told a deploy from a build: by the command that is meant for the pipeline.
    if spec.deploy {
        env.set("DEPLOY", "true");
        env.set("WERCKER_DEPLOY_ID", &spec.run_id);
        env.set("WERCKER_DEPLOY_URL", "");
        env.set("WERCKER_DEPLOYTARGET_NAME", spec.deploy_target.as_deref().unwrap_or_default());
    } else {
        env.set("BUILD", "true");
        env.set("WERCKER_BUILD_ID", &spec.run_id);
        env.set("WERCKER_BUILD_URL", "");
    }
    let mut refused = Vec::new();
    for (name, value) in spec.env.iter().chain(&spec.hidden_env) {
        if shell::is_name(name) && !value.contains('\0') {
            env.set(name, value);
        } else {
            refused.push(name.clone());
        }
    }
    (env, refused)
}

/// The `env` of a box or service, filled in from `env`, as `NAME=value`.
pub(crate) fn of_box(config: &BoxConfig, env: &Env) -> Vec<String> {
    config.env.iter().map(|(name, value)| format!("{name}={}", env.fill(value))).collect()
}

/// The same, split into what may stand in a container's description, which goes into images made of it, and what may
/// not: values with a hidden one in them.
pub(crate) fn of_box_by_secrecy(
    config: &BoxConfig,
    env: &Env,
    hidden: &[(String, String)],
) -> (Vec<String>, Vec<(String, String)>) {
    let holds =
        |value: &str| hidden.iter().any(|(_, secret)| !secret.is_empty() && value.contains(secret.as_str()));
    let mut open = Vec::new();
    let mut secret = Vec::new();
    for (name, value) in &config.env {
        let value = env.fill(value);
        if holds(&value) {
            secret.push((name.clone(), value));
        } else {
            open.push(format!("{name}={value}"));
        }
    }
    (open, secret)
}

/// The variables by which containers find a service, in the form of Docker's links.
pub(crate) fn links(
    alias: &str,
    address: &str,
    ports: &[u16],
    service_env: &[String],
) -> Vec<(String, String)> {
    let prefix = shell::upper_name(alias);
    // In an address with a port, a colon of its own would be in the way.
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let mut links = vec![(format!("{prefix}_NAME"), format!("/pipeline/{alias}"))];
    if let Some(first) = ports.first() {
        links.push((format!("{prefix}_PORT"), format!("tcp://{host}:{first}")));
    }
    for port in ports {
        let name = format!("{prefix}_PORT_{port}_TCP");
        links.push((format!("{name}_ADDR"), address.to_owned()));
        links.push((format!("{name}_PORT"), port.to_string()));
        links.push((format!("{name}_PROTO"), "tcp".to_owned()));
        links.push((name, format!("tcp://{host}:{port}")));
    }
    for variable in service_env {
        if let Some((name, value)) = variable.split_once('=')
            && shell::is_name(name)
        {
            links.push((format!("{prefix}_ENV_{name}"), value.to_owned()));
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_both_families() {
        let links = |address| links("db-1", address, &[5432], &["A=1".to_owned(), "no".to_owned()]);
        let find = |links: &[(String, String)], name: &str| {
            links.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()).unwrap()
        };
        let four = links("10.0.0.2");
        assert_eq!(find(&four, "DB_1_PORT"), "tcp://10.0.0.2:5432");
        assert_eq!(find(&four, "DB_1_ENV_A"), "1");
        let six = links("fd00::2");
        assert_eq!(find(&six, "DB_1_PORT_5432_TCP"), "tcp://[fd00::2]:5432");
        assert_eq!(find(&six, "DB_1_PORT_5432_TCP_ADDR"), "fd00::2");
    }
}
