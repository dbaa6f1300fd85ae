//! Keys of caches: text with `${VARIABLE}`, `{{ branch }}` and `{{ checksum FILE.. }}` in it.
//!
//! It must not know where the values come from, nor read a file.

/// A text with places to fill in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Template {
    pub parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    /// `${NAME}`
    Variable(String),
    /// `{{ branch }}`
    Branch,
    /// `{{ checksum FILE.. }}`: paths from the root of the source.
    Checksum(Vec<String>),
}

/// Where the values of a template come from.
pub trait Values {
    /// The value of a variable; none where it is not set.
    fn variable(&self, name: &str) -> Option<String>;
    /// The branch; empty where there is none.
    fn branch(&self) -> String;
    /// A digest over the content of the files, in their order; none where one of them is not there.
    fn checksum(&self, files: &[String]) -> Option<String>;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("`{opening}` without its end")]
    Open { opening: &'static str },
    #[error("`{0}` is not known in a key: there are `branch` and `checksum FILE`")]
    Unknown(String),
    #[error("`checksum` wants at least one file")]
    NoFile,
    #[error("{0:?} is not the name of a variable")]
    Variable(String),
    #[error("cannot take the checksum of {}: not there", .0.join(", "))]
    Missing(Vec<String>),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When a place to fill in is not well formed.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let part;
            if let Some(inner) = rest.strip_prefix("${") {
                let (name, after) = inner.split_once('}').ok_or(Error::Open { opening: "${" })?;
                if !is_variable(name) {
                    return Err(Error::Variable(name.to_owned()));
                }
                (part, rest) = (Part::Variable(name.to_owned()), after);
            } else if let Some(inner) = rest.strip_prefix("{{") {
                let (words, after) = inner.split_once("}}").ok_or(Error::Open { opening: "{{" })?;
                (part, rest) = (call(words)?, after);
            } else {
                let mut chars = rest.chars();
                plain.extend(chars.next());
                rest = chars.as_str();
                continue;
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template { parts })
    }

    /// The text with all filled in; a variable that is not set becomes nothing, as in a shell.
    ///
    /// # Errors
    /// [`Error::Missing`] when a file whose checksum is wanted is not there.
    pub fn fill(&self, values: &dyn Values) -> Result<String, Error> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(name) => out.push_str(&values.variable(name).unwrap_or_default()),
                Part::Branch => out.push_str(&values.branch()),
                Part::Checksum(files) => {
                    out.push_str(&values.checksum(files).ok_or_else(|| Error::Missing(files.clone()))?);
                }
            }
        }
        Ok(out)
    }
}

impl std::fmt::Display for Template {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(text),
            Part::Variable(name) => write!(f, "${{{name}}}"),
            Part::Branch => f.write_str("{{ branch }}"),
            Part::Checksum(files) => write!(f, "{{{{ checksum {} }}}}", files.join(" ")),
        })
    }
}

/// Whether a text can be the name of a variable of the environment.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

fn call(words: &str) -> Result<Part, Error> {
    let mut words = words.split_whitespace();
    let name = words.next().unwrap_or_default();
    let files: Vec<String> = words.map(str::to_owned).collect();
    match (name, files.is_empty()) {
        ("branch", true) => Ok(Part::Branch),
        ("checksum", false) => Ok(Part::Checksum(files)),
        ("checksum", true) => Err(Error::NoFile),
        _ => Err(Error::Unknown(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Fixed;

    impl Values for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "RUBY").then(|| "3.2".to_owned())
        }
        fn branch(&self) -> String {
            "main".to_owned()
        }
        fn checksum(&self, files: &[String]) -> Option<String> {
            (files.first().is_some_and(|file| file != "gone")).then(|| format!("<{}>", files.join("+")))
        }
    }

    #[test]
    fn fills_in() {
        for (text, want) in [
            ("gems", "gems"),
            ("gems-${RUBY}-{{branch}}", "gems-3.2-main"),
            ("{{ checksum a  b }}-${NONE}$x{y}", "<a+b>-$x{y}"),
        ] {
            assert_eq!(Template::parse(text).unwrap().fill(&Fixed).unwrap(), want);
        }
        let gone = Template::parse("x-{{ checksum gone }}").unwrap().fill(&Fixed);
        assert_eq!(gone, Err(Error::Missing(vec!["gone".to_owned()])));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (text, want) in [
            ("${X", Error::Open { opening: "${" }),
            ("{{ branch", Error::Open { opening: "{{" }),
            ("{{ tag }}", Error::Unknown("tag".to_owned())),
            ("{{ checksum }}", Error::NoFile),
            ("${1}", Error::Variable("1".to_owned())),
        ] {
            assert_eq!(Template::parse(text), Err(want), "{text}");
        }
    }

    proptest! {
        #[test]
        fn prints_as_it_was_meant(text in "[a${} brnchekum]{0,30}|(\\$\\{A\\}|\\{\\{ branch \\}\\}|x){0,5}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.to_string()), Ok(template));
            }
        }
    }
}
