//! Tokens: what a user shows with every request, and what a machine shows once to be let in.
//!
//! ```text
//! sealift-user-<id>-<secret>
//! sealift-join-<id>-<secret>-<pin>
//! ```
//!
//! The id has 16 hex digits, the secret and the pin 64. The pin is the SHA-256 of the authority's certificate: a machine
//! says nothing to a server that cannot show that certificate. A token is shown once, when it is made; the record holds a
//! hash of the secret. The secret has 256 random bits, so a plain SHA-256 keeps it: there is nothing to guess.

use std::str::FromStr;

use rustls::crypto::ring::default_provider;
use sealift_model::{MachineId, Projects, Role, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::authority::Pin;
use crate::identity::Identity;

/// Why a text is no token. It does not quote the text.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("this is not a {kind}; one reads {form}")]
    Form { kind: &'static str, form: &'static str },
    #[error("the system gives no random bytes")]
    Random,
}

/// `2 * N` hex digits of the system's randomness.
///
/// # Errors
/// [`Error::Random`]
pub fn random_hex<const N: usize>() -> Result<String, Error> {
    let mut bytes = [0; N];
    default_provider().secure_random.fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(hex(&bytes))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// The public part of a token: 16 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

impl TokenId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_hex(text, 16) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::Form { kind: "token's id", form: "16 hex digits" })
        }
    }
}

impl TryFrom<String> for TokenId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> String {
        id.0
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The secret part of a token. It is told on purpose only: see [`UserToken::reveal`].
#[derive(Clone)]
pub struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        SecretHash(hex(&Sha256::digest(self.0.as_bytes())))
    }
}

/// The SHA-256 of a secret, in hex digits.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretHash(String);

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

impl SecretHash {
    /// Hashes are compared, so that the time taken says nothing about the secret.
    #[must_use]
    pub fn is_of(&self, secret: &Secret) -> bool {
        *self == secret.hash()
    }
}

/// What a user shows.
#[derive(Debug, Clone)]
pub struct UserToken {
    pub id: TokenId,
    pub secret: Secret,
}

impl UserToken {
    const FORM: Error = Error::Form { kind: "user token", form: "sealift-user-ID-SECRET" };

    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self { id: TokenId(random_hex::<8>()?), secret: Secret(random_hex::<32>()?) })
    }

    /// The token in full, for the one who asked for it and nobody else.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("sealift-user-{}-{}", self.id, self.secret.0)
    }
}

impl FromStr for UserToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts = text.strip_prefix("sealift-user-").and_then(|rest| rest.split_once('-'));
        match parts {
            Some((id, secret)) if is_hex(id, 16) && is_hex(secret, 64) => {
                Ok(Self { id: TokenId(id.to_owned()), secret: Secret(secret.to_owned()) })
            }
            _ => Err(Self::FORM),
        }
    }
}

/// What a machine shows once.
#[derive(Debug, Clone)]
pub struct JoinToken {
    pub id: TokenId,
    pub secret: Secret,
    /// Of the authority that the server's certificate has to come from.
    pub pin: Pin,
}

impl JoinToken {
    const FORM: Error = Error::Form { kind: "join token", form: "sealift-join-ID-SECRET-PIN" };

    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn generate(pin: Pin) -> Result<Self, Error> {
        Ok(Self { id: TokenId(random_hex::<8>()?), secret: Secret(random_hex::<32>()?), pin })
    }

    /// The token in full, for the one who asked for it and nobody else.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("sealift-join-{}-{}-{}", self.id, self.secret.0, self.pin)
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix("sealift-join-").ok_or(Self::FORM)?;
        let mut parts = rest.split('-');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(id), Some(secret), Some(pin), None) if is_hex(id, 16) && is_hex(secret, 64) => Ok(Self {
                id: TokenId(id.to_owned()),
                secret: Secret(secret.to_owned()),
                pin: pin.parse().map_err(|_| Self::FORM)?,
            }),
            _ => Err(Self::FORM),
        }
    }
}

/// What is kept of a user token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    pub id: TokenId,
    /// Whose it is. Several tokens may be of one name, so that one can take the place of the other.
    pub name: String,
    pub role: Role,
    #[serde(default)]
    pub projects: Projects,
    pub hash: SecretHash,
    pub created_at: Timestamp,
    pub created_by: String,
    /// The first moment at which it is no good; none: it is good until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl UserRecord {
    /// The user, if this is his secret and it is good at this time.
    #[must_use]
    pub fn recognise(&self, secret: &Secret, now: Timestamp) -> Option<Identity> {
        let good = self.hash.is_of(secret) && self.expires_at.is_none_or(|end| now < end);
        good.then(|| Identity::User {
            token: self.id.clone(),
            name: self.name.clone(),
            role: self.role,
            projects: self.projects.clone(),
        })
    }
}

/// What is kept of a join token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRecord {
    pub id: TokenId,
    pub hash: SecretHash,
    pub created_at: Timestamp,
    pub created_by: String,
    /// The first moment at which it is no good.
    pub expires_at: Timestamp,
    /// How many more machines it lets in.
    pub uses_left: u32,
    /// The only machine that it lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<MachineId>,
    /// The class that machines are of which it lets in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

/// Why a join token does not let a machine in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Whether there is such a token is told to those who have its secret.
    #[error("this join token is not known here; it may have been used up, revoked or made for another fleet")]
    Unknown,
    #[error("this join token has run out; make a new one with `sealift machine join-token`")]
    Expired,
    #[error("this join token is for another machine")]
    OtherMachine,
}

