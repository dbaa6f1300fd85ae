//! Which source a node gets: the project's, what one node made, or what several made.
//!
//! Guarantees: a node never shares a file with another one: what it is given is a view of its own of what was made, or
//! a copy (which shares blocks where the filesystem can).
//!
//! It must not know how a node is run.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{Graph, GraphNode, Input};
use crate::source;

/// A tree that has not been made yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tree {
    /// The project's source.
    Project,
    /// What a node made.
    Made(PathBuf),
    /// Each in a directory of that name; with `project`, these beside what is in the project's source.
    Several { project: bool, parts: Vec<(String, Tree)> },
}

/// The nodes whose output a node is given.
pub(super) fn givers<'a>(graph: &'a Graph, node: &'a GraphNode) -> Vec<(usize, &'a GraphNode)> {
    let from = match &node.input {
        Input::Commit => &Vec::new(),
        Input::Instead(names) | Input::Over(names) => names,
    };
    graph.nodes.iter().enumerate().filter(|(_, other)| from.contains(&other.name)).collect()
}

/// What a node gets; `made` has what each node before it hands on.
pub(super) fn source_of(graph: &Graph, node: &GraphNode, made: &[Tree]) -> Tree {
    let project = wants_project(node);
    let mut parts: Vec<(String, Tree)> = Vec::new();
    for (index, giver) in givers(graph, node) {
        let mut name = dir_name(&giver.name);
        while parts.iter().any(|(known, _)| *known == name) {
            name.push('_');
        }
        parts.push((name, made.get(index).cloned().unwrap_or(Tree::Project)));
    }
    match parts.len() {
        0 => Tree::Project,
        1 if !project => parts.swap_remove(0).1,
        _ => Tree::Several { project, parts },
    }
}

/// Whether a node has asked by `artifacts` for outputs below the project's source.
pub(super) fn wants_project(node: &GraphNode) -> bool {
    matches!(node.input, Input::Over(_))
}

/// A node's name as the name of a directory.
pub(super) fn dir_name(name: &str) -> String {
    let plain: String = name.chars().map(|c| if c == '/' || c.is_control() { '_' } else { c }).collect();
    // A name of 255 bytes is the most a filesystem takes; others are put behind it.
    let mut end = plain.len().min(200);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    match plain.get(..end).unwrap_or_default() {
        "" | "." | ".." => "_".to_owned(),
        name => name.to_owned(),
    }
}

/// Makes `to` a copy of a tree. `project` makes one of the project's source.
pub(super) fn make(tree: &Tree, to: &Path, project: &dyn Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    match tree {
        Tree::Project => project(to),
        Tree::Made(path) => source::copy(path, to, &[], &source::Ignore::default()),
        Tree::Several { project: with_project, parts } => {
            if *with_project {
                project(to)?;
            } else {
                std::fs::create_dir_all(to)?;
            }
            for (name, part) in parts {
                let place = to.join(name);
                if place.symlink_metadata().is_ok() {
                    let text = format!("the source has something called {name} already");
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
                }
                make(part, &place, project)?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::config::settings::Artifacts;

    fn node(name: &str, needs: &[&str], from: &[&str]) -> GraphNode {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        GraphNode {
            name: name.into(),
            needs: list(needs),
            artifacts_from: list(from),
            ..GraphNode::default()
        }
    }

    fn made(node: usize) -> Tree {
        Tree::Made(PathBuf::from(format!("/{node}")))
    }

    #[test]
    fn what_each_node_gets() {
        let mut asks = node("asks", &["a", "b"], &["a"]);
        asks.settings =
            Settings { artifacts: Some(Artifacts { from: vec!["a".into()] }), ..Settings::default() };
        let nodes = vec![
            node("a", &[], &[]),
            node("b", &[], &[]),
            node("one", &["b"], &[]),
            node("both", &["b", "a"], &[]),
            node("picks", &["a", "b"], &["b"]),
            asks,
        ];
        let graph = Graph { nodes };
        let trees = [made(0), made(1)];
        let part = |name: &str, node| (name.to_owned(), made(node));
        for (index, want) in [
            (0, Tree::Project),
            (2, made(1)),
            (3, Tree::Several { project: false, parts: vec![part("a", 0), part("b", 1)] }),
            (4, made(1)),
            (5, Tree::Several { project: true, parts: vec![part("a", 0)] }),
        ] {
            assert_eq!(source_of(&graph, &graph.nodes[index], &trees), want, "{index}");
        }
    }

    #[test]
    fn names_of_directories() {
        for (name, want) in [
            ("test (A=1)", "test (A=1)"),
            ("test (A=x/y)", "test (A=x_y)"),
            ("..", "_"),
            ("", "_"),
            ("a\nb", "a_b"),
        ] {
            assert_eq!(dir_name(name), want);
        }
        assert_eq!(dir_name(&"é".repeat(200)), "é".repeat(100));
    }

    #[test]
    fn copies_are_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("f"), "x").unwrap();
        let tree = Tree::Made(path.clone());
        let project = |to: &Path| {
            std::fs::create_dir_all(to)?;
            std::fs::write(to.join("p"), "p")
        };
        let several = Tree::Several { project: true, parts: vec![("a".into(), tree)] };
        let first = dir.path().join("first");
        make(&several, &first, &project).unwrap();
        std::fs::write(first.join("a/f"), "changed").unwrap();
        assert_eq!(std::fs::read_to_string(path.join("f")).unwrap(), "x");
        assert!(first.join("p").is_file());
        let clash = Tree::Several { project: true, parts: vec![("p".into(), Tree::Project)] };
        let error = make(&clash, &dir.path().join("third"), &project).unwrap_err();
        assert_eq!(error.to_string(), "the source has something called p already");
    }
}
