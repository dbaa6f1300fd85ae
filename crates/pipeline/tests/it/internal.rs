//! Internal steps, with a real registry.

use std::sync::Arc;

use futures_util::StreamExt;
use sealift_model::{EventKind, StepOutcome};
use sealift_pipeline::Source;

use crate::host::{Job, Ran, SH, engine, forget, raw, script};
use crate::registry::{PASSWORD, Registry, USER, names};

const SECRET: &str = "geheim-0815-geheim";

/// An internal step, indented to stand below `steps:` of a pipeline.
fn step(name: &str, properties: &[(&str, &str)]) -> String {
    let mut yaml = format!("    - internal/{name}:\n");
    for (key, value) in properties {
        yaml.push_str(&format!("        {key}: '{}'\n", value.replace('\'', "''")));
    }
    yaml
}

fn job(steps: &[String]) -> Job {
    Job::new(format!("box: {SH}\nbuild:\n  steps:\n{}", steps.concat()))
}

fn passed(ran: &Ran) {
    assert!(ran.outcome().passed, "{:#?}", ran.events);
}

fn contains(hay: &[u8], needle: &str) -> bool {
    hay.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[tokio::test]
async fn the_box_is_pushed_as_it_is_and_its_image_is_reached_by_name() {
    let Some(engine) = engine().await else { return };
    let registry = Registry::open();
    let repository = format!("{}/me/app", registry.host);
    let steps = [
        script(
            "make",
            "echo built >built.txt\necho out >$WERCKER_OUTPUT_DIR/o\nexport TAG=v1\ntouch /installed\nchmod 600 built.txt",
        ),
        step(
            "docker-push",
            &[
                ("repository", &repository),
                ("tag", "$TAG, v2 v3"),
                ("cmd", "httpd -f -p 7000 -h \"/pipeline/\""),
                ("env", r#"GREETING='hello "there" \o/' FROM_SHELL=$TAG"#),
                ("labels", "maker=me 'of what=a thing'"),
                ("ports", "8080:7000"),
                ("volumes", "/data /more"),
                ("working-dir", "/tmp"),
                ("stopsignal", "SIGINT"),
                ("author", "Me Myself"),
                ("message", "as it is"),
            ],
        ),
        step("docker-run", &[("image", &format!("{repository}:v2")), ("name", "web")]),
        script(
            "ask",
            "for try in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://web:7000/source/built.txt http://web:7000/output/o && break; sleep 0.2; done",
        ),
        step("docker-kill", &[("name", "web")]),
        script("gone", "wget -q -T 2 -O - http://web:7000/output/o && exit 1; true"),
    ];
    let yaml = format!(
        "box:\n  id: {SH}\n  env:\n    FROM_BOX: plain\n    SECRET_BOX: with $TOKEN\nbuild:\n  steps:\n{}",
        steps.concat()
    );
    let mut job = Job::new(yaml);
    job.spec.hidden_env = vec![("TOKEN".into(), SECRET.into())];
    let ran = job.run(&engine).await;
    passed(&ran);
    assert_eq!(ran.stream(3, Some(sealift_model::Stream::Stdout)), "built\nout\n");
    let digests: Vec<String> =
        ran.output(1).lines().filter_map(|line| Some(line.split_once('@')?.1.to_owned())).collect();
    assert!(digests.len() == 3 && digests.iter().all(|digest| *digest == digests[0]), "{}", ran.output(1));
    assert_eq!(registry.json("me/app/tags/list")["tags"], serde_json::json!(["v1", "v2", "v3"]));

    let (config, layers) = registry.image("me/app", "v3");
    let described = &config["config"];
    assert_eq!(described["Cmd"], serde_json::json!(["httpd", "-f", "-p", "7000", "-h", "/pipeline/"]));
    assert!(described["Entrypoint"].as_array().is_none_or(Vec::is_empty), "{config}");
    assert_eq!(described["WorkingDir"], "/tmp");
    assert_eq!(described["StopSignal"], "SIGINT");
    assert_eq!(described["Labels"]["maker"], "me");
    assert_eq!(described["Labels"]["of what"], "a thing");
    assert_eq!(described["Labels"]["dev.sealift.run"], "");
    assert_eq!(config["author"], "Me Myself");
    let env = described["Env"].as_array().unwrap();
    for want in [r#"GREETING=hello "there" \o/"#, "FROM_SHELL=v1", "FROM_BOX=plain"] {
        assert!(env.iter().any(|variable| variable == want), "{want}: {env:?}");
    }
    assert!(described["ExposedPorts"].get("7000/tcp").is_some(), "{config}");
    assert!(described["Volumes"].get("/data").is_some() && described["Volumes"].get("/more").is_some());

    let files: Vec<String> = layers.iter().flat_map(|layer| names(layer)).collect();
    for want in ["installed", "pipeline/source/built.txt", "pipeline/source/hello.txt", "pipeline/output/o"] {
        assert!(files.iter().any(|name| name == want), "{want}: {files:?}");
    }
    assert!(!files.iter().any(|name| name.starts_with("sealift/")), "{files:?}");
    assert!(!files.iter().any(|name| name.starts_with("pipeline/cache")), "{files:?}");
    for hay in layers.iter().map(Vec::as_slice).chain([config.to_string().as_bytes()]) {
        assert!(!contains(hay, SECRET) && !contains(hay, "WERCKER_GIT_COMMIT"));
    }
    // On this machine the names mean nothing, as before.
    let docker = raw(&engine).await;
    docker.inspect_image(&format!("{repository}:v1")).await.unwrap_err();
    // It was pulled for docker-run, and stays as a box's image does.
    forget(&engine, &format!("{repository}:v2")).await;
}

#[tokio::test]
async fn an_image_from_scratch_holds_the_output_and_nothing_else() {
    let Some(engine) = engine().await else { return };
    let registry = Registry::open();
    let repository = format!("{}/me/scratch", registry.host);
    let ran = job(&[
        script(
            "make",
            "cd $WERCKER_OUTPUT_DIR\nmkdir bin\necho x >bin/program\nln -s program bin/link\n: >empty",
        ),
        step(
            "docker-scratch-push",
            &[("repository", &format!("{repository}:1")), ("cmd", "/bin/program -v"), ("env", "A=b")],
        ),
    ])
    .run(&engine)
    .await;
    passed(&ran);
    let (config, layers) = registry.image("me/scratch", "1");
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["/bin/program", "-v"]));
    assert_eq!(layers.len(), 1);
    assert_eq!(names(&layers[0]), ["bin", "bin/link", "bin/program", "empty"]);
}

