//! A watch as its reader sees it, whichever store is behind it.

use std::fmt::Debug;

use crate::{Batch, Error};

/// Changes of some keys, one [`Batch`] per commit, in the order of revisions, none lost and none twice. A batch without
/// events is progress.
#[derive(Debug)]
pub struct Watch {
    source: Box<dyn WatchSource>,
}

impl Watch {
    /// A watch over what a store reads its changes from.
    #[must_use]
    pub fn new(source: impl WatchSource + 'static) -> Watch {
        Watch { source: Box::new(source) }
    }

    /// The next change; none once the store is closed and everything was told. May be dropped while it waits (in a
    /// `select!`) without losing anything.
    ///
    /// # Errors
    /// [`Error::Compacted`] when this reader fell so far behind that changes are not kept any more, and
    /// [`Error::FutureRevision`] when the store was set back to a backup; both stay so. That a store cannot be reached for
    /// a while is no error.
    pub async fn next(&mut self) -> Result<Option<Batch>, Error> {
        self.source.next().await
    }
}

/// What a store implements for [`Watch`], under the same conditions as [`Watch::next`].
#[async_trait::async_trait]
pub trait WatchSource: Send + Debug {
    async fn next(&mut self) -> Result<Option<Batch>, Error>;
}
