//! Looking after a cluster: its members, how each of them is, defragmentation, alarms and snapshots.
//!
//! Guarantees: every call has a time limit; a change of the membership is sent once, and one without an answer is
//! [`Error::Unknown`]; a snapshot ends with etcd's own SHA-256 of it, which the caller checks.
//!
//! Must not know: keys and values, and when any of this is a good idea.

use std::io;
use std::time::Duration;

use tokio::time::timeout;
use tonic::Streaming;

use super::client::{Client, Repeat};
use super::{EtcdOptions, OpenError, client, failed, to_u64, wire};
use crate::Error;

/// etcd changes members only when all that are there have been connected for five seconds.
const CHANGE_LIMIT: Duration = Duration::from_secs(12);
/// A member that is well says how it is at once.
const STATUS_LIMIT: Duration = Duration::from_secs(2);
/// A member copies its whole database while nobody else is answered.
const DEFRAGMENT_LIMIT: Duration = Duration::from_secs(120);
/// A snapshot that gives nothing for so long is given up.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(30);

/// Calls to the cluster as a whole, and to its members one by one.
#[derive(Debug)]
pub struct Maintenance {
    options: EtcdOptions,
    client: Client,
    /// For changes of the members.
    changes: Client,
}

/// A member as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: u64,
    /// Empty until it has started once.
    pub name: String,
    pub peer_urls: Vec<String>,
    /// Empty until it has started once.
    pub client_urls: Vec<String>,
    /// It is sent everything and has no vote yet.
    pub is_learner: bool,
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    pub cluster: u64,
    pub member: u64,
    /// None while it knows of no leader.
    pub leader: Option<u64>,
    pub version: String,
    /// Of its database's file, in bytes.
    pub db_size: u64,
    /// What of it is not free, in bytes.
    pub db_in_use: u64,
    /// The largest that the file may become, in bytes; etcd tells from 3.6 on.
    pub db_quota: Option<u64>,
    pub raft_term: u64,
    pub raft_index: u64,
    pub raft_applied: u64,
    /// The newest revision of the keys.
    pub revision: u64,
    pub errors: Vec<String>,
}

/// A member that was added, and what its etcd has to be started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMember {
    pub member: Member,
    /// All of them, the new one among them.
    pub members: Vec<Member>,
}

/// Something that a member has raised and that stays until it is disarmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    pub member: u64,
    pub kind: AlarmKind,
}

/// Of which kind an alarm is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlarmKind {
    /// The quota is used up; etcd takes no writes but deletions.
    NoSpace,
    /// The members' databases differ.
    Corrupt,
    Other(i32),
}

impl AlarmKind {
    fn of(number: i32) -> AlarmKind {
        match wire::AlarmType::try_from(number) {
            Ok(wire::AlarmType::NoSpace) => AlarmKind::NoSpace,
            Ok(wire::AlarmType::Corrupt) => AlarmKind::Corrupt,
            Ok(wire::AlarmType::None) | Err(_) => AlarmKind::Other(number),
        }
    }

    fn number(self) -> i32 {
        match self {
            AlarmKind::NoSpace => wire::AlarmType::NoSpace.into(),
            AlarmKind::Corrupt => wire::AlarmType::Corrupt.into(),
            AlarmKind::Other(number) => number,
        }
    }
}

/// Why a snapshot did not come whole.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error("cannot keep the snapshot")]
    Write(#[source] io::Error),
}

impl Maintenance {
    /// Checks the options. The prefix plays no part.
    ///
    /// # Errors
    /// [`OpenError`], of the options alone.
    pub fn new(options: EtcdOptions) -> Result<Maintenance, OpenError> {
        let client = |limit| Ok(Client::new(options.check()?, options.user.clone(), limit));
        let (client, changes) = (client(options.timeout)?, client(options.timeout.max(CHANGE_LIMIT))?);
        Ok(Maintenance { options, client, changes })
    }

