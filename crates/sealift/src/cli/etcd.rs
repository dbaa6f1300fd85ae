//! The arguments of `sealift etcd` and `sealift store`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::roles::EtcdArgs;

pub(super) const EXAMPLES: &str = "\
Examples:
  sealift etcd status --etcd http://10.0.0.1:2379
  sealift etcd backup /srv/backup/etcd.db --etcd http://10.0.0.1:2379
  sealift etcd member replace node-2 --name node-4 --peer-url http://10.0.0.4:2380

Where the cluster is can be said once, as a variable: SEALIFT_ETCD=http://10.0.0.1:2379,http://10.0.0.2:2379";

pub(super) const STORE_EXAMPLES: &str = "\
Examples:
  sealift store move --to etcd --etcd http://10.0.0.1:2379,http://10.0.0.2:2379,http://10.0.0.3:2379
  sealift store move --to file --etcd http://10.0.0.1:2379

Stop the servers first. Blobs, logs, keys and secrets stay in the state directory.";

#[derive(Debug, Subcommand)]
pub(crate) enum EtcdCommand {
    /// How the cluster and each member is, and what to look after
    #[command(
        after_help = "Example: sealift etcd status --etcd http://10.0.0.1:2379 --output json\n\nExit code 1: a member does not answer, or something else is wrong that does not pass by itself."
    )]
    Status(EtcdArgs),
    /// Members: add, remove, replace, move
    #[command(subcommand, after_help = MEMBER_EXAMPLES, disable_help_subcommand = true)]
    Member(MemberCommand),
    /// Start a member of a cluster here, as etcd in the foreground
    #[command(after_help = START_EXAMPLES)]
    Start(Box<EtcdStart>),
    /// Write a snapshot of the cluster into a file, and check that it is whole
    #[command(
        after_help = "Example: sealift etcd backup /srv/backup/etcd.db --etcd http://10.0.0.1:2379\n\nIt holds what is in etcd. Packages, logs, keys and secrets are files of the servers: see docs/etcd.md."
    )]
    Backup(EtcdBackup),
    /// Make a member's data directory from a snapshot
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(EtcdRestore),
    /// Give free space back to the disks, one member after the other, the leader last
    #[command(
        after_help = "Examples:\n  sealift etcd defrag\n  sealift etcd defrag --all\n\nWithout --all only the members of whose database a quarter or more is free,\nand a MiB at the least."
    )]
    Defrag(EtcdDefrag),
}

const MEMBER_EXAMPLES: &str = "\
Examples:
  sealift etcd member add node-4 --peer-url http://10.0.0.4:2380
  sealift etcd member remove node-2
  sealift etcd member replace node-2 --name node-4 --peer-url http://10.0.0.4:2380
  sealift etcd member move node-2 --peer-url http://10.0.0.7:2380

A member is named by its name, its id or one of its URLs. What would cost the cluster its quorum is refused.";

const START_EXAMPLES: &str = "\
Examples:
  sealift etcd start --name node-1 --data-dir /var/lib/etcd --address 10.0.0.1 \\
    --initial node-1=http://10.0.0.1:2380,node-2=http://10.0.0.2:2380,node-3=http://10.0.0.3:2380
  sealift etcd start --name node-4 --data-dir /var/lib/etcd --address 10.0.0.4 --join http://10.0.0.1:2379
  sealift etcd start --cloud-config /etc/cloud-config.yml --address 10.0.0.1 --print
  sealift etcd start --name a --data-dir /var/lib/etcd -- --snapshot-count=50000

Once there is data in the directory the member goes on with that, and only its name and its URLs count.";

const RESTORE_EXAMPLES: &str = "\
Example, for each of three members with the same file:
  sealift etcd restore etcd.db --data-dir /var/lib/etcd --name node-1 \\
    --initial node-1=http://10.0.0.1:2380,node-2=http://10.0.0.2:2380,node-3=http://10.0.0.3:2380

Stop all members and all servers first. etcdutl or etcdctl has to be installed.";

