//! `sealift machine ssh` and `sealift unit ssh`: this machine's own ssh, told where to go.
//!
//! Guarantees: hosts' keys are checked as the user's ssh checks them, and nothing here makes that less. The program
//! becomes ssh, so that the terminal, signals and the exit code are ssh's.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, ExitStatus};

use sealift_client::Client;
use sealift_client::api::{MachineStatus, UnitView};
use sealift_model::MachineId;

use super::machine::find;
use crate::cli::{Global, MachineSsh, SshArgs, UnitSsh};
use crate::error::Error;

pub(super) async fn machine(args: MachineSsh, global: &Global) -> Result<ExitCode, Error> {
    let machine = find(&super::client(global)?, &args.machine).await?;
    go(&args.ssh, &machine, &args.command)
}

pub(super) async fn unit(args: UnitSsh, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let view: UnitView = client.get(&format!("/v1/units/{}", args.unit)).await?;
    let machine = machine_of(&client, &view, args.machine.as_deref()).await?;
    go(&args.ssh, &machine, &args.command)
}

/// The machine that is meant, which has to have the unit.
async fn machine_of(client: &Client, view: &UnitView, wanted: Option<&str>) -> Result<MachineStatus, Error> {
    let name = &view.unit.name;
    let is_on = |id: &MachineId| view.targets.contains(id);
    match (wanted, view.targets.as_slice()) {
        (_, []) => {
            let why = view.problem.clone().unwrap_or_else(|| {
                if name.is_template() {
                    "a template itself runs nowhere; name one of its instances".into()
                } else {
                    "nobody asked for it to be on one: sealift unit start".into()
                }
            });
            Err(Error::with_help(format!("{name} is on no machine"), why))
        }
        (None, [one]) => find(client, one.as_str()).await,
        (None, several) => Err(Error::with_help(
            format!("{name} is on {} machines", several.len()),
            "name one of them with --machine",
        )),
        (Some(word), _) => {
            let machine = find(client, word).await?;
            if !is_on(&machine.machine.id) {
                return Err(Error::with_help(
                    format!("{name} is not on {}", machine.machine.name),
                    "sealift unit status tells where it is",
                ));
            }
            Ok(machine)
        }
    }
}

fn go(args: &SshArgs, machine: &MachineStatus, command: &[String]) -> Result<ExitCode, Error> {
    let mut ssh = to(args, machine)?;
    ssh.args(command);
    // It only comes back if it could not be started.
    let source = ssh.exec();
    Err(Error::Io { action: "run", path: ssh.get_program().into(), source })
}

/// `ssh` to the machine; the command is still to come.
fn to(args: &SshArgs, machine: &MachineStatus) -> Result<Command, Error> {
    let address = machine.machine.address.as_deref().filter(|address| !address.is_empty());
    let address = address.ok_or_else(|| {
        Error::with_help(
            format!("machine {} says no address of itself", machine.machine.name),
            "start its agent with --address",
        )
    })?;
    let mut ssh = Command::new("ssh");
    // Whatever its configuration says: the machine could use the keys for as long as somebody is logged in.
    ssh.arg(if args.forward_agent { "-A" } else { "-a" });
    if let Some(user) = &args.user {
        ssh.args(["-l", user]);
    }
    if let Some(port) = args.port {
        ssh.args(["-p", &port.to_string()]);
    }
    if let Some(jump) = &args.jump {
        ssh.args(["-J", jump]);
    }
    if let Some(file) = &args.known_hosts {
        let path = file.display().to_string();
        if path.contains(['"', '\n']) {
            return Err(Error::plain(format!("ssh cannot take {path:?} as the name of a file")));
        }
        ssh.args(["-o", &format!("UserKnownHostsFile=\"{path}\"")]);
        // Those of the machine would count besides.
        ssh.args(["-o", "GlobalKnownHostsFile=none"]);
    }
    ssh.args(["--", address]);
    Ok(ssh)
}

/// One word of a shell, whatever is in it.
pub(super) fn quoted(word: &std::ffi::OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"))
}

/// What a program ended with, as a shell would tell it.
pub(super) fn code_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use sealift_model::{Machine, MachineSettings};

    use super::*;

    #[test]
    fn what_ssh_is_told_by_table() {
        let plain =
            || SshArgs { user: None, port: None, jump: None, known_hosts: None, forward_agent: false };
        let machine = |address: Option<&str>| MachineStatus {
            machine: Machine {
                address: address.map(str::to_owned),
                ..Machine::new(MachineId::from_bytes([1; 16]), "node-1")
            },
            presence: None,
            units: 0,
            runs: 0,
            settings: MachineSettings::default(),
        };
        let said = |args: &SshArgs| {
            let ssh = to(args, &machine(Some("10.0.0.1"))).unwrap();
            ssh.get_args().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(said(&plain()), "-a -- 10.0.0.1");
        let all = SshArgs {
            user: Some("core".into()),
            port: Some(2222),
            jump: Some("bastion".into()),
            known_hosts: Some("/a b".into()),
            forward_agent: true,
        };
        let wanted = "-A -l core -p 2222 -J bastion -o UserKnownHostsFile=\"/a b\" -o GlobalKnownHostsFile=none -- 10.0.0.1";
        assert_eq!(said(&all), wanted);
        let odd = SshArgs { known_hosts: Some("/a\"b".into()), ..plain() };
        assert!(to(&odd, &machine(Some("10.0.0.1"))).is_err());
        let error = to(&plain(), &machine(None)).unwrap_err().to_string();
        assert!(error.contains("no address"), "{error}");
    }
}
