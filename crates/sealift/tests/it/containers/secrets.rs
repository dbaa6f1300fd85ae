//! A secret's way from the server into a step, and nowhere else.

use std::path::{Path, PathBuf};

use crate::host::{Dev, Project, with_box};
use crate::secrets::with_input;

/// Every file below this folder that has the text in it.
fn holding(folder: &Path, text: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            holding(&path, text, found);
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(path);
            }
        }
    }
}

fn sum(text: &str) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_step_sees_a_secret_that_nothing_else_does() {
    if !with_box() {
        return;
    }
    let dev = Dev::start_telling("trace");
    let project = Project::new(dev.dir.path());
    std::fs::remove_dir_all(project.dir.join("units")).unwrap();
    let (token, other) = ("geheim-Kx7!$' \"v", "geheim-other");
    for (name, value) in [("TOKEN", token), ("OTHER", other)] {
        let set = with_input(dev.command(&["secret", "set", name, "--project", "svc"]), value.as_bytes());
        assert!(set.status.success(), "{set:?}");
    }
    // The commit must not hold the value either, so its sum is compared.
    let step = "
          echo \"the token is $TOKEN, in base64 $(printf %s \"$TOKEN\" | base64)\"
          echo \"sum of TOKEN $(printf %s \"$TOKEN\" | sha256sum)\"
          echo \"sum of OTHER $(printf %s \"$OTHER\" | sha256sum)\"
";
    let file = |head: &str, names: &str| {
        format!(
            "{head}box: localhost/sealift-e2e-box\nbuild:\n{names}  steps:\n    - script:\n        name: look\n        code: |{step}"
        )
    };
    let push = || {
        project.commit("look");
        let output = dev.run(&["push", project.path()]);
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    project.write("wercker.yml", &file("", ""));
    let (code, text) = push();
    assert_eq!(code, 0, "{text}");
    for wanted in [
        "the token is ***, in base64 ***",
        &format!("sum of TOKEN {}", sum(token)),
        &format!("sum of OTHER {}", sum(other)),
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }

    // In Sealift's own form a pipeline gets what it names.
    project.write("wercker.yml", &file("sealift: 1\n", "  secrets: [TOKEN]\n"));
    let (code, text) = push();
    assert_eq!(code, 0, "{text}");
    let sums = [format!("sum of TOKEN {}", sum(token)), format!("sum of OTHER {}", sum(""))];
    assert!(sums.iter().all(|sum| text.contains(sum)), "{text}");

    // One that is not there is said, with what to do.
    project.write("wercker.yml", &file("sealift: 1\n", "  secrets: [TOKEN, NONE]\n"));
    let (code, text) = push();
    assert!(code == 1 && text.contains("NONE") && text.contains("sealift secret set NAME"), "{text}");
    assert!(!text.contains("sum of"), "{text}");

    for run in ["svc-1", "svc-2", "svc-3"] {
        let log = dev.ok(&["logs", run]);
        assert!(!log.contains("geheim"), "{log}");
    }
    assert!(dev.log().contains("TRACE"), "nothing was told that could hold it");
    let mut found = Vec::new();
    // The server's own log lies here too.
    holding(dev.dir.path(), "geheim-", &mut found);
    assert_eq!(found, [dev.state().join("secrets/svc.json")]);
}
