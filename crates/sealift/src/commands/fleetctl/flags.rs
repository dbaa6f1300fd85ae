//! fleetctl's commands and flags, and how it read them: `-flag`, `--flag`, `--flag=value` and `--flag value`, anywhere
//! before `--`, and commands by any unique prefix.
//!
//! Guarantees: every flag that fleetctl documented is known. One that is unknown, or a value that is none, is an error
//! and nothing is done; fleetctl said so and ended as if all was well.

use std::collections::BTreeMap;

use crate::error::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Switch,
    Value,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    name: &'static str,
    kind: Kind,
    default: &'static str,
    pub(super) about: &'static str,
}

const fn switch(name: &'static str, about: &'static str) -> Flag {
    Flag { name, kind: Kind::Switch, default: "false", about }
}

const fn value(name: &'static str, default: &'static str, about: &'static str) -> Flag {
    Flag { name, kind: Kind::Value, default, about }
}

pub(super) const ENDPOINT: &str = "unix:///var/run/fleet.sock";

/// Those of every command, each with a variable `FLEETCTL_<NAME>`.
pub(super) const GLOBAL: &[Flag] = &[
    value("endpoint", ENDPOINT, "The server; of several with commas between them the first"),
    value("driver", "API", "How the server is asked: API"),
    value("request-timeout", "3.0", "Taken, and without effect, as with fleetctl's own default driver"),
    value("tunnel", "", "HOST[:PORT] through which the server and machines are reached by ssh"),
    value("ssh-username", "core", "The user to log in as"),
    value("ssh-timeout", "10.0", "Seconds until a connection has to be there"),
    value("known-hosts-file", "~/.fleetctl/known_hosts", "Where ssh keeps the keys of hosts"),
    switch("strict-host-key-checking", "Whether ssh checks keys of hosts; it does unless =false"),
    value("key-file", "", "The client's key, for https"),
    value("cert-file", "", "The client's certificate, for https"),
    value("ca-file", "", "The authority to check the server by, for https"),
    value("etcd-key-prefix", "/_coreos.com/fleet/", "Of the etcd driver, which is gone"),
    value("etcd-keyfile", "", "As --key-file"),
    value("etcd-certfile", "", "As --cert-file"),
    value("etcd-cafile", "", "As --ca-file"),
    switch("experimental-api", "Without effect"),
    switch("debug", "Tell on standard error what goes on"),
    switch("version", "Print the version"),
    switch("help", "Print this"),
];

/// Short names that fleetctl documented, of which its last release took only the long form.
const SHORT: &[(&str, &str)] = &[("l", "full"), ("f", "follow"), ("A", "forward-agent"), ("h", "help")];

/// A command of fleetctl.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    pub(super) about: &'static str,
    pub(super) flags: &'static [Flag],
}

const NO_BLOCK: Flag = switch("no-block", "Return as soon as it is told, without waiting");
const ATTEMPTS: Flag =
    value("block-attempts", "0", "Wait for so many attempts of 2 s each; 0 is without a limit");
const REPLACE: Flag =
    switch("replace", "Replace the unit that is there, if it is not further than this command goes");
const SIGN: Flag = switch("sign", "Without effect, as in fleet's last releases");
const FULL: Flag = switch("full", "Do not shorten identities and hashes");
const NO_LEGEND: Flag = switch("no-legend", "Leave the header out");
const SSH_PORT: Flag = value("ssh-port", "22", "The port of ssh on the machine");
const BLOCKING: &[Flag] = &[NO_BLOCK, ATTEMPTS];
const STARTING: &[Flag] = &[NO_BLOCK, ATTEMPTS, REPLACE, SIGN];

