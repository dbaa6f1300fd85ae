//! The properties of an internal step, variables filled in.
//!
//! It must not know what the steps do with them.

use super::Error;
use crate::config::StepConfig;
use crate::env::Env;
use crate::shell;

pub(super) struct Properties<'a> {
    config: &'a StepConfig,
    env: &'a Env,
}

impl<'a> Properties<'a> {
    pub(super) fn new(config: &'a StepConfig, env: &'a Env) -> Properties<'a> {
        Properties { config, env }
    }

    fn raw(&self, key: &str) -> Option<&str> {
        // `name` is read as the step's title, and means a container in these steps.
        let name = || (key == "name").then_some(self.config.display.as_deref()).flatten();
        self.config.property(key).or_else(name)
    }

    /// The value; none where it is not given, or comes out empty.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let text = self.env.fill(self.raw(key)?).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    /// The value; an error where it is not given, or comes out empty.
    pub(super) fn needed(&self, key: &'static str) -> Result<String, Error> {
        let why = if self.raw(key).is_some() { ": the variables in it are empty" } else { "" };
        self.text(key).ok_or(Error::Missing { name: key, why })
    }

    /// The value as it stands beside an image's name.
    pub(super) fn option(&self, key: &str) -> Option<String> {
        self.raw(key).map(|value| self.env.fill(value))
    }

    /// `true` and `yes`, in any case, and 1.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.text(key).is_some_and(|text| matches!(text.to_lowercase().as_str(), "true" | "yes" | "on" | "1"))
    }

    /// Parts between blanks and commas.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        let text = self.text(key).unwrap_or_default();
        let parts = text.split(|c: char| c == ',' || c.is_whitespace());
        parts.filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    /// A command's words, split before variables are filled in: a value is never torn apart.
    pub(super) fn words(&self, key: &str) -> Vec<String> {
        let words = self.raw(key).map(shell::split).unwrap_or_default();
        words.iter().map(|word| self.env.fill(word)).collect()
    }

    /// Words of the form `NAME=value`.
    pub(super) fn pairs(&self, key: &'static str) -> Result<Vec<(String, String)>, Error> {
        let pair = |word: String| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => {
                let why = format!("`{word}` is not of the form NAME=value");
                Err(Error::Property { name: key, why })
            }
        };
        self.words(key).into_iter().map(pair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_filled_in_and_never_torn() {
        let properties = [
            ("tag", "$A, b  c"),
            ("env", "X=$B Y='q w' Z="),
            ("cmd", "run $B"),
            ("empty", "$NO"),
            ("flag", "True"),
        ];
        let config = StepConfig {
            display: Some("db".into()),
            properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            ..StepConfig::default()
        };
        let mut env = Env::default();
        env.set("A", "v1 v2");
        env.set("B", "one two");
        let properties = Properties::new(&config, &env);
        assert_eq!(properties.list("tag"), ["v1", "v2", "b", "c"]);
        assert_eq!(properties.words("cmd"), ["run", "one two"]);
        let pairs = properties.pairs("env").unwrap();
        assert_eq!(
            pairs,
            [("X", "one two"), ("Y", "q w"), ("Z", "")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
        assert_eq!(properties.needed("name").unwrap(), "db");
        assert!(properties.flag("flag") && properties.text("empty").is_none());
        assert!(properties.needed("empty").unwrap_err().to_string().contains("variables in it are empty"));
        assert!(properties.pairs("cmd").is_err());
    }
}
