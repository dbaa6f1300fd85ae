//! The typed HTTP client that the command line and the agent use, and the messages ([`api`]) that it and the server
//! agree on.
//!
//! It knows how to ask and how an answer looks. It knows nothing of what the server does with a question.

pub mod api;
mod http;

pub use http::{Address, Client, Error, Lines};
