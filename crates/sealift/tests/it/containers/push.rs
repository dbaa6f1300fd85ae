//! From a commit to a running service, forth and back.

use crate::host::ready;

#[test]
fn a_commit_becomes_a_running_service_and_goes_back() {
    let Some((dev, project)) = ready() else { return };
    let first = project.commit("first");
    let text = dev.ok(&["push", project.path()]);
    for wanted in ["svc-1 queued", "step: compile", "| hello", "passed", "signed", "svc runs release 1"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let (first_pid, commit) = dev.process("svc.service");
    assert_eq!(commit, first);

    // The package: signed under its name, by the key that status names, in a form that minisign checks.
    let packages = dev.json(&["packages"]);
    let package = &packages["items"][0];
    let digest = package["digest"].as_str().unwrap();
    let archive = dev.state().join("blobs").join(&digest[..2]).join(digest);
    let signature = dev.dir.path().join("signature");
    std::fs::write(&signature, package["signature"].as_str().unwrap()).unwrap();
    let key = dev.json(&["status"])["public_key"].as_str().unwrap().to_owned();
    let verified = std::process::Command::new("minisign")
        .args(["-V", "-P", &key, "-x"])
        .arg(&signature)
        .arg("-m")
        .arg(&archive)
        .output()
        .expect("minisign must be installed: scripts/install-deps test");
    let statement = format!("sealift package project=svc branch=main commit={first} blake3={digest}");
    assert!(String::from_utf8_lossy(&verified.stdout).contains(&statement), "{verified:?}");

    // A second commit replaces the first, and has a drop-in beside its unit file.
    std::fs::create_dir(project.dir.join("units/svc.service.d")).unwrap();
    project.write("units/svc.service.d/20-more.conf", "[Service]\nEnvironment=MORE=much\n");
    let second = project.commit("second");
    dev.ok(&["push", project.path()]);
    let (second_pid, commit) = dev.process("svc.service");
    assert!(commit == second && second_pid != first_pid);
    let environment = std::fs::read_to_string(format!("/proc/{second_pid}/environ")).unwrap();
    assert!(environment.split('\0').any(|variable| variable == "MORE=much"), "{environment}");
    assert!(
        !std::fs::read_to_string(format!("/proc/{first_pid}/environ")).unwrap_or_default().contains("MORE=")
    );

    // A commit whose tests fail changes nothing that runs.
    project.write("greeting", "goodbye\n");
    project.commit("broken");
    let output = dev.run(&["push", project.path()]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("failed") && text.contains("exit code 1") && text.contains("unchanged"), "{text}");
    assert_eq!(dev.process("svc.service"), (second_pid, second.clone()));

    // Back to the first release, and there is none before it.
    let text = dev.ok(&["rollback", "svc"]);
    assert!(text.contains("release 1") && text.contains(&first[..8]), "{text}");
    assert_eq!(dev.process("svc.service").1, first);
    let output = dev.run(&["rollback", "svc"]);
    assert_eq!(output.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&output.stderr).contains("there is none before it"));
    dev.ok(&["rollback", "svc", "--to", "2"]);
    assert_eq!(dev.process("svc.service").1, second);

    // The log of a run is kept, and the newest is the default.
    assert!(dev.ok(&["logs", "svc-1"]).contains("| hello"));
    assert!(dev.ok(&["logs"]).contains("goodbye"));
    let runs = dev.json(&["runs"]);
    let states: Vec<_> =
        runs["items"].as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failed", "passed", "passed"]);
}

