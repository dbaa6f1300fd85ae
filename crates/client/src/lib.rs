//! The typed HTTP client that the command line and the agent use, and the messages ([`api`]) that it and the server
//! agree on.
//!
//! It knows how to ask and how an answer looks. It knows nothing of what the server does with a question.

mod address;
pub mod api;
mod connections;
mod http;

pub use address::{Address, Servers};
pub use connections::Tls;
pub use http::{Chunks, Client, Error, Lines};