pub(super) const COMMANDS: &[Command] = &[
    Command { name: "cat", usage: "UNIT", about: "Print a unit file", flags: &[] },
    Command {
        name: "destroy",
        usage: "[--no-block|--block-attempts=N] UNIT...",
        about: "Forget units",
        flags: BLOCKING,
    },
    Command {
        name: "fd-forward",
        usage: "SOCKET",
        about: "Join standard input and output with a Unix socket",
        flags: &[],
    },
    Command { name: "help", usage: "[COMMAND]", about: "Print help", flags: &[] },
    Command {
        name: "journal",
        usage: "[--lines=N] [-f|--follow] [--output=FORMAT] UNIT",
        about: "Print a unit's journal",
        flags: &[
            value("lines", "10", "How many of the last lines"),
            switch("follow", "Go on"),
            value("output", "short", "journalctl's format"),
            SSH_PORT,
            switch("sudo", "Run journalctl by sudo, where it is run over ssh"),
        ],
    },
    Command {
        name: "list-machines",
        usage: "[-l|--full] [--no-legend] [--fields=...]",
        about: "List the machines that are there",
        flags: &[FULL, NO_LEGEND, value("fields", "machine,ip,metadata", "ip, machine, metadata")],
    },
    Command {
        name: "list-unit-files",
        usage: "[--full] [--no-legend] [--fields=...]",
        about: "List the units that are known",
        flags: &[
            FULL,
            NO_LEGEND,
            value(
                "fields",
                "unit,hash,dstate,state,target",
                "desc, dstate, global, hash, state, target, tmachine, unit",
            ),
        ],
    },
    Command {
        name: "list-units",
        usage: "[-l|--full] [--no-legend] [--fields=...]",
        about: "List units as they are on machines",
        flags: &[
            FULL,
            NO_LEGEND,
            value("fields", "unit,machine,active,sub", "active, hash, load, machine, sub, unit"),
        ],
    },
    Command {
        name: "load",
        usage: "[--replace] [--no-block|--block-attempts=N] UNIT...",
        about: "Give units a machine each",
        flags: STARTING,
    },
    Command {
        name: "restart",
        usage: "[--block-attempts=N] UNIT...",
        about: "Stop and start units",
        flags: BLOCKING,
    },
    Command {
        name: "ssh",
        usage: "[-A|--forward-agent] [--ssh-port=N] [--machine|--unit] {MACHINE|UNIT} [COMMAND...]",
        about: "Open a shell on a machine, or run a command there",
        flags: &[
            value("machine", "", "This machine"),
            value("unit", "", "The machine of this unit"),
            switch("forward-agent", "Forward the ssh agent"),
            SSH_PORT,
        ],
    },
    Command {
        name: "start",
        usage: "[--replace] [--no-block|--block-attempts=N] UNIT...",
        about: "Start units",
        flags: STARTING,
    },
    Command {
        name: "status",
        usage: "[--ssh-port=N] UNIT...",
        about: "Print what systemd says of units",
        flags: &[SSH_PORT],
    },
    Command {
        name: "stop",
        usage: "[--no-block|--block-attempts=N] UNIT...",
        about: "Stop units",
        flags: BLOCKING,
    },
    Command {
        name: "submit",
        usage: "[--replace] UNIT...",
        about: "Make units known",
        flags: &[REPLACE, SIGN],
    },
    Command {
        name: "unload",
        usage: "[--no-block|--block-attempts=N] UNIT...",
        about: "Take units from their machines",
        flags: BLOCKING,
    },
    Command { name: "verify", usage: "UNIT", about: "Gone with signatures", flags: &[] },
    Command { name: "version", usage: "", about: "Print the version", flags: &[] },
];

/// What was asked for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) command: Option<&'static Command>,
    pub(super) words: Vec<String>,
    given: BTreeMap<&'static str, String>,
}

impl Asked {
    /// The flag's value; of a switch `true` or `false`.
    pub(super) fn text(&self, name: &str) -> &str {
        let flags = self.command.map_or(&[][..], |command| command.flags);
        let default =
            || flags.iter().chain(GLOBAL).find(|flag| flag.name == name).map_or("", |flag| flag.default);
        self.given.get(name).map_or_else(default, String::as_str)
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    pub(super) fn number<N: std::str::FromStr>(&self, name: &str) -> Result<N, Error> {
        let text = self.text(name);
        text.parse()
            .map_err(|_| Error::plain(format!("invalid argument {text:?} for --{name}: it takes a number")))
    }
}

/// Reads the words behind the program's name; `variable` looks up the environment.
pub(super) fn read(words: Vec<String>, variable: impl Fn(&str) -> Option<String>) -> Result<Asked, Error> {
    let mut asked = Asked { command: None, words: Vec::new(), given: BTreeMap::new() };
    for flag in GLOBAL.iter().filter(|flag| !matches!(flag.name, "version" | "help")) {
        let name = format!("FLEETCTL_{}", flag.name.to_uppercase().replace('-', "_"));
        if let Some(text) = variable(&name).filter(|text| !text.is_empty()) {
            asked.given.insert(flag.name, checked(flag, &text)?);
        }
    }
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        if word == "--" {
            asked.words.extend(words);
            break;
        }
        let Some(flag) =
            word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|flag| !flag.is_empty())
        else {
            match asked.command {
                None => asked.command = Some(command(&word)?),
                Some(_) => asked.words.push(word),
            }
            // What stands behind the machine is the other machine's command line.
            let targets = usize::from(!asked.is_given("machine") && !asked.is_given("unit"));
            let behind = asked.words.len() > targets;
            if asked.command.is_some_and(|command| command.name == "ssh") && behind {
                asked.words.extend(words);
                break;
            }
            continue;
        };
        let (name, text) =
            flag.split_once('=').map_or((flag, None), |(name, text)| (name, Some(text.to_owned())));
        let known = asked.command.map_or(&[][..], |command| command.flags).iter().chain(GLOBAL);
        let long = SHORT.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| *long);
        let Some(flag) = known.into_iter().find(|flag| flag.name == long) else {
            return Err(Error::plain(format!("unknown flag: {word}")));
        };
        let text = match (flag.kind, text) {
            (_, Some(text)) => text,
            (Kind::Switch, None) => "true".to_owned(),
            (Kind::Value, None) => {
                words.next().ok_or_else(|| Error::plain(format!("flag needs an argument: {word}")))?
            }
        };
        asked.given.insert(flag.name, checked(flag, &text)?);
    }
    Ok(asked)
}

