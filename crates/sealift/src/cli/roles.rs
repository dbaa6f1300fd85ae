//! The arguments of `sealift server` and `sealift agent`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use sealift_client::Address;
use sealift_model::{MachineId, Resources};

use super::access::{JoinArgs, TlsArgs};

pub(super) const SERVER_EXAMPLES: &str = "\
Examples:
  sealift server
  sealift server --listen-tls 0.0.0.0:4641
  sealift server --etcd https://a:2379,https://b:2379,https://c:2379 --etcd-ca ca.pem

Without --etcd the state is in a file, and there is one server. With it there are as many servers as you like; one of
them leads. Every option can be given as a variable too: SEALIFT_LISTEN, SEALIFT_ETCD, ...";

pub(super) const AGENT_EXAMPLES: &str = "\
Examples:
  sealift agent --server https://10.0.0.1:4641,https://10.0.0.2:4641 --join join.token
  sealift agent --server https://10.0.0.1:4641 --metadata region=eu,disk=ssd
  sealift agent --server http://10.0.0.1:4640 --reserve-memory 1G --reserve-cpu 0.5

Units go on running when the agent ends, and nothing is restarted when it comes back.";

#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Where the API listens besides its Unix socket; `none` for nowhere
    #[arg(long, env = "SEALIFT_LISTEN", default_value = "127.0.0.1:4640", value_name = "IP:PORT")]
    pub(crate) listen: String,
    /// Listen without TLS although others than this machine can reach it: for networks that are safe by themselves
    #[arg(long, env = "SEALIFT_PLAIN")]
    pub(crate) plain: bool,
    /// This server's name among others [default: the host name]
    #[arg(long, env = "SEALIFT_NAME")]
    pub(crate) name: Option<String>,
    /// How long a machine counts as present after its last word
    #[arg(long, env = "SEALIFT_MACHINE_TTL", default_value = "10s", value_parser = seconds, value_name = "TIME")]
    pub(crate) machine_ttl: Duration,
    /// Let etcd forget history that is older, for all who use it; 0 leaves that to etcd's own options
    #[arg(
        long,
        env = "SEALIFT_ETCD_KEEP",
        default_value = "1h",
        value_parser = seconds,
        value_name = "TIME",
        help_heading = "The state in etcd"
    )]
    pub(crate) etcd_keep: Duration,
    /// Defragment members with much free space this often, one after the other; for users who may (root)
    #[arg(
        long,
        env = "SEALIFT_ETCD_DEFRAG",
        value_parser = seconds,
        value_name = "EVERY",
        help_heading = "The state in etcd"
    )]
    pub(crate) etcd_defrag: Option<Duration>,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
    /// Where machines reach this server and no other, for answers to what was asked here [default: by its TLS name]
    #[arg(long, env = "SEALIFT_ADVERTISE", value_name = "ADDRESS")]
    pub(crate) advertise: Option<Address>,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}

