//! Who is who, and who may do what: the authority that signs certificates, tokens of machines and users, roles, and the
//! two ends of TLS.
//!
//! Everything here is judged at a time that the caller tells, and nothing is stored: the server keeps the records.
//! Keys and secrets are made here, from the system's source of randomness and no other, tests included.
//!
//! It must not know routes, HTTP or the store.

mod authority;
mod identity;
mod rights;
mod tls;
mod token;

pub use authority::{
    Authority, CERTIFICATE_LIFE, Issued, KeyRequest, Pin, Preparing, SERVER_NAME_LIMIT, is_server_name,
    machine_of,
};
pub use authority::{Error as AuthorityError, PeerCertificate};
pub use identity::{Identity, MachineCredential, Serial};
pub use rights::{Right, holds};
pub use rustls::ClientConfig;
pub use tls::{Clock, Error as TlsError, Trust, client_config, roots_from_pem, server_config};
pub use token::{
    Error as TokenError, JoinRecord, JoinToken, Refusal, Secret, SecretHash, TokenId, UserRecord, UserToken,
    random_hex,
};
