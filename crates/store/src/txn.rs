//! Transactions: what has to hold, and what is then changed.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::{Error, LeaseId, MAX_KEY, MAX_OPS, MAX_TXN, MAX_VALUE, Revision};

/// Compares and operations that are carried out together or not at all. Without operations it is a mere check.
///
/// ```text
/// Txn::new().if_absent("lock").put_leased("lock", "me", lease)
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    compares: Vec<Compare>,
    ops: Vec<Op>,
}

/// What has to hold of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub key: String,
    pub expected: Expected,
}

/// How a key is expected to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Absent,
    Present,
    /// There, and last written at this revision.
    ModifiedAt(Revision),
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Takes the key from the lease it had.
    Put {
        key: String,
        value: Bytes,
        lease: Option<LeaseId>,
    },
    Delete {
        key: String,
    },
}

impl Op {
    /// The key that it changes.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

impl Txn {
    /// Nothing to hold, nothing to do.
    #[must_use]
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Only if the key is not there.
    #[must_use]
    pub fn if_absent(self, key: impl Into<String>) -> Txn {
        self.compare(key, Expected::Absent)
    }

    /// Only if the key is there.
    #[must_use]
    pub fn if_present(self, key: impl Into<String>) -> Txn {
        self.compare(key, Expected::Present)
    }

    /// Only if the key is there and was last written at `revision`.
    #[must_use]
    pub fn if_modified_at(self, key: impl Into<String>, revision: Revision) -> Txn {
        self.compare(key, Expected::ModifiedAt(revision))
    }

    /// Writes a key; a lease that it had lets go of it.
    #[must_use]
    pub fn put(self, key: impl Into<String>, value: impl Into<Bytes>) -> Txn {
        self.op(Op::Put { key: key.into(), value: value.into(), lease: None })
    }

    /// Writes a key that is deleted when `lease` ends.
    #[must_use]
    pub fn put_leased(self, key: impl Into<String>, value: impl Into<Bytes>, lease: LeaseId) -> Txn {
        self.op(Op::Put { key: key.into(), value: value.into(), lease: Some(lease) })
    }

    /// Deletes a key; one that is not there is no error and no change.
    #[must_use]
    pub fn delete(self, key: impl Into<String>) -> Txn {
        self.op(Op::Delete { key: key.into() })
    }

    /// What has to hold.
    #[must_use]
    pub fn compares(&self) -> &[Compare] {
        &self.compares
    }

    /// What is then changed, in order.
    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Checks the limits, so that every store refuses the same transactions before it changes anything.
    ///
    /// # Errors
    /// [`Error::TooManyOps`], [`Error::InvalidKey`], [`Error::ValueTooLarge`], [`Error::DuplicateKey`] or
    /// [`Error::TxnTooLarge`].
    pub fn check(&self) -> Result<(), Error> {
        let count = self.ops.len().max(self.compares.len());
        if count > MAX_OPS {
            return Err(Error::TooManyOps { count });
        }
        let keys =
            self.compares.iter().map(|compare| compare.key.as_str()).chain(self.ops.iter().map(Op::key));
        for key in keys {
            if key.is_empty() || key.len() > MAX_KEY {
                return Err(Error::InvalidKey { key: key.to_owned() });
            }
        }
        let mut written = BTreeSet::new();
        for op in &self.ops {
            if let Op::Put { key, value, .. } = op
                && value.len() > MAX_VALUE
            {
                return Err(Error::ValueTooLarge { key: key.clone(), size: value.len() });
            }
            if !written.insert(op.key()) {
                return Err(Error::DuplicateKey { key: op.key().to_owned() });
            }
        }
        let size = self.size();
        if size > MAX_TXN {
            return Err(Error::TxnTooLarge { size });
        }
        Ok(())
    }

    /// Bytes of its keys and values.
    #[must_use]
    pub fn size(&self) -> usize {
        let compares: usize = self.compares.iter().map(|compare| compare.key.len()).sum();
        let ops = self.ops.iter().map(|op| match op {
            Op::Put { key, value, .. } => key.len() + value.len(),
            Op::Delete { key } => key.len(),
        });
        compares + ops.sum::<usize>()
    }

    fn compare(mut self, key: impl Into<String>, expected: Expected) -> Txn {
        self.compares.push(Compare { key: key.into(), expected });
        self
    }

    fn op(mut self, op: Op) -> Txn {
        self.ops.push(op);
        self
    }
}
