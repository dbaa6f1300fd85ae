//! The flags that the wercker CLI had, and what becomes of each of them here.
//!
//! Guarantees: every flag of section "Command line" of its reference is known; one that cannot have its effect says so
//! and is never dropped in silence. `docs/wercker-cli.md` shows this table, and a test holds the two together.

use clap::{Arg, ArgAction, ArgMatches};

/// Whether a flag takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Switch,
    Value,
}

/// What becomes of a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It does what it did.
    Works,
    /// There is nothing left for it to do, for this reason; nobody has to be told.
    Idle(&'static str),
    /// It is taken, with a warning that gives this reason.
    Warns(&'static str),
    /// The command stops with this reason: without the flag's effect the result would not be what is wanted.
    Refused(&'static str),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) fate: Fate,
}

use Fate::{Idle, Refused, Warns, Works};
use Kind::{Switch, Value};

const fn flag(name: &'static str, kind: Kind, fate: Fate) -> Flag {
    Flag { name, kind, fate }
}

const SERVICE: &str = "the wercker service is gone";
const STORE: &str = "there is no store to send to; copy what --artifacts leaves in .wercker/latest/output";
const PATHS: &str = "the paths in the box are fixed: /pipeline and /report";

/// Those that stand before or behind any command.
pub(crate) const GLOBAL: &[Flag] = &[
    flag("environment", Value, Works),
    flag("verbose", Switch, Works),
    flag("no-colors", Switch, Works),
    flag("debug", Switch, Works),
    flag("log-json", Switch, Works),
    flag("auth-token", Value, Idle(SERVICE)),
    flag("auth-token-store", Value, Idle(SERVICE)),
    flag("base-url", Value, Idle(SERVICE)),
    flag("steps-registry", Value, Warns("the steps registry is gone; Sealift brings steps of its own")),
];

/// Those of build, deploy, dev and workflow.
pub(crate) const PIPELINE: &[Flag] = &[
    flag("pipeline", Value, Works),
    flag("deploy-target", Value, Works),
    flag("working-dir", Value, Works),
    flag("wercker-yml", Value, Works),
    flag("artifacts", Switch, Works),
    flag("docker-host", Value, Works),
    flag(
        "docker-tls-verify",
        Value,
        Refused("engines are reached by a Unix socket or plain TCP; use an SSH tunnel to the socket"),
    ),
    flag(
        "docker-cert-path",
        Value,
        Warns("engines are reached by a Unix socket or plain TCP, so it is of no use"),
    ),
    flag("docker-local", Switch, Works),
    flag("direct-mount", Switch, Works),
    flag("ignore-file", Value, Works),
    flag("source-dir", Value, Works),
    flag("no-response-timeout", Value, Works),
    flag("command-timeout", Value, Works),
    flag("git-domain", Value, Works),
    flag("git-owner", Value, Works),
    flag("git-repository", Value, Works),
    flag("git-branch", Value, Works),
    flag("git-commit", Value, Works),
    flag("git-tag", Value, Works),
    flag("application-name", Value, Works),
    flag("application-id", Value, Warns("the application's id is its name")),
    flag("application-owner-name", Value, Works),
    flag("application-started-by-name", Value, Works),
    flag("run-id", Value, Warns("every run gets an id of its own")),
    flag("checkpoint", Value, Works),
    flag("expose-ports", Switch, Works),
    flag("enable-volumes", Switch, Works),
    flag("docker-network", Value, Works),
    flag("docker-memory", Value, Works),
    flag("docker-memory-swap", Value, Warns("--docker-memory is a limit without swap")),
    flag("docker-dns", Value, Warns("names are resolved as the engine is set up to")),
    flag("docker-cleanup-image", Switch, Idle("no image is made unless a step makes one")),
    flag("commit", Value, Works),
    flag("tag", Value, Works),
    flag("message", Value, Warns("images are kept without a message")),
    flag(
        "no-remove",
        Switch,
        Refused("nothing of a run is left behind; use: sealift run --shell-on-failure"),
    ),
    flag("attach-on-error", Switch, Works),
    flag("enable-dev-steps", Switch, Idle("they are always on")),
    flag("publish", Value, Warns("wercker itself no longer heard it; use --expose-ports")),
    flag("store-s3", Switch, Refused(STORE)),
    flag("s3-bucket", Value, Warns(STORE)),
    flag("aws-region", Value, Warns(STORE)),
    flag("aws-access-key", Value, Warns(STORE)),
    flag("aws-secret-key", Value, Warns(STORE)),
    flag("store-oci", Switch, Refused(STORE)),
    flag("oci-tenancy-ocid", Value, Warns(STORE)),
    flag("oci-user-ocid", Value, Warns(STORE)),
    flag("oci-region", Value, Warns(STORE)),
    flag("oci-private-key-path", Value, Warns(STORE)),
    flag("oci-private-key-passphrase", Value, Warns(STORE)),
    flag("oci-fingerprint", Value, Warns(STORE)),
    flag("oci-bucket", Value, Warns(STORE)),
    flag("oci-namespace", Value, Warns(STORE)),
    flag("mnt-root", Value, Warns(PATHS)),
    flag("guest-root", Value, Warns(PATHS)),
    flag("report-root", Value, Warns(PATHS)),
    flag("report", Switch, Idle(SERVICE)),
    flag("suppress-build-logs", Switch, Works),
    flag("rdd-service-uri", Value, Warns("`docker: true` uses this machine's engine, if anything")),
];

/// Those of `version`.
pub(crate) const VERSION: &[Flag] = &[
    flag("json", Switch, Works),
    flag("beta", Switch, Idle("nobody is asked for newer versions")),
    flag("no-update-check", Switch, Idle("nobody is asked for newer versions")),
];

/// Those of `step publish`.
pub(crate) const PUBLISH: &[Flag] = &[
    flag("owner", Value, Works),
    flag("private", Switch, Idle("the file is yours alone until you hand it on")),
];

/// The flags for clap. They may be given more than once; the last one counts.
pub(crate) fn arguments(flags: &'static [Flag], global: bool) -> impl Iterator<Item = Arg> {
    flags.iter().map(move |flag| {
        let arg = Arg::new(flag.name).long(flag.name).global(global).overrides_with(flag.name);
        let arg = match flag.fate {
            Works => arg.help("as in wercker"),
            Idle(why) => arg.help(format!("taken, without effect: {why}")).hide_short_help(true),
            Warns(why) => arg.help(format!("taken, with a warning: {why}")).hide_short_help(true),
            Refused(why) => arg.help(format!("refused: {why}")).hide_short_help(true),
        };
        match flag.kind {
            Switch => arg.action(ArgAction::SetTrue),
            Value => arg.action(ArgAction::Set).value_name("VALUE"),
        }
    })
}

/// Warnings for the flags that were given, or the first reason to refuse them.
pub(crate) fn judge(flags: &[Flag], matches: &ArgMatches) -> Result<Vec<String>, String> {
    let mut warnings = Vec::new();
    for flag in flags {
        let given = match flag.kind {
            Switch => matches.get_flag(flag.name),
            // Scripts hand over what they have, which may be nothing.
            Value => matches.get_one::<String>(flag.name).is_some_and(|value| !is_no(value)),
        };
        match flag.fate {
            Warns(why) if given => warnings.push(format!("--{} has no effect: {why}", flag.name)),
            Refused(why) if given => return Err(format!("--{} is not possible: {why}", flag.name)),
            _ => {}
        }
    }
    Ok(warnings)
}

fn is_no(value: &str) -> bool {
    matches!(value, "" | "0" | "false")
}

/// Words as that CLI took them: `-flag` is `--flag`, and a switch may have a value.
pub(crate) fn words(given: impl IntoIterator<Item = String>) -> Vec<String> {
    let switches: Vec<&str> = [GLOBAL, PIPELINE, VERSION, PUBLISH]
        .into_iter()
        .flatten()
        .filter(|flag| flag.kind == Switch)
        .map(|flag| flag.name)
        .collect();
    let mut out = Vec::new();
    let mut given = given.into_iter();
    for word in given.by_ref() {
        if word == "--" {
            out.push(word);
            break;
        }
        let name = word.trim_start_matches('-');
        if !word.starts_with('-') || name.len() < 2 {
            out.push(word);
            continue;
        }
        match name.split_once('=') {
            Some((switch, value)) if switches.contains(&switch) => {
                if !is_no(value) {
                    out.push(format!("--{switch}"));
                }
            }
            _ => out.push(format!("--{name}")),
        }
    }
    out.extend(given);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_written_as_that_cli_took_them() {
        let given = [
            "-verbose",
            "build",
            "--artifacts=false",
            "-docker-local=true",
            "--tag=a",
            "-h",
            ".",
            "--",
            "-x",
        ];
        let want = ["--verbose", "build", "--docker-local", "--tag=a", "-h", ".", "--", "-x"];
        assert_eq!(words(given.map(str::to_owned)), want);
    }

    #[test]
    fn every_flag_is_on_the_page_with_what_becomes_of_it() {
        let page = include_str!("../../../../../docs/wercker-cli.md");
        for flag in [GLOBAL, PIPELINE, VERSION, PUBLISH].into_iter().flatten() {
            let said = match flag.fate {
                Works => "works".to_owned(),
                Idle(why) => format!("no effect: {why}"),
                Warns(why) => format!("warning: {why}"),
                Refused(why) => format!("refused: {why}"),
            };
            let row = format!("| `--{}` | {said} |", flag.name);
            assert!(page.lines().any(|line| line == row), "docs/wercker-cli.md has no row\n{row}");
        }
    }
}
