//! Finding what runs have made in the engine, by labels, and removing it.
//!
//! It must not know how runs are carried out.

use std::collections::HashMap;

use crate::engine::{Engine, Error};

const LABEL_RUN: &str = "dev.sealift.run";
const LABEL_OWNER: &str = "dev.sealift.owner";
const LABEL_ROLE: &str = "dev.sealift.role";

/// The labels of everything that a run makes; `role` says what it is for.
pub(crate) fn labels(key: &str, owner: &str, role: &str) -> HashMap<String, String> {
    [(LABEL_RUN, key), (LABEL_OWNER, owner), (LABEL_ROLE, role)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// Whose containers and networks to remove.
#[derive(Debug, Clone, Copy)]
pub enum Leftovers<'a> {
    /// All of an owner's.
    Owner(&'a str),
    /// Those of one run.
    Run(&'a str),
}

/// Removes containers and networks that runs have left behind, by their labels; how many there were.
///
/// # Errors
/// The first failure, after all have been tried.
pub async fn remove_leftovers(engine: &Engine, which: Leftovers<'_>) -> Result<usize, Error> {
    let label = match which {
        Leftovers::Owner(owner) => format!("{LABEL_OWNER}={owner}"),
        Leftovers::Run(key) => format!("{LABEL_RUN}={key}"),
    };
    let (containers, networks) = engine.labelled(&label).await?;
    let mut result = Ok(());
    for removed in futures_util::future::join_all(containers.iter().map(|name| engine.remove(name))).await {
        result = result.and(removed);
    }
    for network in &networks {
        result = result.and(engine.remove_network(network).await);
    }
    result?;
    Ok(containers.len() + networks.len())
}