#[tokio::test]
async fn a_registry_that_asks_is_told_and_nobody_else() {
    let Some(engine) = engine().await else { return };
    let registry = Registry::closed();
    let repository = format!("{}/me/closed", registry.host);
    let push = |password: &str| {
        let properties = [("repository", repository.as_str()), ("username", USER), ("password", password)];
        job(&[step("docker-push", &properties)])
    };
    let mut right = push("$PASS");
    right.spec.hidden_env = vec![("PASS".into(), PASSWORD.into())];
    passed(&right.run(&engine).await);

    let ran = push("wrong-geheim").run(&engine).await;
    let (outcome, _, message) = ran.finished(0);
    let message = message.unwrap_or_else(|| panic!("{:#?}", ran.events));
    assert_eq!(outcome, StepOutcome::Failed);
    assert!(message.contains("cannot be pushed") && message.contains("auth"), "{message}");
    // Asked once: a registry that said no is not asked again.
    assert!(!ran.output(0).contains("trying again"), "{}", ran.output(0));
    assert!(!format!("{:?}", ran.events).contains("wrong-geheim"));

    // The box comes from there, by the variables of the run, and by a file of credentials.
    let boxed = |credentials: &str| {
        Job::new(format!(
            "box:\n  id: {repository}\n{credentials}build:\n  steps:\n{}",
            script("a", "echo ok")
        ))
    };
    let pulled = format!("{repository}:latest");
    let mut by_variables = boxed(&format!("  username: {USER}\n  password: $PASS\n"));
    by_variables.spec.hidden_env = vec![("PASS".into(), PASSWORD.into())];
    let ran = by_variables.run(&engine).await;
    passed(&ran);
    assert!(!format!("{:?}", ran.events).contains(PASSWORD));
    forget(&engine, &pulled).await;

    let mut by_file = boxed("");
    let file = by_file.dir.path().join("auth.json");
    let auth =
        base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{USER}:{PASSWORD}"));
    std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host)).unwrap();
    by_file.spec.auth_files = vec![by_file.dir.path().join("none.json"), file];
    passed(&by_file.run(&engine).await);
    forget(&engine, &pulled).await;

    let ran = boxed("").run(&engine).await;
    let error = ran.error().to_string();
    assert!(error.contains("cannot be pulled"), "{error}");
}

