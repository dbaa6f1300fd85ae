//! Users' roles and the projects that they are given. What each holds is said where requests are judged.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ProjectName;

/// What a user may do. Each role holds what the ones before it hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything but secrets.
    Viewer,
    /// Pushes, aborts, approves, rolls back and sets secrets, of the projects that he is given.
    Deployer,
    /// That of all projects, and units by hand, machines and join tokens.
    Operator,
    /// Users, the authority and the audit log as well.
    Admin,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::Viewer, Role::Deployer, Role::Operator, Role::Admin];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Deployer => "deployer",
            Role::Operator => "operator",
            Role::Admin => "admin",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("{text:?} is not a role; there are viewer, deployer, operator and admin"))
    }
}

/// The projects that a deployer is given. Other roles do not look at it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Projects {
    /// Those that will come too.
    All,
    Some(BTreeSet<ProjectName>),
    #[default]
    None,
}

impl Projects {
    #[must_use]
    pub fn hold(&self, project: &ProjectName) -> bool {
        match self {
            Projects::All => true,
            Projects::Some(projects) => projects.contains(project),
            Projects::None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_read_and_printed() {
        for role in Role::ALL {
            assert_eq!(role.to_string().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().unwrap_err().contains("operator"));
    }
}
