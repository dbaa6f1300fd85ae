//! What surrounds a step that has variables of its own, or is tried more than once: a file that is sourced in its place.
//!
//! Guarantees: when the step is over and the shell is still there, its variables are what they were, exported or not;
//! the exit code is the step's.
//!
//! It must not know what the step does.

use std::fmt::Write as _;

use crate::shell;

/// The text of the file. `script` and `message` are paths in the container; what an earlier attempt wrote to the second
/// one is removed.
pub(super) fn surround(script: &str, message: &str, env: &[(String, String)]) -> String {
    // Whatever options the step before has set.
    let mut text = format!("set +e\ncommand rm -f {}\n", shell::quote(message));
    let mut after = String::new();
    for (number, (name, value)) in env.iter().enumerate() {
        let (old, was) = (format!("sealift_old_{number}"), format!("sealift_was_{number}"));
        // Writing to a String cannot fail. Another process sees what is exported and nothing else.
        write!(
            text,
            "{was}=\nif [ -n \"${{{name}+x}}\" ]; then {old}=${name}; {was}=set; fi\n\
             if /bin/sh -c '[ -n \"${{{name}+x}}\" ]'; then {was}=exported; fi\n\
             export {name}={}\n",
            quote_filling(value)
        )
        .ok();
        write!(
            after,
            "unset {name}\nif [ -n \"${was}\" ]; then {name}=${old}; fi\n\
             if [ \"${was}\" = exported ]; then export {name}; fi\nunset {old} {was}\n"
        )
        .ok();
    }
    write!(text, ". {script}\nsealift_code=$?\n{after}return $sealift_code\n").ok();
    text
}

/// `text` as one word in which the shell still fills in `$NAME` and `$(..)`, and nothing else is changed.
fn quote_filling(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '`') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn variables_hold_for_the_step_alone() {
        let dir = tempfile::tempdir().unwrap();
        let step = dir.path().join("step");
        std::fs::write(
            &step,
            "echo \"in: $A $B $C $D\"; env | grep '^[ABCD]=' | sort | tr '\\n' ' '; echo\n(exit 3)\n",
        )
        .unwrap();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let env = [pair("A", "a \"$B\" `\\"), pair("B", ""), pair("C", "c"), pair("D", "d\ne")];
        let around = dir.path().join("around");
        let message = dir.path().join("message");
        std::fs::write(&message, "old").unwrap();
        let text = surround(step.to_str().unwrap(), message.to_str().unwrap(), &env);
        std::fs::write(&around, text).unwrap();
        let script = format!(
            "set -u; export A=1; B='2  x'; unset C D; . {}; echo \"code $?\"; set +u; echo \"after: $A|$B|${{C-none}}|${{D-none}}\"; env | grep '^[ABCD]='; set | grep ^sealift_ || true",
            around.display()
        );
        for shell in ["sh", "bash"] {
            let output = Command::new(shell)
                .args(["-c", &script])
                .env_clear()
                .env("PATH", "/usr/bin:/bin")
                .output()
                .unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            let want = "in: a \"2  x\" `\\  c d\ne\nA=a \"2  x\" `\\ B= C=c D=d \ncode 3\nafter: 1|2  x|none|none\nA=1\nsealift_code=3\n";
            let plain = said.replace("sealift_code='3'", "sealift_code=3");
            assert_eq!(plain, want, "{shell}: {}", String::from_utf8_lossy(&output.stderr));
        }
        assert!(!message.is_file());
    }
}
