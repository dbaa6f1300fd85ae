//! What a `.dockerignore` leaves out of an image's context.
//!
//! Docker leaves that to whoever sends the context; Podman does it as well, after us.
//!
//! Guarantees: pure. It must not know where the context comes from.

use crate::glob::Glob;

/// Patterns from the root of the context, of which the last one that matches counts.
#[derive(Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
    /// The engine reads these and takes them away itself where they are to be left out.
    kept: Vec<String>,
}

#[derive(Debug)]
struct Pattern {
    glob: Glob,
    /// With `!`: for what is to stay.
    stays: bool,
}

impl Ignore {
    /// Reads the lines of such a file. `dockerfile` is needed for the build, whatever they say.
    pub(super) fn parse(text: &str, dockerfile: &str) -> Ignore {
        let mut patterns = Vec::new();
        for line in text.trim_start_matches('\u{feff}').lines().filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            let (stays, path) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            let path = clean(path);
            if !path.is_empty() {
                patterns.push(Pattern { glob: Glob::with_sets(&path), stays });
            }
        }
        Ignore { patterns, kept: vec![clean(dockerfile), ".dockerignore".to_owned()] }
    }

    /// Whether the entry at this path from the root of the context is left out, by itself or with a directory above it.
    pub(super) fn leaves_out(&self, path: &str) -> bool {
        if self.kept.iter().any(|kept| kept == path) {
            return false;
        }
        let above = path.match_indices('/').map(|(at, _)| path.get(..at).unwrap_or(path));
        let names: Vec<&str> = above.chain([path]).collect();
        let last = self.patterns.iter().rev().find(|one| names.iter().any(|name| one.glob.matches(name)));
        last.is_some_and(|pattern| !pattern.stays)
    }
}

/// A path from the root, without `.`, `..` and slashes that mean nothing.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_out_what_docker_does() {
        for (text, out, stays) in [
            ("", &[][..], &["a"][..]),
            ("# a\n\n a \n", &["a", "a/b/c"][..], &["b/a", "# a"][..]),
            ("/a/\n./b\nx/../c\n", &["a", "b", "c"], &["x"]),
            ("*.md\n!README.md", &["a.md"], &["README.md", "sub/a.md"]),
            ("**/*.py[co]", &["a.pyc", "x/y/a.pyo"], &["a.py"]),
            ("dir\n!dir/keep", &["dir", "dir/x", "dir/keeper"], &["dir/keep", "dir/keep/all"]),
            ("*\n!src", &["a", "b/c"], &["src/x", "sub/Other", ".dockerignore"]),
            ("a?b/**", &["axb/c", "axb/c/d"], &["axb", "a/b/c"]),
            ("\u{feff}a", &["a"], &[]),
        ] {
            let ignore = Ignore::parse(text, "./sub/Other");
            for path in out {
                assert!(ignore.leaves_out(path), "{text:?} keeps {path}");
            }
            for path in stays {
                assert!(!ignore.leaves_out(path), "{text:?} leaves out {path}");
            }
        }
    }
}
