//! Packages: what a pipeline made, as one archive of bytes with a digest, a name and a signature.
//!
//! - [`archive`] turns a folder into an archive and back; what comes from outside never leaves its folder.
//! - [`blobs`] keeps bytes under their digest in a directory, atomically.
//! - [`signing`] makes and checks detached signatures in minisign's format.
//!
//! The crate knows names and bytes. It does not know runs, machines, servers or where a package is used.

pub mod archive;
pub mod blobs;
pub mod signing;
