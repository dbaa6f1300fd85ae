//! The messages of the HTTP API, `/v1`. Requests and answers are JSON; watches and logs are streams of one JSON value
//! a line. Lists are wrapped in an object so that they can gain fields.

use std::collections::{BTreeMap, BTreeSet};

use sealift_model::{
    App, AppPhase, Assignment, Availability, BranchName, CommitId, DesiredState, Digest, Machine, MachineId,
    MachineSettings, Maintenance, Package, Placement, Presence, ProjectName, Projects, Release,
    ReleaseNumber, Role, RunEvent, RunId, SecretName, SecretValue, SessionId, StepResult, Timestamp, Unit,
    UnitName, UnitStatus, UpdatePolicy, Withdrawal,
};
use serde::{Deserialize, Serialize};

/// A list answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct List<T> {
    pub items: Vec<T>,
}

/// Every answer with a status of 400 and above.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub error: FailureText,
}

/// What went wrong, for programs (`code`) and for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureText {
    /// Stable and in kebab case: `not-found`, `conflict`, `invalid`, `storage-full`, `fenced`, `unknown`
    /// (it may have been done), ... From fleet's API it is the status.
    #[serde(deserialize_with = "word_or_number")]
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// fleet's refusals have a number where ours have a word.
fn word_or_number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Code {
        Word(String),
        Number(u16),
    }
    Ok(match Code::deserialize(from)? {
        Code::Word(word) => word,
        Code::Number(number) => number.to_string(),
    })
}

/// `GET /v1/status`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// The store's revision that this answer shows at least.
    pub revision: u64,
    pub machines_present: usize,
    pub machines: usize,
    /// The name of the server that decides, where several share a store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<String>,
    pub runs_queued: usize,
    pub runs_running: usize,
    /// Keys of records that are there and not understood; they hold up nothing else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
    /// Nodes that wait for a person.
    #[serde(default)]
    pub approvals: usize,
    pub packages: usize,
    pub apps: Vec<AppStatus>,
    /// The public key that packages are signed with, as `minisign -P` takes it.
    pub public_key: String,
}

/// `GET /v1/machines`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineStatus {
    #[serde(flatten)]
    pub machine: Machine,
    /// None while the machine is away.
    #[serde(default)]
    pub presence: Option<Presence>,
    pub units: usize,
    pub runs: usize,
    /// What operators set of it.
    #[serde(default)]
    pub settings: MachineSettings,
}

impl MachineStatus {
    /// Its metadata as units see it: what the machine says, with what operators set put over it.
    #[must_use]
    pub fn metadata(&self) -> BTreeMap<String, String> {
        self.settings.metadata_over(&self.machine.metadata)
    }
}

/// `POST /v1/machines/{id}/settings`, answered by the [`MachineSettings`] as they are then. What is not named stays.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ChangeSettings {
    /// Keys to set over the machine's own; null takes a key away.
    #[serde(default)]
    pub metadata: BTreeMap<String, Option<String>>,
    /// Keys to leave to the machine again.
    #[serde(default)]
    pub unset: BTreeSet<String>,
    #[serde(default)]
    pub availability: Option<Availability>,
    /// In place of all that are planned.
    #[serde(default)]
    pub maintenance: Option<Vec<Maintenance>>,
}

/// `GET /v1/units` (`?text=false` leaves the texts out), `GET /v1/units/{unit}`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitView {
    #[serde(flatten)]
    pub unit: Unit,
    #[serde(default)]
    pub placement: Option<Placement>,
    /// The machines that it is to run on now: the one it is placed on, or those that a global unit suits.
    #[serde(default)]
    pub targets: Vec<MachineId>,
    /// What machines say of it, by machine id.
    #[serde(default)]
    pub statuses: BTreeMap<String, UnitStatus>,
    /// Those of them that are away: what they said last may not be so any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub away: Vec<MachineId>,
    /// Why it is nowhere, when it is nowhere.
    #[serde(default)]
    pub problem: Option<String>,
    /// Of a template with `Replicas=` that is wanted: how far its instances are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicasView>,
}

