//! `wercker detect`: what kind of project a directory holds, by the names of its files, and a first wercker.yml for it.
//!
//! Guarantees: a file that is there is never written over.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use sealift_pipeline::config;

use crate::error::Error;
use crate::print::{Mood, Voice};

struct Kind {
    name: &'static str,
    /// A file's name, or `*` and how it ends.
    file: &'static str,
    image: &'static str,
    /// Each a step: its name and its command.
    steps: &'static [(&'static str, &'static str)],
}

/// In the order they are tried.
const KINDS: &[Kind] = &[
    Kind {
        name: "nodejs",
        file: "package.json",
        image: "node:22",
        steps: &[("install", "npm ci || npm install"), ("test", "npm test")],
    },
    Kind {
        name: "python",
        file: "requirements.txt",
        image: "python:3.12",
        steps: &[("install", "pip install -r requirements.txt"), ("test", "python -m unittest")],
    },
    Kind {
        name: "ruby",
        file: "Gemfile",
        image: "ruby:3.3",
        steps: &[("install", "bundle install"), ("test", "bundle exec rake")],
    },
    Kind {
        name: "golang",
        file: "*.go",
        image: "golang:1.23",
        steps: &[("build", "go build ./..."), ("test", "go test ./...")],
    },
    Kind {
        name: "java-maven",
        file: "pom.xml",
        image: "maven:3-eclipse-temurin-21",
        steps: &[("package", "mvn --batch-mode package")],
    },
    Kind {
        name: "java-gradle",
        file: "*.gradle",
        image: "gradle:8-jdk21",
        steps: &[("build", "gradle build")],
    },
];

pub(super) fn detect(dir: &Path, voice: &Voice) -> Result<ExitCode, Error> {
    let io = |action| move |source| Error::Io { action, path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("read"))? {
        names.push(entry.map_err(io("read"))?.file_name().to_string_lossy().into_owned());
    }
    let Some(kind) = KINDS.iter().find(|kind| names.iter().any(|name| is(name, kind.file))) else {
        let known: Vec<&str> = KINDS.iter().map(|kind| kind.file).collect();
        return Err(Error::plain(format!(
            "no kind of project is known by the files here; looked for {}",
            known.join(", ")
        )));
    };
    voice.say(Mood::Good, &format!("Detected: {}", kind.name));
    if let Ok(path) = config::find_config(dir) {
        voice.say(Mood::Plain, &format!("There is {} already, which stays as it is", path.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let path = dir.join("wercker.yml");
    let written = std::fs::File::create_new(&path)
        .and_then(|mut file| std::io::Write::write_all(&mut file, template(kind).as_bytes()));
    written.map_err(|source| Error::Io { action: "write", path: path.clone(), source })?;
    voice.say(Mood::Good, &format!("Wrote {}; run it with: wercker build", path.display()));
    Ok(ExitCode::SUCCESS)
}

fn is(name: &str, wanted: &str) -> bool {
    match wanted.strip_prefix('*') {
        Some(end) => name.ends_with(end),
        None => name == wanted,
    }
}

fn template(kind: &Kind) -> String {
    let mut text = format!("box: {}\n\nbuild:\n  steps:\n", kind.image);
    for (name, code) in kind.steps {
        // Writing to a String cannot fail.
        write!(text, "    - script:\n        name: {name}\n        code: {code}\n").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_a_file_without_findings() {
        for kind in KINDS {
            let (config, findings) = config::parse(&template(kind)).unwrap();
            assert!(findings.is_empty(), "{}: {findings:?}", kind.name);
            let pipeline = config.pipeline("build").unwrap();
            assert_eq!(pipeline.steps.len(), kind.steps.len());
            assert_eq!(pipeline.steps[0].property("code"), Some(kind.steps[0].1));
        }
    }

    #[test]
    fn kinds_are_known_by_their_files() {
        for (name, want) in [
            ("Gemfile", Some("ruby")),
            ("main.go", Some("golang")),
            ("a.gradle", Some("java-gradle")),
            ("x", None),
        ] {
            let kind = KINDS.iter().find(|kind| is(name, kind.file)).map(|kind| kind.name);
            assert_eq!(kind, want);
        }
    }
}
