//! Who a request comes from, and which certificates of a machine count.

use sealift_model::{MachineId, ProjectName, Projects, Role, Timestamp};
use serde::{Deserialize, Serialize};

use crate::rights::{Right, holds};
use crate::token::TokenId;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Whoever may open the server's Unix socket or read its state folder: the owner, and an admin.
    Local,
    User {
        token: TokenId,
        name: String,
        role: Role,
        projects: Projects,
    },
    /// A machine that was joined, by its certificate.
    Machine(MachineId),
}

impl Identity {
    /// Whether it holds a right of users. Machines hold none: what they may do is said for each route of theirs.
    #[must_use]
    pub fn holds(&self, right: Right<'_>) -> bool {
        match self {
            Identity::Local => true,
            Identity::User { role, projects, .. } => holds(*role, projects, right),
            Identity::Machine(_) => false,
        }
    }

    /// Whether it may change this project.
    #[must_use]
    pub fn deploys(&self, project: &ProjectName) -> bool {
        self.holds(Right::Deploy(Some(project)))
    }

    /// Whether it is this machine. What has the server's own folder acts for its machine in `sealift dev`.
    #[must_use]
    pub fn speaks_for(&self, machine: &MachineId) -> bool {
        match self {
            Identity::Local => true,
            Identity::Machine(id) => id == machine,
            Identity::User { .. } => false,
        }
    }

    /// The user's name, where he has one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Identity::User { name, .. } => Some(name),
            _ => None,
        }
    }
}

/// As logs say it: `local`, `user:anna`, `machine:0123...`.
impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Identity::Local => f.write_str("local"),
            Identity::User { name, .. } => write!(f, "user:{name}"),
            Identity::Machine(id) => write!(f, "machine:{id}"),
        }
    }
}

/// A certificate's serial number, as lower-case hex digits.
pub type Serial = String;

/// Certificates of one machine that count at once: the newest, and those that it may still hold because the answer to a
/// renewal was lost.
const SERIALS: usize = 4;

/// What a machine that was joined is known by. While this record is there its certificates count; without it none does.
///
/// A list of who is in, and not one of who is out: it grows with the fleet and not with time, and a certificate that was
/// signed and never noted down counts nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineCredential {
    pub machine: MachineId,
    pub joined_at: Timestamp,
    /// The join token that let it in.
    pub token: TokenId,
    /// The class that the token gave it; the machine cannot call itself another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Oldest first, with their ends.
    serials: Vec<(Serial, Timestamp)>,
    /// The roots it was told of last, by their pins.
    #[serde(default)]
    pub roots: Vec<String>,
}

impl MachineCredential {
    #[must_use]
    pub fn new(machine: MachineId, joined_at: Timestamp, token: TokenId, class: Option<String>) -> Self {
        Self { machine, joined_at, token, class, serials: Vec::new(), roots: Vec::new() }
    }

    /// Notes a new certificate down. Those that have run out go, and the oldest if there are too many.
    pub fn issued(&mut self, serial: Serial, expires_at: Timestamp, roots: Vec<String>, now: Timestamp) {
        self.serials.retain(|(_, end)| *end > now);
        self.serials.push((serial, expires_at));
        let surplus = self.serials.len().saturating_sub(SERIALS);
        self.serials.drain(..surplus);
        self.roots = roots;
    }

    /// Whether a certificate with this number counts now.
    #[must_use]
    pub fn counts(&self, serial: &str, now: Timestamp) -> bool {
        self.serials.iter().any(|(known, end)| known == serial && *end > now)
    }

    /// When the newest certificate runs out.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.serials.last().map(|(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_certificates_count_until_they_run_out() {
        let machine: MachineId = "0".repeat(32).parse().unwrap();
        let mut credential =
            MachineCredential::new(machine, Timestamp(0), "0".repeat(16).parse().unwrap(), None);
        assert!(!credential.counts("a", Timestamp(0)));
        for (number, serial) in ["a", "b", "c", "d", "e"].into_iter().enumerate() {
            let now = Timestamp(number as u64);
            credential.issued(serial.into(), Timestamp(100 + number as u64), vec![], now);
        }
        let counting = |credential: &MachineCredential, now| {
            ["a", "b", "c", "d", "e"]
                .into_iter()
                .filter(|s| credential.counts(s, Timestamp(now)))
                .collect::<String>()
        };
        assert_eq!(counting(&credential, 10), "bcde");
        assert_eq!(counting(&credential, 102), "de");
        assert_eq!(counting(&credential, 104), "");
        credential.issued("f".into(), Timestamp(200), vec!["pin".into()], Timestamp(103));
        assert_eq!(counting(&credential, 103), "e");
        assert!(credential.counts("f", Timestamp(103)));
        assert_eq!(credential.expires_at(), Some(Timestamp(200)));
    }
}
