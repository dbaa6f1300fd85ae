//! Steps that are packages: looked up on the server, fetched, checked and unpacked like any release.
//!
//! Guarantees: nothing is handed out whose digest or signature does not fit.
//!
//! It must not know what a step is.

use std::path::PathBuf;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sealift_client::Client;
use sealift_client::api::Packages;
use sealift_pipeline::steps::{PackageError, PackageSource, WantedPackage};

use crate::releases::{self, Releases};

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the server does not say which packages there are")]
    List(#[from] sealift_client::Error),
    #[error("there is no package {wanted} on the server")]
    None { wanted: String },
    #[error(transparent)]
    Release(#[from] releases::Error),
}

/// The server's packages, kept in a folder of their own.
#[derive(Debug)]
pub(crate) struct StepPackages {
    client: Client,
    releases: Releases,
}

impl StepPackages {
    pub(crate) fn new(client: Client, releases: Releases) -> Self {
        Self { client, releases }
    }

    async fn find(&self, wanted: &WantedPackage) -> Result<PathBuf, Error> {
        let known: Packages = self.client.get(&format!("/v1/packages?project={}", wanted.project)).await?;
        // The newest is the first.
        let found = known.items.into_iter().find(|package| {
            package.name.branch == wanted.branch
                && wanted.commit.as_ref().is_none_or(|commit| *commit == package.name.commit)
        });
        let package = found.ok_or_else(|| Error::None { wanted: wanted.to_string() })?;
        let place = self.releases.ensure(&package).await?;
        // Old ones go; one that another run copies at this moment is among the newest.
        self.releases.prune(&package.name.project, std::slice::from_ref(&place))?;
        Ok(place)
    }
}

impl PackageSource for StepPackages {
    fn fetch<'a>(&'a self, wanted: &'a WantedPackage) -> BoxFuture<'a, Result<PathBuf, PackageError>> {
        async move { self.find(wanted).await.map_err(PackageError::from) }.boxed()
    }
}
