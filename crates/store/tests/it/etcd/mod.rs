//! The store on a real etcd: the contract, and what only a cluster can do to it.

mod cluster;
mod contract;