#[tokio::test]
async fn a_dockerfile_of_the_source_is_built_and_tagged() {
    let Some(engine) = engine().await else { return };
    let dockerfile = format!(
        "printf 'FROM {SH}\\nARG WHO\\nRUN echo hello $WHO >/who\\nCOPY . /src\\nCMD [\"cat\",\"/who\"]\\n' >sub/Other\n"
    );
    let code = format!(
        "mkdir sub\n{dockerfile}echo new >sub/new\necho x >sub/left.out\necho left.out >sub/.dockerignore"
    );
    let mut job = job(&[
        script("make", &code),
        step(
            "docker-build",
            &[
                ("image-name", "tool"),
                ("dockerfile", "Other"),
                ("context", "sub"),
                ("build-args", "WHO='the world'"),
                ("labels", "a=b"),
            ],
        ),
        step("docker-run", &[("image", "tool"), ("name", "srv"), ("cmd", "httpd -f -p 80 -h /")]),
        script(
            "ask",
            "for try in 1 2 3 4 5 6 7 8 9; do wget -q -O - http://srv/who && break; sleep 0.2; done\nwget -q -O - http://srv/src/new\nwget -q -O - http://srv/src/left.out || echo left out",
        ),
        step(
            "docker-push",
            &[("image-name", "tool"), ("repository", "localhost/sealift-test-built"), ("tag", "kept")],
        ),
    ]);
    job.spec.docker_local = true;
    let run_id = job.spec.run_id.clone();
    let ran = job.run(&engine).await;
    passed(&ran);
    assert_eq!(ran.stream(3, Some(sealift_model::Stream::Stdout)), "hello the world\nnew\nleft out\n");
    assert!(ran.output(1).contains(&format!("built {run_id}tool:latest")), "{}", ran.output(1));
    let docker = raw(&engine).await;
    let kept = docker.inspect_image("localhost/sealift-test-built:kept").await.unwrap();
    assert_eq!(kept.config.unwrap().labels.unwrap()["a"], "b");
    docker.inspect_image(&format!("{run_id}tool:latest")).await.unwrap_err();
    forget(&engine, "localhost/sealift-test-built:kept").await;
}

#[tokio::test]
async fn the_box_of_another_user_keeps_its_user_and_its_files() {
    let Some(engine) = engine().await else { return };
    let name = "localhost/sealift-test-of-bob";
    let mut job = job(&[
        script("make", "echo mine >mine; chmod 600 mine"),
        step(
            "docker-push",
            &[("repository", name), ("entrypoint", "/bin/cat"), ("cmd", "/pipeline/source/mine")],
        ),
        step("docker-push", &[("repository", name), ("tag", "second"), ("cmd", "/bin/true")]),
    ]);
    job.yaml = job.yaml.replace(SH, crate::host::BOB);
    job.spec.docker_local = true;
    let ran = job.run(&engine).await;
    passed(&ran);
    let docker = raw(&engine).await;
    let image = docker.inspect_image(&format!("{name}:latest")).await.unwrap().config.unwrap();
    assert_eq!(image.user.as_deref(), Some("bob"));
    assert_eq!(image.entrypoint.unwrap(), ["/bin/cat"]);
    assert_eq!(image.cmd.unwrap(), ["/pipeline/source/mine"]);
    let archive =
        docker.export_image(&format!("{name}:latest")).map(|bytes| bytes.unwrap().to_vec()).concat().await;
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut owners = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        if !entry.path().unwrap().to_string_lossy().ends_with(".tar")
            || !entry.header().entry_type().is_file()
        {
            continue;
        }
        for entry in tar::Archive::new(entry).entries().unwrap() {
            let entry = entry.unwrap();
            if entry.path().unwrap().ends_with("pipeline/source/mine") {
                owners.push((entry.header().uid().unwrap(), entry.header().mode().unwrap() & 0o777));
            }
        }
    }
    assert_eq!(owners, [(1000, 0o600)]);
    for tag in ["latest", "second"] {
        forget(&engine, &format!("{name}:{tag}")).await;
    }
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_tried_again() {
    let Some(engine) = engine().await else { return };
    // Nobody listens on it any more when it is used.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let repository = format!("127.0.0.1:{port}/me/app");
    let ran = job(&[step("docker-push", &[("repository", &repository)])]).run(&engine).await;
    let (_, _, message) = ran.finished(0);
    assert!(message.unwrap().contains("connection refused"));
    assert_eq!(ran.output(0).matches("trying again in").count(), 2, "{}", ran.output(0));
}

