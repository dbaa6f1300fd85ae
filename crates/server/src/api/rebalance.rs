//! Evening out on request. The request lies in the store until whichever server leads has answered it: only the planner
//! of that one knows that a unit is on its way and does not put it back.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use sealift_client::api::{List, Move, Rebalance};
use sealift_store::Txn;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{Error, json, unchanged};
use crate::keys::Key;
use crate::server::Inner;

/// All moves of one request are one transaction.
const MOST: u32 = 100;
/// How long nobody may lead before the request is taken back.
const PATIENCE: Duration = Duration::from_secs(20);
/// What nobody took back is gone after this.
const TTL: Duration = Duration::from_secs(60);

/// A request as it lies in the store, with the leader's answer once there is one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rebalancing {
    pub(crate) most: usize,
    pub(crate) moves: Option<Vec<Move>>,
}

/// What the request may ask for.
pub(super) fn checked(wanted: &Rebalance) -> Result<usize, Error> {
    if wanted.most == 0 || wanted.most > MOST {
        return Err(Error::invalid(format!(
            "{} moves; one rebalance may make 1 to {MOST}, and may be asked for again",
            wanted.most
        )));
    }
    Ok(usize::try_from(wanted.most).unwrap_or(usize::MAX))
}

pub(super) async fn rebalance(
    State(inner): State<Arc<Inner>>,
    Json(wanted): Json<Rebalance>,
) -> Result<Json<List<Move>>, Error> {
    let most = checked(&wanted)?;
    let lease = inner.store.grant_lease(TTL).await?;
    let asked = Rebalancing { most, moves: None };
    let txn = Txn::new().if_absent(Key::Rebalance);
    let written = inner.commit(txn.put_leased(Key::Rebalance, json(&asked)?, lease)).await;
    if let Err(error) = written {
        inner.store.revoke_lease(lease).await.ok();
        if error.is_conflict() {
            return Err(Error::Conflict("another rebalance is being begun; try again in a moment".into()));
        }
        return Err(error.into());
    }
    let answered = timeout(PATIENCE, answer(&inner, lease)).await;
    let moves = if let Ok(answered) = answered {
        answered
    } else {
        // Taken back, unless the answer came in this moment.
        let asked = {
            let world = inner.cache.world();
            unchanged(Txn::new(), &world, &Key::Rebalance)
        };
        match inner.commit(asked.delete(Key::Rebalance)).await {
            Ok(_) => {
                return Err(Error::Busy("no server leads now, so nothing was moved; try again in a moment"));
            }
            Err(error) if error.wants_another_look() => {
                inner.look_again().await?;
                answer(&inner, lease).await
            }
            Err(error) => return Err(error.into()),
        }
    };
    // Whoever comes next may ask at once. If it cannot be taken away now, it goes with its lease.
    inner.store.revoke_lease(lease).await.ok();
    moves.map(|items| Json(List { items })).ok_or_else(|| {
        Error::Conflict(
            "the request was taken away before it was answered; look at `sealift unit list`".into(),
        )
    })
}

/// The leader's answer to the request under this lease; none if the request is gone.
async fn answer(inner: &Inner, lease: sealift_store::LeaseId) -> Option<Vec<Move>> {
    let mut changes = inner.cache.changes();
    loop {
        changes.mark_unchanged();
        {
            let world = inner.cache.world();
            let ours = world.rebalance.as_ref().filter(|held| held.lease == Some(lease))?;
            if let Some(moves) = &ours.value.moves {
                return Some(moves.clone());
            }
        }
        changes.changed().await.ok()?;
    }
}