    /// All members, as one that has a leader knows them.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        self.list(&self.client).await
    }

    /// All members, as whoever answers knows them, also without a leader.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn members_without_leader(&self) -> Result<Vec<Member>, Error> {
        let endpoints = self.options.check().map_err(|error| invalid("list etcd's members", &error))?;
        let client = Client::new(endpoints, self.options.user.clone(), self.options.timeout);
        self.list(&client.without_leader()).await
    }

    async fn list(&self, client: &Client) -> Result<Vec<Member>, Error> {
        let answer: wire::MembersResponse = client
            .call(wire::MEMBER_LIST, wire::Ask {}, Repeat::Harmless)
            .await
            .map_err(|error| failed("list etcd's members", error))?;
        Ok(answer.members.into_iter().map(to_member).collect())
    }

    /// Counts one more member, which is then to be started.
    ///
    /// # Errors
    /// What etcd refuses, such as a change that would cost the quorum; [`Error::Unknown`].
    pub async fn add(&self, peer_urls: Vec<String>) -> Result<NewMember, Error> {
        let message = wire::MemberAddRequest { peer_urls };
        let answer: wire::MemberAddResponse = self
            .changes
            .call(wire::MEMBER_ADD, message, Repeat::Never)
            .await
            .map_err(|error| failed("add a member to etcd", error))?;
        let member = answer.member.map(to_member).ok_or_else(|| {
            Error::storage("understand etcd", io::Error::new(io::ErrorKind::InvalidData, "no member came"))
        })?;
        Ok(NewMember { member, members: answer.members.into_iter().map(to_member).collect() })
    }

    /// Counts the member no more; its process ends by itself if it lives.
    ///
    /// # Errors
    /// As of [`Maintenance::add`].
    pub async fn remove(&self, id: u64) -> Result<(), Error> {
        let message = wire::MemberRemoveRequest { id };
        self.changes
            .call::<_, wire::MembersResponse>(wire::MEMBER_REMOVE, message, Repeat::Never)
            .await
            .map(drop)
            .map_err(|error| failed("remove a member of etcd", error))
    }

    /// Tells the others where they reach a member from now on.
    ///
    /// # Errors
    /// As of [`Maintenance::add`].
    pub async fn update(&self, id: u64, peer_urls: Vec<String>) -> Result<(), Error> {
        let message = wire::MemberUpdateRequest { id, peer_urls };
        self.changes
            .call::<_, wire::MembersResponse>(wire::MEMBER_UPDATE, message, Repeat::Idempotent)
            .await
            .map(drop)
            .map_err(|error| failed("change a member of etcd", error))
    }

    /// How the member at this client URL is; also one that has no leader answers.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn status(&self, url: &str) -> Result<MemberStatus, Error> {
        let answer: wire::StatusResponse = self
            .member(url, self.options.timeout.min(STATUS_LIMIT), "ask a member of etcd")?
            .call(wire::STATUS, wire::Ask {}, Repeat::Harmless)
            .await
            .map_err(|error| failed("ask a member of etcd", error))?;
        let header = answer.header.unwrap_or_default();
        Ok(MemberStatus {
            cluster: header.cluster_id,
            member: header.member_id,
            leader: (answer.leader != 0).then_some(answer.leader),
            version: answer.version,
            db_size: to_u64(answer.db_size),
            db_in_use: to_u64(answer.db_size_in_use),
            db_quota: (answer.db_size_quota > 0).then(|| to_u64(answer.db_size_quota)),
            raft_term: answer.raft_term,
            raft_index: answer.raft_index,
            raft_applied: answer.raft_applied_index,
            revision: to_u64(header.revision),
            errors: answer.errors,
        })
    }

    /// Gives the free space of a member's database back to its disk. The member answers nobody meanwhile.
    ///
    /// # Errors
    /// Those of a change; it takes at most two minutes.
    pub async fn defragment(&self, url: &str) -> Result<(), Error> {
        self.member(url, DEFRAGMENT_LIMIT, "defragment a member of etcd")?
            .call::<_, wire::Done>(wire::DEFRAGMENT, wire::Ask {}, Repeat::Never)
            .await
            .map(drop)
            .map_err(|error| failed("defragment a member of etcd", error))
    }

    /// The alarms that are raised.
    ///
    /// # Errors
    /// Those of a read.
    pub async fn alarms(&self) -> Result<Vec<Alarm>, Error> {
        let answer = self.alarm(wire::AlarmAction::Get, 0, 0, "ask for etcd's alarms").await?;
        let alarms = answer.alarms.into_iter();
        Ok(alarms.map(|alarm| Alarm { member: alarm.member, kind: AlarmKind::of(alarm.alarm) }).collect())
    }

    /// Takes an alarm back; etcd raises it again if its reason is still there.
    ///
    /// # Errors
    /// Those of a change.
    pub async fn disarm(&self, alarm: Alarm) -> Result<(), Error> {
        let (member, kind) = (alarm.member, alarm.kind.number());
        self.alarm(wire::AlarmAction::Deactivate, member, kind, "disarm an alarm of etcd").await.map(drop)
    }

    async fn alarm(
        &self,
        action: wire::AlarmAction,
        member: u64,
        alarm: i32,
        doing: &'static str,
    ) -> Result<wire::AlarmResponse, Error> {
        let message = wire::AlarmRequest { action: action.into(), member, alarm };
        self.client.call(wire::ALARM, message, Repeat::Idempotent).await.map_err(|error| failed(doing, error))
    }

    /// The database of the member at this client URL as it stands, piece by piece, given to `keep`; says how many
    /// bytes came. The last 32 are etcd's SHA-256 of all before.
    ///
    /// # Errors
    /// [`SnapshotError`]; also when the member gives nothing for half a minute.
    pub async fn snapshot(
        &self,
        url: &str,
        mut keep: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<u64, SnapshotError> {
        const DOING: &str = "get a snapshot of etcd";
        let member = self.member(url, SNAPSHOT_PATIENCE, DOING)?;
        let (first, mut answers): (wire::SnapshotResponse, Streaming<wire::SnapshotResponse>) =
            member.download(wire::SNAPSHOT, wire::Ask {}).await.map_err(|error| failed(DOING, error))?;
        let mut piece = first.blob;
        let mut bytes = 0_u64;
        loop {
            keep(&piece).map_err(SnapshotError::Write)?;
            bytes += piece.len() as u64;
            match timeout(SNAPSHOT_PATIENCE, answers.message()).await {
                Ok(Ok(Some(next))) => piece = next.blob,
                Ok(Ok(None)) => return Ok(bytes),
                Ok(Err(status)) => {
                    return Err(Error::storage(DOING, io::Error::other(client::text(&status))).into());
                }
                Err(_) => return Err(Error::storage(DOING, io::ErrorKind::TimedOut.into()).into()),
            }
        }
    }

    /// Calls to one member.
    fn member(&self, url: &str, limit: Duration, doing: &'static str) -> Result<Client, Error> {
        let endpoints = self.options.at([url]).check().map_err(|error| invalid(doing, &error))?;
        Ok(Client::new(endpoints, self.options.user.clone(), limit).without_leader())
    }
}

/// A member has told a URL that cannot be used.
fn invalid(doing: &'static str, error: &OpenError) -> Error {
    Error::storage(doing, io::Error::new(io::ErrorKind::InvalidInput, error.to_string()))
}

fn to_member(member: wire::Member) -> Member {
    let wire::Member { id, name, peer_urls, client_urls, is_learner } = member;
    Member { id, name, peer_urls, client_urls, is_learner }
}
