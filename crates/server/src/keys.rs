//! Where each object is kept in the store: the one place that knows keys.
//!
//! ```text
//! machines/<machine>                    Machine
//! presence/<machine>                    Presence, under the machine's lease
//! settings/<machine>                    MachineSettings
//! questions/<machine>/<question>         Question, under a lease of some seconds
//! units/<unit>                          Unit
//! placements/<unit>                     Placement
//! statuses/<machine>/<unit>             UnitStatus
//! rebalance/request                     Rebalancing, under a lease of a minute
//! updated/<machine>/<unit>              the generation that a machine of a global unit was updated to, while others are not yet
//! election/leader                       the name of the server that leads, under its lease
//! counters/placements                   the newest placement's id
//! counters/runs/<project>               the newest run's number
//! counters/generations                  what is added to the store's revision for a new unit's generation
//! transfer/state                        a transfer of everything that is under way or done: see `transfer`
//! requests/<key>                        RunId, under a lease of some minutes
//! runs/<project>/<number>               Run
//! packages/<project>/<branch>/<commit>  Package
//! apps/<project>                        App
//! releases/<project>/<number>           Release
//! authority/roots                       Authority, with its private keys
//! tokens/<id>                           UserRecord
//! join-tokens/<id>                      JoinRecord
//! credentials/<machine>                 MachineCredential
//! ```

use sealift_access::TokenId;
use sealift_model::{MachineId, PackageName, ProjectName, ReleaseNumber, RunId, UnitName};

/// What a key is the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Machine(MachineId),
    Presence(MachineId),
    Settings(MachineId),
    Question(MachineId, String),
    Unit(UnitName),
    Placement(UnitName),
    Status(MachineId, UnitName),
    Rebalance,
    Updated(MachineId, UnitName),
    Leader,
    PlacementCounter,
    RunCounter(ProjectName),
    GenerationBase,
    Transfer,
    Request(String),
    Run(RunId),
    Package(PackageName),
    App(ProjectName),
    Release(ProjectName, ReleaseNumber),
    Authority,
    User(TokenId),
    Join(TokenId),
    Credential(MachineId),
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Key::Machine(id) => write!(f, "machines/{id}"),
            Key::Presence(id) => write!(f, "presence/{id}"),
            Key::Settings(id) => write!(f, "settings/{id}"),
            Key::Question(machine, id) => write!(f, "questions/{machine}/{id}"),
            Key::Unit(name) => write!(f, "units/{name}"),
            Key::Placement(name) => write!(f, "placements/{name}"),
            Key::Status(machine, name) => write!(f, "statuses/{machine}/{name}"),
            Key::Rebalance => write!(f, "rebalance/request"),
            Key::Updated(machine, name) => write!(f, "updated/{machine}/{name}"),
            Key::Leader => write!(f, "election/leader"),
            Key::PlacementCounter => write!(f, "counters/placements"),
            Key::RunCounter(project) => write!(f, "counters/runs/{project}"),
            Key::GenerationBase => write!(f, "counters/generations"),
            Key::Transfer => write!(f, "transfer/state"),
            Key::Request(key) => write!(f, "requests/{key}"),
            // Padded, so that the store's order is the order of numbers.
            Key::Run(id) => write!(f, "runs/{}/{:012}", id.project, id.number),
            Key::Package(name) => {
                write!(f, "packages/{}/{}/{}", name.project, name.branch.segment(), name.commit)
            }
            Key::App(project) => write!(f, "apps/{project}"),
            Key::Release(project, number) => write!(f, "releases/{project}/{number:012}"),
            Key::Authority => write!(f, "authority/roots"),
            Key::User(id) => write!(f, "tokens/{id}"),
            Key::Join(id) => write!(f, "join-tokens/{id}"),
            Key::Credential(machine) => write!(f, "credentials/{machine}"),
        }
    }
}

impl From<Key> for String {
    fn from(key: Key) -> String {
        key.to_string()
    }
}

