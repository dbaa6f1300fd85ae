//! The arguments of `sealift token`, `sealift authority`, `sealift audit`, and of how machines are let in and put out.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use sealift_model::{MachineId, ProjectName, Role};

use super::roles::seconds;

pub(super) const TOKEN_EXAMPLES: &str = "\
Examples:
  sealift token create anna --role deployer --project hello --for 90d
  sealift token create ci --role deployer --all-projects > ci.token
  sealift token list
  sealift token revoke 5f0c1d2e3a4b5c6d

Roles: a viewer reads everything but secrets; a deployer pushes, aborts, approves, rolls back and sets the secrets of
his projects; an operator does that for all projects, and has units, machines and join tokens in hand; an admin has
users, the authority and the audit log as well.";

pub(super) const AUTHORITY_EXAMPLES: &str = "\
Examples:
  sealift authority show
  sealift authority show --roots > roots.pem

To put a new root in the place of the old one: `prepare`, wait until all machines have renewed their certificates (`show`
tells who has not), `activate`, and after another while `retire`.";

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token for a user, and print it: it is shown this once
    #[command(
        after_help = "Example: sealift token create anna --role deployer --project hello --for 90d\n\nHe puts it into SEALIFT_TOKEN, or into a file that SEALIFT_TOKEN_FILE names."
    )]
    Create(TokenCreateArgs),
    /// List users' tokens, never their secrets
    #[command(after_help = "Example: sealift token list --output json")]
    List,
    /// Take a token back: it counts no more from now on
    #[command(after_help = "Example: sealift token revoke 5f0c1d2e3a4b5c6d")]
    Revoke(TokenRevokeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// Whose it is, for the audit log
    pub(crate) name: String,
    /// viewer, deployer, operator or admin
    #[arg(long)]
    pub(crate) role: Role,
    /// What a deployer may deploy; can be given several times
    #[arg(long = "project", value_name = "PROJECT", conflicts_with = "all_projects")]
    pub(crate) projects: Vec<ProjectName>,
    /// A deployer may deploy all projects, those too that will come
    #[arg(long)]
    pub(crate) all_projects: bool,
    /// For how long it is good, such as 12h or 90d [default: until it is revoked]
    #[arg(long = "for", value_parser = seconds, value_name = "TIME")]
    pub(crate) span: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRevokeArgs {
    /// Its id, as `sealift token list` shows it
    pub(crate) id: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuthorityCommand {
    /// Show the pin that servers are known by, and how far a change of roots is
    #[command(after_help = "Example: sealift authority show --roots > roots.pem")]
    Show(AuthorityShowArgs),
    /// Make a new root that is trusted from now on, and signs nothing yet
    #[command(after_help = "Example: sealift authority prepare")]
    Prepare,
    /// Have the new root sign
    #[command(after_help = "Example: sealift authority activate")]
    Activate(AuthorityStepArgs),
    /// Take away the old root
    #[command(after_help = "Example: sealift authority retire")]
    Retire(AuthorityStepArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AuthorityShowArgs {
    /// Print the roots' certificates, and nothing else
    #[arg(long)]
    pub(crate) roots: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AuthorityStepArgs {
    /// Even if machines that do not know the new root yet lose contact by it, and have to join anew
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct JoinTokenArgs {
    /// For how long it is good, a week at most
    #[arg(long = "for", default_value = "1h", value_parser = seconds, value_name = "TIME")]
    pub(crate) span: Duration,
    /// How many machines it lets in
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) uses: u32,
    /// The only machine that it lets in, by its id; it may be one that has joined before
    #[arg(long, value_name = "ID")]
    pub(crate) machine: Option<MachineId>,
    /// The machines that it lets in are of this class, whatever they say themselves
    #[arg(long)]
    pub(crate) class: Option<String>,
    /// List the tokens that there are, and make none
    #[arg(long, conflicts_with_all = ["uses", "machine", "class", "revoke"])]
    pub(crate) list: bool,
    /// Take back the token with this id, and make none
    #[arg(long, value_name = "TOKEN-ID", conflicts_with_all = ["uses", "machine", "class"])]
    pub(crate) revoke: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Only what happened in this time, such as 2h or 7d [default: all that is kept]
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    pub(crate) since: Option<Duration>,
    /// Only what this user did
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Go on as things happen
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// How an agent is let in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Joining")]
pub(crate) struct JoinArgs {
    /// Join with the token in this file, if this machine has not joined yet; or with the one in SEALIFT_JOIN_TOKEN
    #[arg(long, env = "SEALIFT_JOIN", value_name = "FILE")]
    pub(crate) join: Option<PathBuf>,
}

/// Where a server speaks TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "For other machines")]
pub(crate) struct TlsArgs {
    /// Where the API listens with TLS, such as 0.0.0.0:4641, for machines that join and users with tokens
    #[arg(long, env = "SEALIFT_LISTEN_TLS", value_name = "IP:PORT")]
    pub(crate) listen_tls: Option<String>,
    /// The names and addresses that others know this server by [default: the host name, localhost and the machine's address]
    #[arg(long = "tls-name", env = "SEALIFT_TLS_NAME", value_delimiter = ',', value_name = "NAME,...")]
    pub(crate) tls_names: Vec<String>,
    /// Tell /metrics to anybody who asks, not only to users
    #[arg(long, env = "SEALIFT_OPEN_METRICS")]
    pub(crate) open_metrics: bool,
}
