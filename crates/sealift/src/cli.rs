//! The command line, said once: parsing, `--help`, shell completions and man pages all come from here.

mod access;
mod approval;
mod etcd;
mod machine;
mod plan;
mod roles;
mod rollout;
mod run;
mod secret;
mod ssh;
mod unit;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sealift_client::Servers;
use sealift_model::{BranchName, ProjectName, ReleaseNumber, RunId};

pub(crate) use access::{AuditArgs, AuthorityCommand, JoinTokenArgs, TlsArgs, TokenCommand, TokenCreateArgs};
pub(crate) use approval::{ApprovalsArgs, ApproveArgs, RejectArgs};
pub(crate) use etcd::{
    EtcdBackup, EtcdCommand, EtcdDefrag, EtcdRestore, EtcdStart, MemberAdd, MemberCommand, MemberMove,
    MemberReplace, OneMember, StoreCommand, StoreKind, StoreMove,
};
pub(crate) use machine::{DrainArgs, MachineCommand, MetadataArgs, MetadataChange, RebalanceArgs};
pub(crate) use plan::PlanCommand;
pub(crate) use roles::{AgentArgs, EtcdArgs, ServerArgs};
pub(crate) use rollout::{OneRollout, RolloutCommand};
pub(crate) use run::{FactArgs, RunArgs, VariableArgs};
pub(crate) use secret::{SecretCommand, SecretListArgs, SecretProject, SecretRmArgs, SecretSetArgs};
pub(crate) use ssh::{MachineSsh, SshArgs, UnitSsh};
pub(crate) use unit::name as unit_name;
pub(crate) use unit::{JournalArgs, UnitCommand, UnitFiles, UnitNames, UnitVerify, Wait};

const TOUR: &str = "\
A first tour, from a git repository with a wercker.yml:

  sealift run                 run its pipeline here, without a server
  sealift dev                 start Sealift on this machine, in a terminal of its own
  sealift push                build the commit, keep the package, run its units
  sealift status              what runs, and on which release
  sealift logs -f             the newest run's output as it comes
  sealift rollback hello      back to the release before

Exit codes: 0 done; 1 a run, a release or a unit failed; 2 the command line is wrong;
3 the server cannot be reached; 4 anything else, said on standard error.";

