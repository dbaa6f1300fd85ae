//! Who runs the controllers. A server that is the only one does; of several on one store it is the leader.
//!
//! What a leader writes holds only while nobody else leads, so a server that was frozen and believes in its lease for
//! longer than it lasted changes nothing.

use std::time::Duration;

use sealift_model::diagnostic::chain;
use sealift_store::election::Candidate;
use tokio_util::sync::CancellationToken;

use crate::controller::{self, Planning};
use crate::housekeeping;
use crate::keys::Key;
use crate::server::Inner;

/// Between two tries to be elected while the store does not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Leads whenever it can, until `end`; then lets others lead at once.
pub(crate) async fn run(inner: &Inner, end: &CancellationToken) {
    let Some(election) = &inner.election else {
        let mut planning = Planning::new(inner);
        let work =
            async { tokio::join!(controller::run(inner, None, &mut planning), housekeeping::run(inner)) };
        end.run_until_cancelled(work).await;
        return;
    };
    // JSON like every value.
    let name = serde_json::Value::from(election.name.as_str()).to_string();
    let candidate = Candidate::new(inner.store.clone(), Key::Leader, name, election.ttl);
    loop {
        let mut planning = Planning::new(inner);
        let elected = tokio::select! {
            () = end.cancelled() => return,
            elected = candidate.campaign() => elected,
            () = controller::stand_by(inner, &mut planning) => return,
        };
        let leadership = match elected {
            Ok(leadership) => leadership,
            Err(sealift_store::Error::Closed) => return,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot take part in the election; trying again");
                tokio::select! {
                    () = end.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => continue,
                }
            }
        };
        tokio::select! {
            () = end.cancelled() => {
                if let Err(error) = leadership.resign().await {
                    tracing::warn!(error = chain(&error), "cannot resign; others lead when the lease is over");
                }
                return;
            }
            () = leadership.lost() => {}
            () = controller::run(inner, Some(&leadership), &mut planning) => {}
            () = housekeeping::run(inner) => {}
        }
    }
}
