//! Secrets reach the steps and nothing else.

use std::path::Path;
use std::time::Duration;

use sealift_model::EventKind;
use tokio::time::timeout;

use crate::host::{BASH, Job, SH, engine, raw, scripts};

const TOKEN: &str = "hunter22/secret+value";
const KEY: &str =
    "-----BEGIN KEY-----\nQUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo=\nYWJjZGVmZ2hpamts\n-----END KEY-----";

#[tokio::test]
async fn nothing_told_holds_a_secret() {
    let Some(engine) = engine().await else { return };
    for image in [SH, BASH] {
        let codes = [
            "[ \"$TOKEN\" = 'hunter22/secret+value' ] && echo it is there",
            "printf %.8s \"$TOKEN\"; sh -c 'printf \"%s\" \"${TOKEN#????????}\"'; echo",
            "echo \"user:$TOKEN\" | base64; printf %s \"$TOKEN\" | base64 -w0; echo",
            "echo https://x/?t=hunter22%2Fsecret%2Bvalue; printf %s \"$TOKEN\" | od -An -tx1 | tr -d ' \\n'; echo",
            "echo \"$KEY\"; echo \"$KEY\" | base64; echo \"$KEY\" | sed 's/^/    /' >&2",
            "set -x; : \"$TOKEN\" $KEY; echo \"$TOKEN\" >&2",
            "echo \"it was $TOKEN\" >\"$WERCKER_REPORT_MESSAGE_FILE\"; exit 3",
        ];
        let mut job = Job::new(scripts(image, &codes));
        job.spec.hidden_env =
            vec![("TOKEN".into(), TOKEN.into()), ("KEY".into(), KEY.into()), ("PIN".into(), "123".into())];
        let ran = job.run(&engine).await;
        assert_eq!(ran.output(0), "it is there\n", "{image}");
        assert_eq!(ran.output(1), "***\n", "{image}");
        assert_eq!(ran.finished(6).2.as_deref(), Some("it was ***"));
        assert_eq!(ran.outcome().message.as_deref(), Some("step s6 failed: it was ***"));
        let told = serde_json::to_string(&ran.events).unwrap();
        let encoded = [
            "hunter22",
            "aHVudGVyMjI",
            "odW50ZXIyM",
            "h1bnRlcjIy",
            "68756e746572",
            "secret%2B",
            "QUJDREVG",
            "YWJjZGVm",
            "FRVUpEUkVW",
        ];
        for part in encoded {
            assert!(!told.contains(part), "{image}: {part} in {told}");
        }
        assert!(ran.warnings().iter().any(|text| text.contains("too short") && text.contains("PIN")));
    }
}

#[tokio::test]
async fn no_file_no_argument_and_no_container_description_holds_a_secret() {
    let Some(engine) = engine().await else { return };
    // The pattern does not find itself. The step itself looks at the arguments and beginnings of all processes of the box, its own shell's among them.
    let look = "for file in /proc/[0-9]*/cmdline /proc/1/environ; do
                  if grep -q h[u]nter22 $file; then echo \"seen in $file\"; exit 1; fi
                done
                if find /sealift /pipeline /tmp -type f | xargs grep -l h[u]nter22; then echo seen in a file; exit 1; fi
                echo looked; sleep 1000";
    let mut job = Job::new(scripts(SH, &[look]));
    job.spec.hidden_env = vec![("TOKEN".into(), TOKEN.into())];
    let docker = raw(&engine).await;
    let (name, work_dir) = (format!("sealift-{}-box", job.spec.key), job.spec.work_dir.clone());
    let (seen, was_seen) = tokio::sync::oneshot::channel();
    let (mut seen, cancel) = (Some(seen), job.cancel.clone());
    let looking = async {
        timeout(Duration::from_secs(60), was_seen).await.expect("the step looked").unwrap();
        let description = docker.inspect_container(&name, None).await;
        let files = files_with(&work_dir, "hunter22");
        cancel.cancel();
        (format!("{description:?}"), files)
    };
    let running = job.run_watching(&engine, |event, _| {
        if matches!(event, EventKind::Output { text, .. } if text == "looked") {
            seen.take().unwrap().send(()).unwrap();
        }
    });
    let (ran, (description, files)) = tokio::join!(running, looking);
    assert!(ran.outcome().aborted, "{:#?}", ran.events);
    assert!(description.contains(&name) && !description.contains("hunter22"), "{description}");
    assert_eq!(files, Vec::<String>::new());
}

/// The files below `dir` that hold `text`.
fn files_with(dir: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