/// Takes a commit to a running fleet: pipelines in containers, signed packages, systemd units.
#[derive(Debug, Parser)]
#[command(name = "sealift", version, after_help = TOUR, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The server: https://HOST:PORT, or several with commas between them; unix:///PATH; http://HOST:PORT without TLS
    /// [default: the socket in the state directory]
    #[arg(
        long,
        global = true,
        env = "SEALIFT_SERVER",
        value_name = "ADDRESS",
        help_heading = "Global options"
    )]
    pub(crate) server: Option<Servers>,
    /// What shows that a server is ours: a file with its authority's certificates, or sha256:PIN
    #[arg(long, global = true, env = "SEALIFT_CA", value_name = "FILE|PIN", help_heading = "Global options")]
    pub(crate) ca: Option<String>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Output::Text, help_heading = "Global options")]
    pub(crate) output: Output,
    /// Where `sealift dev` keeps its state [default: /var/lib/sealift for root, else ~/.local/state/sealift]
    #[arg(
        long,
        global = true,
        env = "SEALIFT_STATE_DIR",
        value_name = "DIR",
        help_heading = "Global options"
    )]
    pub(crate) state_dir: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Text,
    /// One JSON value, or one a line where a command streams
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a pipeline here and now, without a server
    #[command(after_help = run::EXAMPLES)]
    Run(Box<RunArgs>),
    /// Read a wercker.yml, and show what it would do and what is wrong with it
    #[command(
        after_help = "Examples:\n  sealift check\n  sealift check --strict wercker.yml\n  sealift check --schema > wercker.schema.json"
    )]
    Check(CheckArgs),
    /// Make a wercker.yml from a file of GitLab, GitHub, Woodpecker or compose
    #[command(
        after_help = "Examples:\n  sealift import .gitlab-ci.yml -o wercker.yml\n  sealift import .github/workflows/ci.yml\n  sealift import --from compose services.yml"
    )]
    Import(ImportArgs),
    /// List the steps that are part of Sealift
    #[command(after_help = "Examples:\n  sealift steps\n  sealift steps slack-notifier")]
    Steps(StepsArgs),
    /// Start Sealift on this machine: server and agent in one process
    #[command(
        after_help = "Examples:\n  sealift dev\n  sealift dev --state-dir /srv/sealift --listen 127.0.0.1:5000\n  sealift dev --down"
    )]
    Dev(DevArgs),
    /// Run the control plane: the API, and the decisions on what runs where
    #[command(after_help = roles::SERVER_EXAMPLES)]
    Server(Box<ServerArgs>),
    /// Make this machine match what the servers assign to it
    #[command(after_help = roles::AGENT_EXAMPLES)]
    Agent(Box<AgentArgs>),
    /// A cluster of etcd: start, status, members, backup, restore, defrag
    #[command(subcommand, after_help = etcd::EXAMPLES, disable_help_subcommand = true)]
    Etcd(EtcdCommand),
    /// Where an installation's state is: move
    #[command(subcommand, after_help = etcd::STORE_EXAMPLES, disable_help_subcommand = true)]
    Store(StoreCommand),
    /// Send the current commit: run its pipeline, keep the package, bring its units up
    #[command(after_help = "Examples:\n  sealift push\n  sealift push --project billing --detach")]
    Push(PushArgs),
    /// What there is at a glance: apps, machines, the queue
    #[command(after_help = "Example: sealift status")]
    Status,
    /// List runs, newest first
    #[command(after_help = "Example: sealift runs --project hello --limit 5")]
    Runs(RunsArgs),
    /// Print a run's log
    #[command(after_help = "Examples:\n  sealift logs\n  sealift logs hello-12 -f")]
    Logs(LogsArgs),
    /// List what waits for a person's approval
    #[command(
        after_help = "Examples:\n  sealift approvals\n  sealift approvals --project hello --output json"
    )]
    Approvals(ApprovalsArgs),
    /// Agree to what a run waits for, so that it goes on
    #[command(after_help = "Examples:\n  sealift approve hello-12\n  sealift approve hello-12 deploy")]
    Approve(ApproveArgs),
    /// Refuse what a run waits for
    #[command(
        after_help = "Examples:\n  sealift reject hello-12\n  sealift reject hello-12 deploy --reason 'not on a Friday'"
    )]
    Reject(RejectArgs),
    /// Stop a run that waits or is under way
    #[command(after_help = "Example: sealift abort hello-12")]
    Abort(AbortArgs),
    /// Units: submit, load, start, stop, unload, destroy, restart, list, files, cat, status, journal, ssh, verify, explain
    #[command(subcommand, after_help = unit::EXAMPLES, disable_help_subcommand = true)]
    Unit(UnitCommand),
    /// Machines: list, drain, cordon, uncordon, metadata, rebalance, ssh, join-token, remove
    #[command(subcommand, after_help = machine::EXAMPLES, disable_help_subcommand = true)]
    Machine(MachineCommand),
    /// Show what a change would do before it is made: start, load, stop, unload, destroy, drain, lose, ...
    #[command(subcommand, after_help = plan::EXAMPLES, disable_help_subcommand = true)]
    Plan(PlanCommand),
    /// Changes of units on their way to their machines: list, back, again
    #[command(subcommand, after_help = rollout::EXAMPLES, disable_help_subcommand = true)]
    Rollout(RolloutCommand),
    /// The same as `sealift unit list`
    #[command(after_help = "Example: sealift units")]
    Units,
    /// The same as `sealift machine list`
    #[command(after_help = "Example: sealift machines --output json")]
    Machines,
    /// List packages, newest first
    #[command(after_help = "Example: sealift packages --project hello")]
    Packages(PackagesArgs),
    /// Go back to an earlier release of an app
    #[command(after_help = "Examples:\n  sealift rollback hello\n  sealift rollback hello --to 3")]
    Rollback(RollbackArgs),
    /// The secrets that the server keeps for a project: set, list, rm
    #[command(subcommand, after_help = secret::EXAMPLES, disable_help_subcommand = true)]
    Secret(SecretCommand),
    /// Users' tokens: create, list, revoke
    #[command(subcommand, after_help = access::TOKEN_EXAMPLES, disable_help_subcommand = true)]
    Token(TokenCommand),
    /// The authority that signs certificates of servers and machines: show, prepare, activate, retire
    #[command(subcommand, after_help = access::AUTHORITY_EXAMPLES, disable_help_subcommand = true)]
    Authority(AuthorityCommand),
    /// Print who changed what, and who was refused, as this server saw it
    #[command(
        after_help = "Examples:\n  sealift audit --since 2h\n  sealift audit --user anna -f --output json"
    )]
    Audit(AuditArgs),
    /// The command line of the wercker CLI: build, deploy, dev, workflow, check-config, detect
    #[command(
        after_help = "Example: sealift wercker build --artifacts\n\nA link to this program that is called `wercker` does the same."
    )]
    Wercker(WerckerArgs),
    /// The command line of fleet: submit, load, start, stop, list-units, list-machines and all the others
    #[command(
        disable_help_flag = true,
        after_help = "Example: sealift fleetctl list-units\n\nA link to this program that is called `fleetctl` does the same."
    )]
    Fleetctl(FleetArgs),
    /// The daemon of fleet: server and agent in one, set up by a fleet.conf
    #[command(
        disable_help_flag = true,
        after_help = "Example: sealift fleetd -config /etc/fleet/fleet.conf\n\nA link to this program that is called `fleetd` does the same."
    )]
    Fleetd(FleetArgs),
    /// Print a shell completion script
    #[command(after_help = "Example: sealift completions bash > /etc/bash_completion.d/sealift")]
    Completions(CompletionsArgs),
    /// Write man pages into a directory
    #[command(after_help = "Example: sealift man /usr/local/share/man/man1")]
    Man(ManArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The file, or the project's directory
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Warnings are errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print the JSON schema of wercker.yml, for editors, and read nothing
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// The other tool's file
    pub(crate) file: PathBuf,
    /// The tool it is for [default: told by its name and content]
    #[arg(long, value_enum, value_name = "TOOL")]
    pub(crate) from: Option<Tool>,
    /// Where the wercker.yml is written, if there is no file yet [default: standard output]
    #[arg(long, short = 'o', value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// A tool whose files can be imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    Gitlab,
    Github,
    Woodpecker,
    Compose,
}