#[tokio::test]
async fn a_cancelled_build_leaves_nothing() {
    let Some(engine) = engine().await else { return };
    let docker = raw(&engine).await;
    let build = format!("printf 'FROM {SH}\\nRUN echo begun && sleep 6.54321\\n' >Dockerfile");
    let mut job = job(&[script("make", &build), step("docker-build", &[("image-name", "never")])]);
    job.spec.run_id = format!("{:024x}", std::process::id());
    let run_id = job.spec.run_id.clone();
    let ran = job
        .run_watching(&engine, |event, cancel| {
            if matches!(event, EventKind::Output { text, step: 1, .. } if text.contains("STEP 2") || text.contains("Step 2")) {
                cancel.cancel();
            }
        })
        .await;
    assert!(ran.outcome().aborted, "{:#?}", ran.events);
    assert_eq!(ran.finished(1).0, StepOutcome::Aborted);
    // Podman lets a line of the Dockerfile end that it has begun; nothing comes of it.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while processes("sleep 6.54321") > 0 {
        assert!(std::time::Instant::now() < deadline, "the build goes on");
        tokio::task::yield_now().await;
    }
    docker.inspect_image(&format!("{run_id}never:latest")).await.unwrap_err();
}

/// How many processes of this machine have this command line.
fn processes(command: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").trim() == command).count()
}

#[tokio::test]
async fn steps_that_cannot_work_say_why() {
    let Some(engine) = engine().await else { return };
    for (name, properties, want) in [
        ("docker-push", &[][..], "needs the property `repository`"),
        ("docker-push", &[("repository", "$NONE")], "variables in it are empty"),
        ("docker-push", &[("repository", "a b")], "no name of an image"),
        ("docker-push", &[("repository", "wcr.io/me/app")], "was shut down"),
        ("docker-push", &[("repository", "a.b/c"), ("image-name", "x")], "has made x"),
        ("docker-kill", &[("name", "x")], "no container x runs"),
        ("docker-run", &[("name", "a b"), ("image", SH)], "no name of a host"),
        ("publish-step", &[], "it has no run.sh"),
        ("shell", &[("code", "x")], "there is no terminal"),
        ("kubectl", &[("code", "x")], "there is no internal step internal/kubectl"),
    ] {
        let mut properties = properties.to_vec();
        if properties.is_empty() {
            properties.push(("unknown", "x"));
        }
        let ran = job(&[step(name, &properties)]).run(&engine).await;
        let (outcome, _, message) = ran.finished(0);
        assert_eq!(outcome, StepOutcome::Failed, "{name}");
        assert!(message.as_deref().unwrap_or_default().contains(want), "{name}: {message:?}");
    }
}

#[tokio::test]
async fn the_box_and_a_step_are_stored_in_the_output() {
    let Some(engine) = engine().await else { return };
    let ran = job(&[
        script("make", "touch /installed\nmkdir mine\necho 'echo hi' >mine/run.sh\nprintf 'name: mine\\nversion: 1.0.2\\n' >mine/step.yml"),
        step("publish-step", &[("path", "mine"), ("owner", "me")]),
        step("store-container", &[("unused", "x")]),
    ])
    .run(&engine)
    .await;
    passed(&ran);
    let output = ran.outcome().output.clone().unwrap();
    let packed = std::fs::read(output.join("me-mine-1.0.2.tar.gz")).unwrap();
    let sum =
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), &packed));
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(ran.output(1).contains(&format!("me-mine-1.0.2.tar.gz#sha256={sum}")), "{}", ran.output(1));
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut unpacked).unwrap();
    assert_eq!(names(&unpacked), ["run.sh", "step.yml"]);

    let container = std::fs::read(output.join("container.tar")).unwrap();
    assert!(names(&container).contains(&"manifest.json".to_owned()), "{:?}", names(&container));
    assert!(contains(&container, "pipeline/source/mine/run.sh") && contains(&container, "installed"));
}