/// Which etcd, and how to be let in.
#[derive(Debug, Args)]
#[command(next_help_heading = "The state in etcd")]
pub(crate) struct EtcdArgs {
    /// Keep the state in this etcd cluster: the client URLs of all its members
    #[arg(long = "etcd", env = "SEALIFT_ETCD", value_delimiter = ',', value_name = "URL,...")]
    pub(crate) endpoints: Vec<String>,
    /// What our keys begin with
    #[arg(
        long = "etcd-prefix",
        env = "SEALIFT_ETCD_PREFIX",
        default_value = "/sealift/",
        value_name = "PREFIX"
    )]
    pub(crate) prefix: String,
    /// The certificates that sign the members' [default: those of the machine]
    #[arg(long = "etcd-ca", env = "SEALIFT_ETCD_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Our certificate
    #[arg(long = "etcd-cert", env = "SEALIFT_ETCD_CERT", requires = "key", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key
    #[arg(id = "key", long = "etcd-key", env = "SEALIFT_ETCD_KEY", requires = "cert", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// Our user in etcd
    #[arg(long = "etcd-user", env = "SEALIFT_ETCD_USER", requires = "password_file", value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// Where the user's password is
    #[arg(long = "etcd-password-file", env = "SEALIFT_ETCD_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// The machine's identity [default: /etc/machine-id]
    #[arg(long, env = "SEALIFT_MACHINE_ID", value_name = "ID")]
    pub(crate) machine_id: Option<MachineId>,
    /// The machine's name [default: the host name]
    #[arg(long, env = "SEALIFT_NAME")]
    pub(crate) name: Option<String>,
    /// What units can ask for with MachineMetadata=
    #[arg(long, env = "SEALIFT_METADATA", value_delimiter = ',', value_parser = pair, value_name = "KEY=VALUE,...")]
    pub(crate) metadata: Vec<(String, String)>,
    /// Take only units that name this class with MachineClass=
    #[arg(long, env = "SEALIFT_CLASS")]
    pub(crate) class: Option<String>,
    /// Where others reach this machine [default: the address of the default route]
    #[arg(long, env = "SEALIFT_ADDRESS", value_name = "HOST")]
    pub(crate) address: Option<String>,
    /// Memory that is kept for the machine itself
    #[arg(long, env = "SEALIFT_RESERVE_MEMORY", default_value = "0", value_parser = bytes, value_name = "BYTES")]
    pub(crate) reserve_memory: u64,
    /// Cores that are kept for the machine itself
    #[arg(long, env = "SEALIFT_RESERVE_CPU", default_value = "0", value_parser = cores, value_name = "CORES")]
    pub(crate) reserve_cpu: u32,
    /// How many pipeline runs it takes at once
    #[arg(long, env = "SEALIFT_RUN_SLOTS", default_value_t = 0, value_name = "N")]
    pub(crate) run_slots: u32,
    /// Where the token for the server is [default: SEALIFT_TOKEN, else the state directory's]
    #[arg(long, env = "SEALIFT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) join: JoinArgs,
}

impl AgentArgs {
    pub(crate) fn reserved(&self) -> Resources {
        Resources { memory: self.reserve_memory, cpu: self.reserve_cpu }
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

/// `10s`, `2m`, `1h`, `90d`, `500ms`, or seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a time such as 10s".to_owned())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" | "min" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        "d" => Ok(Duration::from_secs(number.saturating_mul(24 * 3600))),
        other => Err(format!("{other:?} is no unit of time; there are ms, s, m, h and d")),
    }
}

/// `512M` and the like, powers of 1024 as systemd has them, or bytes.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a size such as 512M".to_owned())?;
    let power = match &text[digits.len()..] {
        "" | "B" => 0,
        "K" => 1,
        "M" => 2,
        "G" => 3,
        "T" => 4,
        other => return Err(format!("{other:?} is no unit of size; there are K, M, G and T")),
    };
    number.checked_mul(1 << (10 * power)).ok_or_else(|| "that is more than any machine has".into())
}

/// Cores as a decimal number, in thousandths.
fn cores(text: &str) -> Result<u32, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let wanted = || "expected cores such as 2 or 0.5".to_owned();
    if part.len() > 3 || part.starts_with(['+', '-']) {
        return Err(wanted());
    }
    let whole: u32 = whole.parse().map_err(|_| wanted())?;
    let part: u32 = format!("{part:0<3}").parse().map_err(|_| wanted())?;
    whole.checked_mul(1000).and_then(|whole| whole.checked_add(part)).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_by_table() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert!(bytes("1X").is_err() && bytes("").is_err() && bytes("99999999999T").is_err());
        assert_eq!(cores("2"), Ok(2000));
        assert_eq!(cores("0.5"), Ok(500));
        assert_eq!(cores("1.025"), Ok(1025));
        assert!(cores("1.0255").is_err() && cores("x").is_err() && cores("1.-5").is_err());
        assert_eq!(seconds("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(seconds("2m"), Ok(Duration::from_secs(120)));
        assert!(seconds("s").is_err() && seconds("5 days").is_err());
    }
}