#[derive(Debug, Args)]
pub(crate) struct StepsArgs {
    /// Show what this step can be given
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Where the API listens besides its Unix socket, loopback only; `none` for nowhere
    #[arg(long, default_value = "127.0.0.1:4640", value_name = "IP:PORT")]
    pub(crate) listen: String,
    /// How many runs may be under way at once
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) run_slots: u32,
    /// Use a systemd of our own even where the machine has one to offer
    #[arg(long)]
    pub(crate) private_systemd: bool,
    /// Stop the server of this state directory and the units it runs; the state stays
    #[arg(long)]
    pub(crate) down: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// A directory in the git repository
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The project's name [default: the repository's directory]
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
    /// The branch to push as [default: the one that is checked out]
    #[arg(long)]
    pub(crate) branch: Option<BranchName>,
    /// The pipeline or the workflow to run
    #[arg(long, short, default_value = "build")]
    pub(crate) pipeline: String,
    /// Return as soon as the run is queued
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArgs {
    /// Only this project's
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
    /// How many to list
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// The run [default: the newest]
    pub(crate) run: Option<RunId>,
    /// Go on until the run has ended
    #[arg(long, short)]
    pub(crate) follow: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AbortArgs {
    pub(crate) run: RunId,
}

#[derive(Debug, Args)]
pub(crate) struct PackagesArgs {
    /// Only this project's
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
}

#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    /// The app; may be left out when there is only one
    pub(crate) app: Option<ProjectName>,
    /// The release to go back to [default: the one before the current]
    #[arg(long, value_name = "RELEASE")]
    pub(crate) to: Option<ReleaseNumber>,
    /// Return without waiting until the units run
    #[arg(long)]
    pub(crate) detach: bool,
}

#[derive(Debug, Args)]
pub(crate) struct WerckerArgs {
    /// As that CLI took them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct FleetArgs {
    /// As fleet's program took them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Made if it is not there
    pub(crate) dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Cli;

    #[test]
    fn the_definition_is_sound_and_every_command_has_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains(&format!("sealift {}", sub.get_name())),
                "{} has no example",
                sub.get_name()
            );
        }
    }
}