#[tokio::test]
async fn a_watched_command_runs_again_after_a_change() {
    let Some(engine) = engine().await else { return };
    let mut job = job(&[
        script("before", "export GREETING=hello"),
        step("watch", &[("code", "echo $GREETING $(cat hello.txt); sleep 1000"), ("reload", "true")]),
        script("after", "ps | grep -q '[s]leep 1000' && exit 1; echo went on"),
    ]);
    let source = job.dir.path().join("project");
    job.spec.source = Source::Own(source.clone());
    let interrupts = Arc::clone(&job.spec.interrupts);
    assert!(!interrupts.deliver());
    let ran = job
        .run_watching(&engine, |event, _| match event {
            EventKind::Output { text, .. } if text == "hello hello" => {
                std::fs::write(source.join("hello.txt"), "again\n").unwrap();
            }
            EventKind::Output { text, .. } if text == "hello again" => assert!(interrupts.deliver()),
            _ => {}
        })
        .await;
    passed(&ran);
    assert!(ran.output(1).contains("hello.txt has changed"), "{}", ran.output(1));
    assert_eq!(ran.output(2), "went on\n");
    assert!(!interrupts.deliver());
}

/// Types a few lines and reads what comes.
#[derive(Debug, Default)]
struct Typist(std::sync::Mutex<String>);

impl sealift_pipeline::Terminal for Typist {
    fn size(&self) -> (u16, u16) {
        (101, 33)
    }

    fn attach(
        &self,
        mut command: sealift_pipeline::Interactive,
    ) -> std::pin::Pin<Box<dyn Future<Output = std::io::Result<()>> + Send + '_>> {
        Box::pin(async move {
            use tokio::io::AsyncWriteExt;
            command.input.write_all(b"stty size; echo $((40 + 2)) $GREETING in $PWD; exit 3\n").await?;
            command.input.flush().await?;
            while let Some(bytes) = command.output.next().await {
                self.0.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes?));
            }
            Ok(())
        })
    }
}

#[tokio::test]
async fn a_shell_has_the_variables_and_the_size_of_the_window() {
    let Some(engine) = engine().await else { return };
    let mut job = job(&[
        script("before", "export GREETING=hello"),
        step("shell", &[("code", "echo prepared")]),
        script("after", "echo went on"),
    ]);
    let typist = Arc::new(Typist::default());
    job.spec.terminal = Some(Arc::clone(&typist) as Arc<dyn sealift_pipeline::Terminal>);
    let ran = job.run(&engine).await;
    passed(&ran);
    let shown = typist.0.lock().unwrap().clone();
    assert!(shown.contains("prepared") && shown.contains("42 hello") && shown.contains("33 101"), "{shown}");
    assert!(ran.output(1).contains("ended with code 3"), "{}", ran.output(1));
    assert_eq!(ran.output(2), "went on\n");
}

#[tokio::test]
async fn a_shell_where_a_step_failed_has_its_variables_and_directory() {
    let Some(engine) = engine().await else { return };
    for end in ["false", "exit 7", "return 7", "set +e; false"] {
        let mut job = job(&[
            script("before", "export GREETING=hello"),
            script("fails", &format!("mkdir -p /tmp/deep; cd /tmp/deep; export GREETING=bye; {end}")),
        ]);
        let typist = Arc::new(Typist::default());
        job.spec.terminal = Some(Arc::clone(&typist) as Arc<dyn sealift_pipeline::Terminal>);
        job.spec.shell_on_failure = true;
        let ran = job.run(&engine).await;
        assert!(!ran.outcome().passed, "{end}");
        let shown = typist.0.lock().unwrap().clone();
        assert!(shown.contains("42 bye in /tmp/deep"), "{end}: {shown}");
    }
}