/// The instances `x@1` to `x@N` of a template with `Replicas=N`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicasView {
    pub wanted: u32,
    /// Those that are as the template says they are to be, and on a machine.
    pub ready: u32,
    /// Why one of the others is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// One of them failed, which does not pass by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}

/// What `GET /v1/rollouts` lists: a change that not all it concerns have yet, or that was taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutView {
    /// The unit, or the template of the instances that change together.
    pub name: UnitName,
    pub state: RolloutState,
    /// Instances, or machines of a global unit, that were given the change.
    pub updated: Vec<String>,
    /// Those that have what was before.
    pub waiting: Vec<String>,
    /// What turned out badly, or what one that is waited for is not well by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub policy: UpdatePolicy,
}

/// How a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RolloutState {
    Rolling,
    /// It stopped where it was.
    Failed,
    /// It was taken back, or is being.
    Back,
    #[serde(other)]
    Unknown,
}

/// `POST /v1/rollouts/{unit}`: what is to become of it. Answered by the list of units that were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "lowercase")]
pub enum SteerRollout {
    Back,
    Again,
}

/// `POST /v1/units`: what is to become of units that belong to no app. All of them are looked at before any is written;
/// each is then written whole or not at all. Answered by a list of [`UnitChange`] in the same order.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PutUnits {
    pub units: Vec<PutUnit>,
    /// A unit that is there with another text gets this one; else it keeps its own.
    #[serde(default)]
    pub replace: bool,
}

/// One unit of [`PutUnits`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PutUnit {
    pub name: UnitName,
    /// The unit file; none: the text that the unit has, or that of its template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Files of its `<unit>.d/` folder; they come and go with the text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drop_ins: BTreeMap<String, String>,
    /// None: as it is; a new unit is inactive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<DesiredState>,
    /// Started anew wherever it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restart: bool,
}

impl PutUnit {
    /// A unit that is there already, or the instance of a template that is.
    #[must_use]
    pub fn named(name: UnitName) -> PutUnit {
        PutUnit { name, text: None, drop_ins: BTreeMap::new(), desired: None, restart: false }
    }
}

/// What became of a [`PutUnit`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitChange {
    pub name: UnitName,
    /// The unit's generation after it.
    pub generation: u64,
    pub change: Change,
    /// The text that came is another than the unit keeps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub differs: bool,
}

/// How a record came to be as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Created,
    Changed,
    Unchanged,
}

/// `POST /v1/units/destroy`: units that belong to no app, gone for good. Those that are not there are no error. Answered
/// by a list of the names that were there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DestroyUnits {
    pub names: Vec<UnitName>,
}

/// `POST /v1/units/watch`: how these units are now and whenever that changes, as lines of [`UnitEvent`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct WatchUnits {
    pub names: Vec<UnitName>,
}

/// A line of [`WatchUnits`]' answer, without the unit's text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnitEvent {
    pub name: UnitName,
    /// None: there is no such unit.
    pub view: Option<UnitView>,
    /// Machines in contact that still say something of a unit that is not there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaving: Vec<MachineId>,
}

/// `GET /v1/units/{unit}/explain`: what each machine is to the unit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineVerdict {
    pub machine: MachineId,
    pub name: String,
    pub verdict: Suitability,
    /// In words.
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suitability {
    /// It is there.
    Here,
    /// It could come.
    Fits,
    No,
}

/// `POST /v1/plan`: what would be done if this were asked for. Nothing is changed. Answered by a [`PlanView`]; 429 (`busy`)
/// when the server is occupied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum PlanRequest {
    /// `POST /v1/units`
    Units(PutUnits),
    /// `POST /v1/units/destroy`
    Destroy(DestroyUnits),
    /// `POST /v1/machines/{machine}/settings`
    Settings { machine: MachineId, settings: ChangeSettings },
    /// If this machine were away for good.
    Lose { machine: MachineId },
    /// `POST /v1/rebalance`
    Rebalance(Rebalance),
}

/// What would be done, as if every machine did at once what it is told.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PlanView {
    /// In their order.
    pub steps: Vec<PlanStep>,
    /// Units that would be on no machine that is there, of those that have one now or are asked for.
    pub nowhere: Vec<PlanNowhere>,
    /// Units that are known with another text than the one that came, which they would keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<UnitName>,
    /// There are more steps than are told; the rest is not known.
    #[serde(default)]
    pub cut: bool,
}