#[test]
fn altered_bytes_are_not_started() {
    let Some((mut dev, project)) = ready() else { return };
    project.commit("first");
    dev.ok(&["push", project.path()]);
    project.commit("second");
    dev.ok(&["push", project.path()]);
    let before = dev.process("svc.service");

    // The first release has to be fetched again, and one byte of it is another now.
    std::fs::remove_dir_all(dev.state().join("agent/releases/svc")).unwrap();
    let packages = dev.json(&["packages"]);
    let first =
        packages["items"].as_array().unwrap().iter().find(|package| package["run"] == "svc-1").unwrap();
    let digest = first["digest"].as_str().unwrap();
    let archive = dev.state().join("blobs").join(&digest[..2]).join(digest);
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    let output = dev.run(&["rollback", "svc"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("digest"), "{text}");
    assert_eq!(dev.process("svc.service"), before);
    // Going on to the good one works, and still runs what ran.
    dev.ok(&["rollback", "svc", "--to", "2"]);
    assert_eq!(dev.process("svc.service"), before);

    // A private systemd ends with the test; the state can be used again.
    dev.kill();
    dev.again();
    assert_eq!(dev.process("svc.service"), before);
}

#[test]
fn units_come_and_go_with_their_release() {
    let Some((dev, project)) = ready() else { return };
    project
        .write("units/extra.service", "[Service]\nExecStart=sleep 1d\n\n[X-Fleet]\nMachineOf=svc.service\n");
    project.commit("two units");
    dev.ok(&["push", project.path()]);
    let main = dev.process("svc.service");
    let extra = dev.process("extra.service").0;
    std::fs::remove_file(project.dir.join("units/extra.service")).unwrap();
    let second = project.commit("one unit");
    dev.ok(&["push", project.path()]);
    let names: Vec<_> =
        dev.json(&["units"])["items"].as_array().unwrap().iter().map(|unit| unit["name"].clone()).collect();
    assert_eq!(names, ["svc.service"]);
    assert!(crate::host::commit_of(extra).is_none(), "the removed unit's process is still there");
    let now = dev.process("svc.service");
    assert!(now.1 == second && now.0 != main.0);

    // A unit file that systemd would refuse fails the run before anything is built, with the place.
    project.write("units/svc.service", "[Serivce]\nExecStart=serve\n");
    project.commit("misspelt section");
    let output = dev.run(&["push", project.path()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("units/svc.service:1:"), "{text}");
    assert!(!text.contains("step: compile"), "{text}");
    assert_eq!(dev.process("svc.service"), now);
}

#[test]
fn a_unit_of_another_user_reads_its_release_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root's systemd starts units of another user");
        return;
    }
    let Some((dev, project)) = ready() else { return };
    // The test's own folder is closed to others; a state directory in /var/lib is not.
    std::fs::set_permissions(dev.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    project.write("units/svc.service", "[Service]\nUser=nobody\nExecStart=serve\n");
    let commit = project.commit("as nobody");
    dev.ok(&["push", project.path()]);
    let (pid, running) = dev.process("svc.service");
    assert_eq!(running, commit);
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}")).unwrap());
    assert_ne!(owner, 0);
    for secret in
        ["token", "store.redb", "keys/signing.key", "secrets", "blobs", "logs", "agent/units", "api.sock"]
    {
        let path = dev.state().join(secret);
        let read = std::process::Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "test", "-r"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(!read.success(), "{secret} is open to others");
    }
}

#[tokio::test]
async fn a_unit_file_that_was_altered_in_the_store_is_not_started() {
    use sealift_client::api::AppStatus;
    use sealift_store::{RedbStore, Store as _, Txn};

    let Some((mut dev, project)) = ready() else { return };
    project.commit("first");
    dev.ok(&["push", project.path()]);
    let before = dev.process("svc.service");
    dev.kill();

    let store = RedbStore::open(dev.state().join("store.redb")).await.unwrap();
    let key = "releases/svc/000000000001";
    let entry = store.get(key).await.unwrap().unwrap();
    let mut release: serde_json::Value = serde_json::from_slice(&entry.value).unwrap();
    release["units"]["svc.service"] = "[Service]\nExecStart=sleep 2d\n".into();
    store.commit(Txn::new().put(key, serde_json::to_vec(&release).unwrap())).await.unwrap();
    store.close().await;

    dev.again();
    let mut watch = dev.client().lines::<AppStatus>("/v1/apps/svc/watch").await.unwrap();
    let failed = loop {
        let app = watch.next().await.unwrap().unwrap();
        if app.phase == sealift_model::AppPhase::Failed {
            break app;
        }
    };
    let error = failed.units[0].status.as_ref().unwrap().error.clone().unwrap();
    assert!(error.contains("not the one in the signed package"), "{error}");
    assert_eq!(dev.process("svc.service"), before);
}