#[derive(Debug, Subcommand)]
pub(crate) enum MemberCommand {
    /// Count a member more, and say how to start it
    #[command(after_help = "Example: sealift etcd member add node-4 --peer-url http://10.0.0.4:2380")]
    Add(MemberAdd),
    /// Count a member no more
    #[command(after_help = "Example: sealift etcd member remove node-2")]
    Remove(OneMember),
    /// Put a new member in the place of a lost one
    #[command(
        after_help = "Example: sealift etcd member replace node-2 --name node-4 --peer-url http://10.0.0.4:2380"
    )]
    Replace(MemberReplace),
    /// Tell the others the new address of a member
    #[command(
        after_help = "Example: sealift etcd member move node-2 --peer-url http://10.0.0.7:2380\n\nThen start the member with its new address; its data stays."
    )]
    Move(MemberMove),
}

#[derive(Debug, Args)]
pub(crate) struct MemberAdd {
    pub(crate) name: String,
    /// Where the others reach it
    #[arg(long, required = true, value_delimiter = ',', value_name = "URL,...")]
    pub(crate) peer_url: Vec<String>,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}

#[derive(Debug, Args)]
pub(crate) struct OneMember {
    pub(crate) member: String,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MemberReplace {
    /// The lost one
    pub(crate) member: String,
    /// The new one's name [default: the lost one's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where the others reach the new one [default: where they reached the lost one]
    #[arg(long, value_delimiter = ',', value_name = "URL,...")]
    pub(crate) peer_url: Vec<String>,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MemberMove {
    pub(crate) member: String,
    /// Where the others reach it from now on
    #[arg(long, required = true, value_delimiter = ',', value_name = "URL,...")]
    pub(crate) peer_url: Vec<String>,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EtcdStart {
    /// The member's name [default: the cloud-config's, else the host name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where its data is [default: the cloud-config's, else /var/lib/etcd]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where others reach this machine, and what $private_ipv4 stands for [default: the default route's address]
    #[arg(long, value_name = "IP")]
    pub(crate) address: Option<String>,
    /// What $public_ipv4 stands for in a cloud-config [default: --address]
    #[arg(long, value_name = "IP")]
    pub(crate) public_address: Option<String>,
    /// Where servers reach it [default: http://ADDRESS:2379]
    #[arg(long, value_name = "URL")]
    pub(crate) client_url: Option<String>,
    /// Where the other members reach it [default: http://ADDRESS:2380]
    #[arg(long, value_name = "URL")]
    pub(crate) peer_url: Option<String>,
    /// Begin a new cluster of these members
    #[arg(long, value_name = "NAME=URL,...", conflicts_with_all = ["join", "discovery"])]
    pub(crate) initial: Option<String>,
    /// Join the cluster that a member of it is at; it is told so first if need be
    #[arg(long, value_name = "URL", conflicts_with = "discovery")]
    pub(crate) join: Option<String>,
    /// Find the others with etcd's discovery service
    #[arg(long, value_name = "URL")]
    pub(crate) discovery: Option<String>,
    /// Take what is not said here from the coreos.etcd2 section of a cloud-config
    #[arg(long, value_name = "FILE")]
    pub(crate) cloud_config: Option<PathBuf>,
    /// Print the command, and start nothing and join nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// More options for etcd
    #[arg(last = true, value_name = "OPTIONS")]
    pub(crate) more: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EtcdBackup {
    /// Must not be there yet
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}

#[derive(Debug, Args)]
pub(crate) struct EtcdRestore {
    pub(crate) file: PathBuf,
    /// Where the member's data is to be; must not be there yet
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The member's name
    #[arg(long)]
    pub(crate) name: String,
    /// All members of the cluster, the same for each of them
    #[arg(long, value_name = "NAME=URL,...")]
    pub(crate) initial: String,
    /// What sets this cluster apart from the one before, the same for each member [default: made from the file]
    #[arg(long)]
    pub(crate) token: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct EtcdDefrag {
    /// Every member
    #[arg(long)]
    pub(crate) all: bool,
    /// Afterwards take back the alarm that the space is used up
    #[arg(long)]
    pub(crate) disarm: bool,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Move the state of an installation between its file and etcd
    #[command(after_help = STORE_EXAMPLES)]
    Move(StoreMove),
}

/// Where the state is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// In the state directory's file
    File,
    /// In etcd
    Etcd,
}

#[derive(Debug, Args)]
pub(crate) struct StoreMove {
    /// Where it goes; it comes from the other
    #[arg(long, value_enum)]
    pub(crate) to: StoreKind,
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
}