/// One thing that would be done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanStep {
    pub step: StepKind,
    /// None: it is about a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MachineId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<MachineId>,
    /// In words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// A unit that is nowhere comes to a machine.
    Place,
    /// A unit leaves a machine and comes to another.
    Move,
    /// A unit leaves a machine and comes to no other.
    Leave,
    /// A global unit comes to a machine.
    Start,
    /// A global unit leaves a machine.
    Stop,
    /// A unit stays on its machine, and its text or what is wanted of it is another.
    Change,
    /// A run's attempt is lost with its machine; the run starts anew.
    Requeue,
}

/// A unit that would be on no machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanNowhere {
    pub unit: UnitName,
    /// The machine that it has now; none if it is asked for and has none, or is global.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<MachineId>,
    /// In words. None: there are so many that only the first have theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `POST /v1/rebalance`: takes units from machines that have more to do than others, so that they come to those. Answered
/// by a list of [`Move`] once they are begun; 409 (`conflict`) while another is being answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rebalance {
    /// So many moves at most, and never more than 100.
    pub most: u32,
}

/// A unit that was taken from its machine to come to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub unit: UnitName,
    pub from: MachineId,
    /// Where it is meant to go. Where it comes to is decided when it has stopped.
    pub to: MachineId,
    /// The placement that ended.
    pub placement: u64,
}

/// `GET /v1/apps`, `GET /v1/apps/{project}`, and each line of `GET /v1/apps/{project}/watch`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppStatus {
    #[serde(flatten)]
    pub app: App,
    pub phase: AppPhase,
    /// The release that should run; none when its record is missing.
    #[serde(default)]
    pub release: Option<Release>,
    /// A line for each unit of it: what it waits for or why it failed.
    #[serde(default)]
    pub units: Vec<AppUnit>,
}

/// One unit of an app's release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppUnit {
    pub unit: UnitName,
    /// Host name of the machine it is on.
    #[serde(default)]
    pub machine: Option<String>,
    /// Whether it runs the current release.
    pub current: bool,
    #[serde(default)]
    pub status: Option<UnitStatus>,
    /// The problem will not pass by itself: another release is needed.
    #[serde(default)]
    pub lasting: bool,
    #[serde(default)]
    pub problem: Option<String>,
}

/// `POST /v1/apps/{project}/rollback`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rollback {
    /// The release to go back to; the newest one before the current when not given.
    #[serde(default)]
    pub to: Option<ReleaseNumber>,
}

/// `PUT /v1/projects/{project}/secrets/{name}`, answered by [`SecretInfo`]; `DELETE` takes the secret away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewSecret {
    pub value: SecretValue,
}

/// What `GET /v1/projects/{project}/secrets` lists: all that is told of a secret but to the runs that are given it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretInfo {
    pub name: SecretName,
    /// When its value was last set.
    pub changed_at: Timestamp,
}

/// `POST /v1/blobs`, whose body is the bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    pub digest: Digest,
    pub size: u64,
}

/// `POST /v1/runs`. Answered when the run is on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewRun {
    pub project: ProjectName,
    pub branch: BranchName,
    pub commit: CommitId,
    #[serde(default)]
    pub subject: String,
    /// A tar archive of the commit's tree that was stored before.
    pub source: Digest,
    pub pipeline: String,
    /// Makes the request safe to send again: a run with the same key is not queued twice.
    pub request: String,
}

/// A line of `GET /v1/runs/{id}/log`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEntry {
    pub attempt: u32,
    #[serde(flatten)]
    pub event: RunEvent,
}

/// `POST /v1/machines/{id}/session`: an agent's new life begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewSession {
    pub machine: Machine,
    pub session: SessionId,
}

/// Its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionBegun {
    /// How long the machine counts as present after a keep-alive.
    pub ttl_millis: u64,
}

/// `POST /v1/machines/{id}/keep-alive`. Answered by 410 when the session is over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeepAlive {
    pub session: SessionId,
}

