//! Roles of users, and the rights that they hold. What right a route needs is said where the routes are.

use sealift_model::{ProjectName, Projects, Role};

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right<'a> {
    Read,
    /// To change this project: none where the request does not say which, as when bytes are stored.
    Deploy(Option<&'a ProjectName>),
    Operate,
    Administer,
}

/// Whether a role with these projects holds a right.
#[must_use]
pub fn holds(role: Role, projects: &Projects, right: Right<'_>) -> bool {
    match right {
        Right::Read => true,
        Right::Deploy(_) if role >= Role::Operator => true,
        Right::Deploy(Some(project)) => role == Role::Deployer && projects.hold(project),
        Right::Deploy(None) => role == Role::Deployer,
        Right::Operate => role >= Role::Operator,
        Right::Administer => role >= Role::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_by_role() {
        let (mine, other): (ProjectName, ProjectName) = ("mine".parse().unwrap(), "other".parse().unwrap());
        let given = Projects::Some([mine.clone()].into());
        let rights = [
            Right::Read,
            Right::Deploy(None),
            Right::Deploy(Some(&mine)),
            Right::Deploy(Some(&other)),
            Right::Operate,
            Right::Administer,
        ];
        for (role, projects, held) in [
            (Role::Viewer, &given, [true, false, false, false, false, false]),
            (Role::Deployer, &Projects::None, [true, true, false, false, false, false]),
            (Role::Deployer, &given, [true, true, true, false, false, false]),
            (Role::Deployer, &Projects::All, [true, true, true, true, false, false]),
            (Role::Operator, &Projects::None, [true, true, true, true, true, false]),
            (Role::Admin, &Projects::None, [true; 6]),
        ] {
            assert_eq!(rights.map(|right| holds(role, projects, right)), held, "{role} of {projects:?}");
        }
    }
}