#[test]
fn the_machines_own_units_are_left_alone() {
    let Some((dev, project)) = ready() else { return };
    // A private systemd reads its user's units from its home.
    let own = dev.state().join("systemd/home/.config/systemd/user");
    std::fs::create_dir_all(&own).unwrap();
    std::fs::write(own.join("svc.service"), "[Service]\nExecStart=sleep 1d\n").unwrap();
    // systemd looks into a folder that is new when it is next made to reload, as by a release of another app.
    std::fs::rename(project.dir.join("units"), project.dir.join("aside")).unwrap();
    project.write_unit("other.service", "[Service]\nExecStart=serve\n");
    project.commit("another app");
    dev.ok(&["push", project.path(), "--project", "other"]);
    std::fs::remove_dir_all(project.dir.join("units")).unwrap();
    std::fs::rename(project.dir.join("aside"), project.dir.join("units")).unwrap();
    project.commit("in the way");
    let output = dev.run(&["push", project.path()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("the machine's own") && text.contains(own.to_str().unwrap()), "{text}");
    assert!(!dev.state().join("systemd/run/systemd/user/svc.service").try_exists().unwrap());
    // Once it is out of the way, the next release runs.
    std::fs::remove_file(own.join("svc.service")).unwrap();
    let commit = project.commit("free");
    dev.ok(&["push", project.path()]);
    assert_eq!(dev.process("svc.service").1, commit);
}

#[test]
fn a_release_that_does_not_start_is_told_and_can_be_undone() {
    let Some((dev, project)) = ready() else { return };
    let first = project.commit("first");
    dev.ok(&["push", project.path()]);
    project.write("units/svc.service", "[Service]\nType=oneshot\nExecStart=false\n");
    project.commit("does not start");
    let output = dev.run(&["push", project.path()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("release 2 of svc failed") && text.contains("sealift rollback svc"), "{text}");
    assert_eq!(dev.json(&["status"])["apps"][0]["phase"], "failed");
    dev.ok(&["rollback", "svc"]);
    assert_eq!(dev.process("svc.service").1, first);
}

#[test]
fn other_branches_make_packages_and_an_abort_stops_a_run() {
    let Some((dev, project)) = ready() else { return };
    project.commit("first");
    dev.ok(&["push", project.path()]);
    let before = dev.process("svc.service");
    project.git(&["checkout", "--quiet", "-b", "feature/x"]);
    let commit = project.commit("an idea");
    let text = dev.ok(&["push", project.path()]);
    assert!(text.contains(&format!("package svc/feature/x/{commit}, signed")), "{text}");
    assert_eq!(dev.process("svc.service"), before);

    project.write("wercker.yml", "box: localhost/sealift-e2e-box\nbuild:\n  steps:\n    - script:\n        code: |\n          echo waiting\n          sleep 1000\n");
    project.commit("takes long");
    let mut push = dev.command(&["push", project.path()]);
    let mut push = push.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(push.stdout.take().unwrap()));
    assert!(lines.by_ref().any(|line| line.unwrap().contains("| waiting")));
    assert!(dev.ok(&["abort", "svc-3"]).contains("svc-3 is aborted"));
    assert_eq!(push.wait().unwrap().code(), Some(1));
    assert!(lines.any(|line| line.unwrap().contains("aborted")));
    assert_eq!(dev.json(&["runs"])["items"][0]["state"], "aborted");
}

#[test]
fn a_workflow_is_carried_out_as_one_run_and_keeps_its_cache() {
    let Some((dev, project)) = ready() else { return };
    let wercker = "sealift: 1
box: localhost/sealift-e2e-box
make:
  steps:
    - script: {name: make, code: 'cat $WERCKER_CACHE_DIR/before || true; echo made >part; echo once >$WERCKER_CACHE_DIR/before'}
  publish: [part]
test:
  matrix: {N: [1, 2]}
  artifacts: {from: [make]}
  steps:
    - script: {name: look, code: 'echo \"cell $N has $(cat part)\"'}
ship:
  artifacts: {from: [make]}
  steps:
    - script: {name: pack, code: 'cp part $WERCKER_OUTPUT_DIR/'}
workflows:
  - name: ci
    stages: [make, test, ship]
";
    project.write("wercker.yml", wercker);
    std::fs::remove_dir_all(std::path::Path::new(project.path()).join("units")).unwrap();
    project.commit("a workflow");
    let text = dev.ok(&["push", project.path(), "--pipeline", "ci"]);
    for wanted in ["cell 1 has made", "cell 2 has made", "test (N=2)", "signed"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains("once"), "{text}");
    let run = &dev.json(&["runs"])["items"][0];
    let steps: Vec<_> =
        run["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["make: make", "test (N=1): look", "test (N=2): look", "ship: pack"]);
    // The next run finds what this one has left. A pipeline brings what it needs.
    project.write("greeting", "hello again\n");
    project.commit("again");
    let text = dev.ok(&["push", project.path(), "--pipeline", "ship"]);
    assert!(text.contains("once") && !text.contains("cell"), "{text}");
}

#[test]
fn a_step_can_be_a_package_of_another_project() {
    let Some((dev, project)) = ready() else { return };
    std::fs::remove_dir_all(std::path::Path::new(project.path()).join("units")).unwrap();
    let making = "box: localhost/sealift-e2e-box
build:
  steps:
    - script:
        code: |
          echo 'echo \"greetings to $WERCKER_GREET_WHOM\"' >$WERCKER_OUTPUT_DIR/run.sh
          printf 'name: greet\\nproperties:\\n  - name: whom\\n    default: nobody\\n' >$WERCKER_OUTPUT_DIR/step.yml
";
    project.write("wercker.yml", making);
    project.commit("a step");
    dev.ok(&["push", project.path(), "--project", "tools"]);
    let using = |name: &str| {
        format!(
            "box: localhost/sealift-e2e-box\nbuild:\n  steps:\n    - me/greet \"package:{name}\":\n        whom: all\n"
        )
    };
    project.write("wercker.yml", &using("tools/main/latest"));
    project.commit("uses it");
    let text = dev.ok(&["push", project.path()]);
    assert!(text.contains("greetings to all"), "{text}");
    project.write("wercker.yml", &using("tools/other/latest"));
    project.commit("asks for what is not there");
    let output = dev.run(&["push", project.path()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("no package tools/other/latest"), "{text}");
}