impl JoinRecord {
    /// Lets a machine in, and gives what is left of the token then: none when that was its last use.
    ///
    /// # Errors
    /// When the secret is another one, or the token is not for this machine or this time.
    pub fn admit(
        &self,
        secret: &Secret,
        machine: &MachineId,
        now: Timestamp,
    ) -> Result<Option<JoinRecord>, Refusal> {
        if !self.hash.is_of(secret) {
            return Err(Refusal::Unknown);
        }
        if now >= self.expires_at {
            return Err(Refusal::Expired);
        }
        if self.machine.as_ref().is_some_and(|only| only != machine) {
            return Err(Refusal::OtherMachine);
        }
        match self.uses_left {
            0 => Err(Refusal::Unknown),
            1 => Ok(None),
            uses => Ok(Some(JoinRecord { uses_left: uses - 1, ..self.clone() })),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pin() -> Pin {
        "ab".repeat(32).parse().unwrap()
    }

    fn machine(digit: &str) -> MachineId {
        digit.repeat(32).parse().unwrap()
    }

    #[test]
    fn tokens_are_read_back_and_never_shown_by_accident() {
        let user = UserToken::generate().unwrap();
        let again: UserToken = user.reveal().parse().unwrap();
        assert!(again.id == user.id && user.secret.hash().is_of(&again.secret));
        let join = JoinToken::generate(pin()).unwrap();
        let again: JoinToken = join.reveal().parse().unwrap();
        assert!(again.id == join.id && again.pin == join.pin && join.secret.hash().is_of(&again.secret));
        assert!(!user.secret.hash().is_of(&join.secret));
        for shown in [format!("{user:?}"), format!("{join:?}"), format!("{:?}", join.secret.hash())] {
            assert!(!shown.contains(&user.secret.0) && !shown.contains(&join.secret.0), "{shown}");
            assert!(!shown.contains(&join.secret.hash().0), "{shown}");
        }
        assert_ne!(UserToken::generate().unwrap().reveal(), user.reveal());
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_quoted() {
        let (user, join) =
            (UserToken::generate().unwrap().reveal(), JoinToken::generate(pin()).unwrap().reveal());
        for text in [
            "",
            "secret",
            &user[1..],
            &join,
            &user[..user.len() - 1],
            &format!("{user}0"),
            &user.to_uppercase(),
        ] {
            let error = text.parse::<UserToken>().unwrap_err().to_string();
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        for text in
            ["", &user, &join[1..], &join[..join.len() - 1], &format!("{join}-"), &format!("{join}-00")]
        {
            assert!(text.parse::<JoinToken>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_user_is_known_by_his_secret_until_it_runs_out() {
        let (token, other) = (UserToken::generate().unwrap(), UserToken::generate().unwrap());
        let record = UserRecord {
            id: token.id.clone(),
            name: "anna".into(),
            role: Role::Viewer,
            projects: Projects::None,
            hash: token.secret.hash(),
            created_at: Timestamp(0),
            created_by: "local".into(),
            expires_at: Some(Timestamp(100)),
        };
        assert_eq!(record.recognise(&token.secret, Timestamp(99)).unwrap().to_string(), "user:anna");
        assert_eq!(record.recognise(&token.secret, Timestamp(100)), None);
        assert_eq!(record.recognise(&other.secret, Timestamp(0)), None);
        let forever = UserRecord { expires_at: None, ..record };
        assert!(forever.recognise(&token.secret, Timestamp(u64::MAX)).is_some());
        let stored = serde_json::to_string(&forever).unwrap();
        assert!(!stored.contains(&token.secret.0));
        assert_eq!(serde_json::from_str::<UserRecord>(&stored).unwrap(), forever);
    }

    #[test]
    fn a_join_token_lets_in_whom_it_is_for_as_often_as_it_may() {
        let token = JoinToken::generate(pin()).unwrap();
        let record = JoinRecord {
            id: token.id.clone(),
            hash: token.secret.hash(),
            created_at: Timestamp(0),
            created_by: "local".into(),
            expires_at: Timestamp(100),
            uses_left: 2,
            machine: Some(machine("a")),
            class: None,
        };
        let other = JoinToken::generate(pin()).unwrap().secret;
        let now = Timestamp(99);
        assert_eq!(record.admit(&other, &machine("a"), now), Err(Refusal::Unknown));
        assert_eq!(record.admit(&token.secret, &machine("b"), now), Err(Refusal::OtherMachine));
        assert_eq!(record.admit(&token.secret, &machine("a"), Timestamp(100)), Err(Refusal::Expired));
        let left = record.admit(&token.secret, &machine("a"), now).unwrap().unwrap();
        assert_eq!(left.uses_left, 1);
        assert_eq!(left.admit(&token.secret, &machine("a"), now), Ok(None));
        let none = JoinRecord { uses_left: 0, ..left };
        assert_eq!(none.admit(&token.secret, &machine("a"), now), Err(Refusal::Unknown));
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_an_error(text in "(sealift-(user|join)-)?[0-9a-f-]{0,200}") {
            text.parse::<UserToken>().map(|token| token.reveal()).into_iter().for_each(|again| assert_eq!(again, text));
            text.parse::<JoinToken>().map(|token| token.reveal()).into_iter().for_each(|again| assert_eq!(again, text));
        }
    }
}
