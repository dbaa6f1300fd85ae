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
    /// Each in a directory of that name.
    Several(Vec<(String, Tree)>),
    /// The project's source, and these laid over it in this order.
    Over(Vec<Tree>),
}

/// The nodes whose output a node is given.
pub(super) fn givers<'a>(graph: &'a Graph, node: &'a GraphNode) -> Vec<(usize, &'a GraphNode)> {
    let from = match &node.input {
        Input::Commit => return Vec::new(),
        Input::Instead(from) | Input::Over(from) => from,
    };
    let of = |name: &String| graph.nodes.iter().enumerate().find(|(_, other)| other.name == *name);
    from.iter().filter_map(of).collect()
}

/// What a node gets; `made` has what each node before it hands on.
pub(super) fn source_of(graph: &Graph, node: &GraphNode, made: &[Tree]) -> Tree {
    let given = |index: usize| made.get(index).cloned().unwrap_or(Tree::Project);
    let givers = givers(graph, node);
    match (&node.input, givers.as_slice()) {
        (Input::Commit, _) | (_, []) => Tree::Project,
        (Input::Over(_), _) => Tree::Over(givers.iter().map(|(index, _)| given(*index)).collect()),
        (Input::Instead(_), [(only, _)]) => given(*only),
        (Input::Instead(_), _) => {
            let mut parts: Vec<(String, Tree)> = Vec::new();
            for (index, giver) in givers {
                let mut name = dir_name(&giver.name);
                while parts.iter().any(|(known, _)| *known == name) {
                    name.push('_');
                }
                parts.push((name, given(index)));
            }
            Tree::Several(parts)
        }
    }
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
        Tree::Several(parts) => {
            std::fs::create_dir_all(to)?;
            parts.iter().try_for_each(|(name, part)| make(part, &to.join(name), project))
        }
        Tree::Over(parts) => {
            project(to)?;
            for (number, part) in parts.iter().enumerate() {
                let beside = to.with_extension(format!("part{number}"));
                make(part, &beside, project)?;
                source::merge(&beside, to, source::Clash::Replace)?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, input: Input) -> GraphNode {
        GraphNode { name: name.into(), input, ..GraphNode::default() }
    }

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn made(node: usize) -> Tree {
        Tree::Made(PathBuf::from(format!("/{node}")))
    }

    #[test]
    fn what_each_node_gets() {
        let nodes = vec![
            node("a", Input::Commit),
            node("b", Input::Commit),
            node("one", Input::Instead(list(&["b"]))),
            node("both", Input::Instead(list(&["b", "a"]))),
            node("over", Input::Over(list(&["b", "a"]))),
        ];
        let graph = Graph { nodes };
        let trees = [made(0), made(1)];
        let part = |name: &str, node| (name.to_owned(), made(node));
        for (index, want) in [
            (0, Tree::Project),
            (2, made(1)),
            (3, Tree::Several(vec![part("b", 1), part("a", 0)])),
            (4, Tree::Over(vec![made(1), made(0)])),
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
        let several = Tree::Several(vec![("a".into(), tree.clone())]);
        let first = dir.path().join("first");
        make(&several, &first, &project).unwrap();
        std::fs::write(first.join("a/f"), "changed").unwrap();
        assert_eq!(std::fs::read_to_string(path.join("f")).unwrap(), "x");
        std::fs::write(path.join("p"), "made").unwrap();
        std::fs::create_dir(path.join("dir")).unwrap();
        let over = dir.path().join("over");
        make(&Tree::Over(vec![tree.clone(), tree]), &over, &project).unwrap();
        let read = |name: &str| std::fs::read_to_string(over.join(name)).unwrap();
        assert_eq!((read("p"), read("f")), ("made".to_owned(), "x".to_owned()));
        assert!(over.join("dir").is_dir());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