/// A line of `GET /v1/machines/{id}/assignments`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum AssignmentEvent {
    /// All assignments there are; the first line.
    All {
        assignments: Vec<Assignment>,
        /// Units that are not assigned and of which the server has not heard that they are not there.
        #[serde(default)]
        drop_units: Vec<Withdrawal>,
    },
    /// What one change of the state did to them, together.
    Changed {
        /// New and changed ones.
        put: Vec<Assignment>,
        /// Units that are no longer assigned; each wants to be confirmed by [`Statuses::gone`], held or not.
        drop_units: Vec<Withdrawal>,
        /// Attempts that are no longer assigned: over, aborted or handed to another.
        drop_runs: Vec<(RunId, u32)>,
    },
    /// Somebody wants to know something that only the machine can tell.
    Ask { questions: Vec<Question> },
    /// From a newer server; left aside.
    #[serde(other)]
    Unknown,
}

/// What a machine is asked; it answers with `POST /v1/machines/{id}/answers/{question}`, whose body is the answer as it comes,
/// or, with `?failed=true`, why there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Hard to guess, and never given twice.
    pub id: String,
    pub unit: UnitName,
    pub about: About,
    /// Where the answer is waited for, if that is not wherever the machine is connected to.
    #[serde(default)]
    pub answer_to: Option<String>,
}

/// What of a unit is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum About {
    /// `GET /v1/units/{unit}/journal?lines=N&follow=true&format=F&machine=ID`
    Journal {
        /// So many of the newest lines.
        lines: u32,
        /// And those that come, until nobody listens any more.
        follow: bool,
        /// One of journalctl's output formats.
        format: String,
    },
    /// `GET /v1/units/{unit}/systemd?machine=ID`: what `systemctl status` says.
    Status,
    #[serde(other)]
    Unknown,
}

/// `POST /v1/machines/{id}/statuses`: what changed since the last report of this session; the first holds all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statuses {
    pub session: SessionId,
    pub statuses: Vec<UnitStatus>,
    /// Units whose stop and removal this confirms.
    #[serde(default)]
    pub gone: Vec<Withdrawal>,
    /// True for a session's first report: what was said before of units that it does not name counts no more.
    #[serde(default)]
    pub all: bool,
}

/// `POST /v1/runs/{id}/attempts/{n}/events`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Events {
    pub session: SessionId,
    pub events: Vec<RunEvent>,
}

/// `POST /v1/runs/{id}/attempts/{n}/secrets`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskSecrets {
    pub session: SessionId,
}

/// Its answer: the secrets of the run's project.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSecrets {
    pub secrets: BTreeMap<SecretName, SecretValue>,
}

/// `POST /v1/runs/{id}/attempts/{n}/approvals`: a node waits for a person. Answered by an [`sealift_model::Approval`] as soon as there
/// is an answer in it, or without one after a while; then the agent asks again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AskApproval {
    pub session: SessionId,
    pub node: String,
    pub question: String,
}

/// `POST /v1/runs/{id}/answer`, answered by the [`sealift_model::Approval`] as it stands then. The same answer twice is taken once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GiveAnswer {
    /// May be left out where only one node has asked.
    #[serde(default)]
    pub node: Option<String>,
    pub approved: bool,
    /// Why, for the log.
    #[serde(default)]
    pub reason: Option<String>,
    /// The name of whoever says it.
    pub by: String,
}

/// What `GET /v1/approvals` lists: a node that waits for an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitingApproval {
    pub run: RunId,
    pub project: ProjectName,
    pub branch: BranchName,
    pub node: String,
    pub question: String,
    pub since: Timestamp,
}

/// `POST /v1/runs/{id}/attempts/{n}/finish`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    pub session: SessionId,
    pub passed: bool,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub steps: Vec<StepResult>,
    /// What it made, stored before: an archive as the package crate packs it.
    #[serde(default)]
    pub artifact: Option<Digest>,
    /// The commit's unit files, which are in the artifact too.
    #[serde(default)]
    pub units: BTreeMap<UnitName, String>,
    /// The files of their `<unit>.d/` folders, in the same way.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drop_ins: BTreeMap<UnitName, BTreeMap<String, String>>,
}