impl Key {
    /// Reads a key back; none for keys of a newer version, which are left alone.
    pub(crate) fn parse(text: &str) -> Option<Key> {
        let (kind, rest) = text.split_once('/')?;
        Some(match kind {
            "machines" => Key::Machine(rest.parse().ok()?),
            "presence" => Key::Presence(rest.parse().ok()?),
            "settings" => Key::Settings(rest.parse().ok()?),
            "questions" => {
                let (machine, id) = rest.split_once('/')?;
                Key::Question(machine.parse().ok()?, id.to_owned())
            }
            "units" => Key::Unit(rest.parse().ok()?),
            "placements" => Key::Placement(rest.parse().ok()?),
            "statuses" => {
                let (machine, unit) = rest.split_once('/')?;
                Key::Status(machine.parse().ok()?, unit.parse().ok()?)
            }
            "rebalance" if rest == "request" => Key::Rebalance,
            "updated" => {
                let (machine, unit) = rest.split_once('/')?;
                Key::Updated(machine.parse().ok()?, unit.parse().ok()?)
            }
            "election" if rest == "leader" => Key::Leader,
            "counters" if rest == "placements" => Key::PlacementCounter,
            "counters" if rest == "generations" => Key::GenerationBase,
            "transfer" if rest == "state" => Key::Transfer,
            "counters" => Key::RunCounter(rest.strip_prefix("runs/")?.parse().ok()?),
            "requests" => Key::Request(rest.to_owned()),
            "runs" => {
                let (project, number) = rest.split_once('/')?;
                Key::Run(RunId { project: project.parse().ok()?, number: number.parse().ok()? })
            }
            "packages" => {
                let mut parts = rest.split('/');
                let (project, branch, commit) = (parts.next()?, parts.next()?, parts.next()?);
                let branch = branch.replace("%2F", "/").replace("%25", "%").parse().ok()?;
                Key::Package(PackageName {
                    project: project.parse().ok()?,
                    branch,
                    commit: commit.parse().ok()?,
                })
            }
            "apps" => Key::App(rest.parse().ok()?),
            "releases" => {
                let (project, number) = rest.split_once('/')?;
                Key::Release(project.parse().ok()?, number.parse().ok()?)
            }
            "authority" if rest == "roots" => Key::Authority,
            "tokens" => Key::User(rest.parse().ok()?),
            "join-tokens" => Key::Join(rest.parse().ok()?),
            "credentials" => Key::Credential(rest.parse().ok()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        let machine: MachineId = "0123456789abcdef0123456789abcdef".parse().unwrap();
        let name = PackageName {
            project: "hello".parse().unwrap(),
            branch: "feature/100%".parse().unwrap(),
            commit: "a".repeat(40).parse().unwrap(),
        };
        for key in [
            Key::Machine(machine.clone()),
            Key::Presence(machine.clone()),
            Key::Settings(machine.clone()),
            Key::Question(machine.clone(), "5".into()),
            Key::Unit("a@1.service".parse().unwrap()),
            Key::Placement("a.service".parse().unwrap()),
            Key::Status(machine.clone(), "a.service".parse().unwrap()),
            Key::Updated(machine.clone(), "a.service".parse().unwrap()),
            Key::Credential(machine),
            Key::Authority,
            Key::User("0123456789abcdef".parse().unwrap()),
            Key::Join("0123456789abcdef".parse().unwrap()),
            Key::Rebalance,
            Key::Leader,
            Key::PlacementCounter,
            Key::RunCounter("hello".parse().unwrap()),
            Key::GenerationBase,
            Key::Transfer,
            Key::Request("x".into()),
            Key::Run("hello-12".parse().unwrap()),
            Key::Package(name),
            Key::App("hello".parse().unwrap()),
            Key::Release("hello".parse().unwrap(), 3),
        ] {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
        assert_eq!(Key::parse("from-the-future/x"), None);
        assert!(Key::Run("a-9".parse().unwrap()).to_string() < Key::Run("a-10".parse().unwrap()).to_string());
    }
}
