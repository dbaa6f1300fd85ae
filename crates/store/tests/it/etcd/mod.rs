//! The store on a real etcd: the contract, and what only a cluster can do to it.

mod access;
mod cluster;
mod contract;
mod election;
mod faults;
mod histories;
mod linearizability;
mod lists;
