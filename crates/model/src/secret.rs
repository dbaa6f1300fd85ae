//! Secrets of a project: a name, and a value that only its pipelines see.
//!
//! Guarantees: a value of these types has been checked; neither `Debug` nor an error shows a secret's value.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The value of a secret: a text that can be a variable's value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretValue(String);

/// Why a text is not the value of a secret. It says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSecret {
    #[error("the value of a secret is empty")]
    Empty,
    #[error("the value of a secret has more than {} KiB", SecretValue::LIMIT >> 10)]
    TooLong,
    #[error("the value of a secret has a NUL byte in it, which no variable can hold")]
    Nul,
}

impl SecretValue {
    /// The most bytes that a value may have.
    pub const LIMIT: usize = 64 << 10;

    /// The value itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for SecretValue {
    type Error = InvalidSecret;

    fn try_from(text: String) -> Result<Self, InvalidSecret> {
        if text.is_empty() {
            Err(InvalidSecret::Empty)
        } else if text.len() > Self::LIMIT {
            Err(InvalidSecret::TooLong)
        } else if text.contains('\0') {
            Err(InvalidSecret::Nul)
        } else {
            Ok(Self(text))
        }
    }
}

impl From<SecretValue> for String {
    fn from(value: SecretValue) -> String {
        value.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_checked_and_never_shown() {
        let value = SecretValue::try_from("geheim".to_owned()).unwrap();
        assert_eq!((value.reveal(), &*format!("{value:?}")), ("geheim", "SecretValue(***)"));
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<SecretValue>(&json).unwrap(), value);
        for (text, why) in [
            (String::new(), InvalidSecret::Empty),
            ("geheim\0".into(), InvalidSecret::Nul),
            ("geheim".repeat(11_000), InvalidSecret::TooLong),
        ] {
            assert_eq!(SecretValue::try_from(text.clone()), Err(why));
            let json = serde_json::to_string(&text).unwrap();
            let said = serde_json::from_str::<SecretValue>(&json).unwrap_err().to_string();
            assert!(!said.contains("geheim"), "{said}");
        }
        assert!(SecretValue::try_from("x".repeat(SecretValue::LIMIT)).is_ok());
    }
}