/// What `GET /v1/packages` lists.
pub type Packages = List<Package>;

/// `POST /v1/join`: a machine asks to be let in. The only route besides `/healthz` that asks for no identity.
#[derive(Clone, Serialize, Deserialize)]
pub struct Join {
    /// The join token in full.
    pub token: String,
    pub machine: MachineId,
    /// A request for a certificate (PKCS #10 in PEM), by which the machine shows that it holds the key.
    pub request: String,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Join").field("machine", &self.machine).finish_non_exhaustive()
    }
}

/// `POST /v1/machines/{id}/certificate`: a machine asks for a new certificate in good time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Renew {
    /// As in [`Join`]; the key is a new one.
    pub request: String,
}

/// The answer to both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineCertificate {
    /// The machine's certificate and the root that signed it, in PEM.
    pub certificate: String,
    /// All roots to trust from now on, in PEM.
    pub roots: String,
    pub expires_at: Timestamp,
    /// The public key that packages are signed with.
    pub public_key: String,
}

/// `POST /v1/tokens`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewToken {
    /// Whose it is.
    pub name: String,
    pub role: Role,
    /// For deployers: what they may deploy.
    #[serde(default)]
    pub projects: Projects,
    /// For how long it is good; until it is revoked when not given.
    #[serde(default)]
    pub seconds: Option<u64>,
}

/// What `GET /v1/tokens` lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenInfo {
    pub id: String,
    pub name: String,
    pub role: Role,
    #[serde(default)]
    pub projects: Projects,
    pub created_at: Timestamp,
    pub created_by: String,
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
}

/// `POST /v1/join-tokens`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewJoinToken {
    /// For how long it is good, a week at most.
    pub seconds: u64,
    /// How many machines it lets in.
    pub uses: u32,
    /// The only machine that it lets in. It may be one that has joined before: its old certificates are then no good.
    #[serde(default)]
    pub machine: Option<MachineId>,
    /// The class of the machines that it lets in.
    #[serde(default)]
    pub class: Option<String>,
}

/// What `GET /v1/join-tokens` lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinTokenInfo {
    pub id: String,
    pub created_at: Timestamp,
    pub created_by: String,
    pub expires_at: Timestamp,
    pub uses_left: u32,
    #[serde(default)]
    pub machine: Option<MachineId>,
    #[serde(default)]
    pub class: Option<String>,
}

/// The answer to `POST /v1/tokens` and `POST /v1/join-tokens`: the only time that a token is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct Made<T> {
    /// The token in full.
    pub token: String,
    #[serde(flatten)]
    pub info: T,
}

impl<T: std::fmt::Debug> std::fmt::Debug for Made<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token is a secret.
        f.debug_struct("Made").field("info", &self.info).finish_non_exhaustive()
    }
}

/// `GET /v1/authority`, and what `POST /v1/authority/{step}` answers. Steps are `prepare`, `activate` and `retire`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuthorityInfo {
    /// SHA-256 of the certificate of the root that signs.
    pub pin: String,
    /// Of all roots that are trusted, oldest first.
    pub pins: Vec<String>,
    /// The certificates of these, in PEM.
    pub roots: String,
    /// When the root that signs runs out.
    pub expires_at: Timestamp,
    /// `no`, `prepared` or `activated`: how far a change of roots is.
    pub change: String,
    /// Machines that have joined and do not know the newest root yet.
    pub unaware: Vec<MachineId>,
}

/// `POST /v1/authority/{step}`
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct AuthorityStep {
    /// Even if machines lose contact by it.
    #[serde(default)]
    pub force: bool,
}

/// A line of the audit log, and of `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub at: Timestamp,
    /// `local`, `user:NAME`, `machine:ID`, or `nobody`.
    pub who: String,
    /// An address, or `unix`.
    pub from: String,
    pub method: String,
    /// As the API describes it: `/v1/runs/{run}/abort`.
    pub route: String,
    /// The path that was asked for, or what was made.
    pub object: String,
    /// The HTTP status that was answered.
    pub status: u16,
    /// The code of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}