fn checked(flag: &Flag, text: &str) -> Result<String, Error> {
    match (flag.kind, text) {
        (Kind::Value, text) => Ok(text.to_owned()),
        (Kind::Switch, "1" | "t" | "T" | "true" | "TRUE" | "True") => Ok("true".to_owned()),
        (Kind::Switch, "0" | "f" | "F" | "false" | "FALSE" | "False") => Ok("false".to_owned()),
        (Kind::Switch, _) => Err(Error::plain(format!("invalid argument {text:?} for --{}", flag.name))),
    }
}

/// The command of this name, or the only one that begins like it.
pub(super) fn command(word: &str) -> Result<&'static Command, Error> {
    if let Some(exact) = COMMANDS.iter().find(|command| command.name == word) {
        return Ok(exact);
    }
    let mut like = COMMANDS.iter().filter(|command| command.name.starts_with(word));
    match (like.next(), like.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Error::plain(format!("unknown command \"{word}\" for \"fleetctl\""))),
    }
}

/// `fleetctl help`, or that of one command.
pub(super) fn help(command: Option<&Command>) -> String {
    let lines = |flags: &[Flag]| -> String {
        flags
            .iter()
            .map(|flag| {
                let default = if flag.default.is_empty() || flag.kind == Kind::Switch {
                    String::new()
                } else {
                    format!(" [{}]", flag.default)
                };
                format!("    --{:<26}{}{default}\n", flag.name, flag.about)
            })
            .collect()
    };
    match command {
        Some(command) => format!(
            "{}\n\nUsage:\n    fleetctl {} {}\n\nFlags:\n{}\nGlobal flags: fleetctl help\n",
            command.about,
            command.name,
            command.usage,
            lines(command.flags)
        ),
        None => {
            let commands: String = COMMANDS
                .iter()
                .map(|command| format!("    {:<18}{}\n", command.name, command.about))
                .collect();
            format!(
                "fleetctl is the command line of fleet, done by Sealift.\n\nUsage:\n    fleetctl [FLAGS] COMMAND [FLAGS] [WORDS]\n\nCommands:\n{commands}\nGlobal flags, each also a variable FLEETCTL_<NAME>:\n{}\nWhat is not as it was in fleet is told in docs/from-fleet.md.\n",
                lines(GLOBAL)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Asked, String> {
        let none = |_: &str| None;
        read(words.iter().map(|word| (*word).to_owned()).collect(), none).map_err(|error| error.to_string())
    }

    #[test]
    fn flags_are_read_in_every_form() {
        let read = asked(&["-endpoint", "http://a:1", "list-u", "--l"]);
        assert!(read.unwrap_err().contains("unknown command"), "list-units or list-unit-files");
        let read = asked(&["-endpoint=http://a:1", "list-m", "-l", "--fields", "ip"]).unwrap();
        assert_eq!(read.command.unwrap().name, "list-machines");
        assert!(read.is("full") && !read.is("no-legend"));
        assert_eq!((read.text("endpoint"), read.text("fields")), ("http://a:1", "ip"));
        let read = asked(&["start", "a.service", "--block-attempts=5", "--no-block=false", "b", "--", "-c"])
            .unwrap();
        assert_eq!(read.words, ["a.service", "b", "-c"]);
        assert_eq!((read.number::<u32>("block-attempts").unwrap(), read.is("no-block")), (5, false));
        let read = asked(&["ssh", "-A", "4f7a", "ls", "-l"]).unwrap();
        assert_eq!(read.words, ["4f7a", "ls", "-l"]);
        let read = asked(&["ssh", "--machine", "4f7a", "ls", "-l"]).unwrap();
        assert_eq!(read.words, ["ls", "-l"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, wanted) in [
            (&["bogus"][..], "unknown command \"bogus\" for \"fleetctl\""),
            (&["--bogus", "list-units"], "unknown flag: --bogus"),
            (&["start", "--full"], "unknown flag: --full"),
            (&["--endpoint"], "flag needs an argument"),
            (&["start", "--no-block=perhaps"], "invalid argument \"perhaps\""),
        ] {
            let said = asked(words).unwrap_err();
            assert!(said.contains(wanted), "{words:?}: {said}");
        }
    }

    #[test]
    fn variables_come_before_defaults_and_behind_flags() {
        let variable = |name: &str| (name == "FLEETCTL_SSH_USERNAME").then(|| "root".to_owned());
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(read(words(&["cat"]), variable).unwrap().text("ssh-username"), "root");
        let read = read(words(&["--ssh-username", "me", "cat"]), variable).unwrap();
        assert_eq!(read.text("ssh-username"), "me");
    }
}
