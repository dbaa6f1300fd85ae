//! Units by hand, as a user meets them: real processes under a systemd of their own.

use std::path::PathBuf;

use crate::host::Dev;

/// A server, and a folder of unit files.
struct Fleet {
    dev: Dev,
    files: PathBuf,
}

impl Fleet {
    fn start() -> Fleet {
        let dev = Dev::start();
        let files = dev.dir.path().join("files");
        std::fs::create_dir(&files).unwrap();
        Fleet { dev, files }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.files.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The process of a unit that runs.
    fn pid(&self, unit: &str) -> u64 {
        let view = &self.dev.json(&["unit", "status", unit])["items"][0];
        let status = view["statuses"].as_object().unwrap().values().next().unwrap();
        assert_eq!(status["active"], "active", "{view}");
        status["main_pid"].as_u64().unwrap()
    }

    /// What a command that fails says, with its exit code.
    fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.dev.run(args);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    }
}

const SLEEP: &str = "[Service]\nExecStart=/bin/sleep 1d\n";

#[test]
fn from_a_file_to_running_instances_and_away_again() {
    let fleet = Fleet::start();
    fleet.write("nap@.service", SLEEP);
    let word = format!("{}/nap@{{1..3}}", fleet.files.display());
    let said = fleet.dev.ok(&["unit", "start", &word]);
    for n in 1..=3 {
        assert!(said.contains(&format!("nap@{n}.service active on ")), "{said}");
    }
    let list = fleet.dev.ok(&["unit", "list"]);
    assert_eq!(
        list.lines().filter(|line| line.contains(" active ") && line.contains("running")).count(),
        3,
        "{list}"
    );
    assert_eq!(fleet.dev.ok(&["unit", "cat", "nap@1.service"]), SLEEP);

    // The same again touches nothing; a restart is another process.
    let before = fleet.pid("nap@1");
    fleet.dev.ok(&["unit", "start", &word]);
    assert_eq!(fleet.pid("nap@1"), before);
    fleet.dev.ok(&["unit", "restart", "nap@1"]);
    let after = fleet.pid("nap@1");
    assert_ne!(after, before);
    // So is another text, but only if it is meant.
    fleet.write("nap@.service", "[Service]\nExecStart=/bin/sleep 2d\n");
    let (code, said) = fleet.fails(&["unit", "start", &word]);
    assert!(code == 0 && said.contains("--replace"), "{said}");
    assert_eq!(fleet.pid("nap@1"), after);
    fleet.dev.ok(&["unit", "start", "--replace", &word]);
    assert_ne!(fleet.pid("nap@1"), after);

    let said = fleet.dev.ok(&["unit", "stop", "nap@*"]);
    assert!(said.contains("nap@2.service loaded on "), "{said}");
    let said = fleet.dev.ok(&["unit", "unload", "nap@2"]);
    assert!(said.contains("nap@2.service inactive"), "{said}");
    let said = fleet.dev.ok(&["unit", "destroy", "nap@*"]);
    assert_eq!(said.lines().count(), 3, "{said}");
    assert_eq!(fleet.dev.json(&["unit", "list"])["items"], serde_json::json!([]));
}

#[test]
fn what_does_not_come_up_is_told_and_ends_the_wait() {
    let fleet = Fleet::start();
    let good = fleet.write("good.service", SLEEP);
    let bad = fleet.write("bad.service", "[Service]\nExecStart=/bin/false\n");
    let far = fleet.write("far.service", &format!("{SLEEP}\n[X-Fleet]\nMachineMetadata=region=moon\n"));
    let (code, said) = fleet.fails(&["unit", "start", &good, &bad, &far]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("good.service active on "), "one broken unit holds up another: {said}");
    assert!(said.contains("bad.service failed") && said.contains("exit-code"), "{said}");
    assert!(said.contains("far.service failed") && said.contains("region=moon"), "{said}");
    let explained = fleet.dev.ok(&["unit", "explain", "far.service"]);
    assert!(explained.contains("region=moon"), "{explained}");
    // It is still wanted: once the machine has what it asks for, it comes.
    let machine = fleet.dev.json(&["machine", "list"])["items"][0]["id"].as_str().unwrap().to_owned();
    fleet.dev.ok(&["machine", "metadata", &machine, "region=moon"]);
    fleet.dev.ok(&["unit", "start", "far.service"]);
    fleet.pid("far.service");
    // And goes with it.
    fleet.dev.ok(&["machine", "metadata", &machine, "region-"]);
    let (code, said) = fleet.fails(&["unit", "start", "far.service"]);
    assert!(code == 1 && said.contains("region=moon"), "{said}");
}

#[test]
fn a_file_that_contradicts_itself_is_shown_with_its_place_and_changes_nothing() {
    let fleet = Fleet::start();
    let file = fleet.write("odd.service", &format!("{SLEEP}\n[X-Fleet]\nGlobal=true\nMachineOf=a.service\n"));
    for args in [vec!["unit", "start", &file], vec!["unit", "verify", &file]] {
        let (code, said) = fleet.fails(&args);
        assert!(code != 0 && said.contains("odd.service:6:1: error") && said.contains("^^^^^^^^^"), "{said}");
    }
    let misspelt = fleet.write("slip.service", "[Service]\nExecStrat=/bin/sleep 1d\n");
    let (code, said) = fleet.fails(&["unit", "start", &misspelt]);
    assert!(
        code == 4 && said.contains("slip.service:2:1") && said.contains("did you mean ExecStart?"),
        "{said}"
    );
    assert_eq!(fleet.dev.json(&["unit", "list"])["items"], serde_json::json!([]));
    let (code, said) = fleet.fails(&["unit", "cat", "nobody"]);
    assert!(code == 4 && said.contains("no unit nobody.service"), "{said}");
    let (code, said) = fleet.fails(&["unit", "start", "nobody.service"]);
    assert!(code == 4 && said.contains("no unit nobody.service"), "{said}");
    let (code, said) = fleet.fails(&["unit", "stop", "no*"]);
    assert!(code == 4 && said.contains("no unit matches"), "{said}");
    let (code, said) = fleet.fails(&["machine", "drain", "mars"]);
    assert!(code == 4 && said.contains("there is no machine mars"), "{said}");
}

#[test]
fn what_no_machine_can_give_is_shown_before_it_is_asked_for() {
    let fleet = Fleet::start();
    fleet.dev.machine();
    let text = format!("{SLEEP}\n[X-Fleet]\nMachineMetadata=disk=floppy\nMemory=64T\n");
    let file = fleet.write("wish.service", &text);
    let said = fleet.dev.ok(&["unit", "verify", &file]);
    assert!(said.contains("wish.service:5:17: warning: no machine that is there has disk=floppy"), "{said}");
    assert!(said.contains("wish.service:6:8: warning") && said.ends_with("0 errors, 2 warnings\n"), "{said}");
    let verified = fleet.dev.json(&["unit", "verify", &file]);
    assert_eq!(verified["items"][0]["findings"][0]["line"], 5, "{verified}");
    assert_eq!(verified["machines"], 1);
    assert_eq!(fleet.fails(&["unit", "verify", "--strict", &file]).0, 1);
    // Without a server that is said, and nothing else is other.
    let dir = tempfile::tempdir().unwrap();
    let mut alone = crate::host::sealift();
    let output = alone.args(["unit", "verify", &file]).env("SEALIFT_STATE_DIR", dir.path()).output().unwrap();
    let (code, out, err) = crate::wercker::said(&output);
    assert_eq!((code, &*out), (0, "1 file: 0 errors, 0 warnings\n"), "{err}");
    assert!(
        err.starts_with("machines were not asked: no Sealift server answers at") && err.lines().count() == 1,
        "{err}"
    );
    let (code, said) = fleet.fails(&["unit", "verify", "--server", "http://127.0.0.1:1", &file]);
    assert_eq!(code, 3, "one that was named has to be there: {said}");
}

#[test]
fn a_set_of_replicas_is_one_unit_to_its_author() {
    let fleet = Fleet::start();
    let text = |replicas: u32, seconds: u32| {
        format!("[Service]\nExecStart=/bin/sleep {seconds}\n[X-Fleet]\nReplicas={replicas}\n")
    };
    let up = |fleet: &Fleet| -> Vec<String> {
        let list = fleet.dev.json(&["unit", "list", "set@*"]);
        let active = list["items"].as_array().unwrap().iter().filter(|view| {
            view["statuses"].as_object().unwrap().values().any(|status| status["active"] == "active")
        });
        active.map(|view| view["name"].as_str().unwrap().to_owned()).collect()
    };
    let file = fleet.write("set@.service", &text(3, 90_000));
    let said = fleet.dev.ok(&["unit", "start", &file]);
    assert!(said.contains("set@.service active"), "{said}");
    assert_eq!(up(&fleet), ["set@1.service", "set@2.service", "set@3.service"], "started means running");
    // Another text reaches all of them before the command returns.
    let before = fleet.pid("set@2");
    fleet.write("set@.service", &text(2, 80_000));
    fleet.dev.ok(&["unit", "start", "--replace", &file]);
    assert_ne!(fleet.pid("set@2"), before);
    fleet.dev.ok(&["unit", "destroy", "set@"]);
    let bad = "[Service]\nExecStart=/bin/false\n[X-Fleet]\nReplicas=2\n";
    let (code, said) = fleet.fails(&["unit", "start", &fleet.write("bad@.service", bad)]);
    assert!(code == 1 && said.contains("bad@.service failed") && said.contains("exit-code"), "{said}");
}

#[test]
fn a_drained_machine_gives_its_units_away_and_takes_them_again() {
    let fleet = Fleet::start();
    let file = fleet.write("web.service", SLEEP);
    fleet.dev.ok(&["unit", "start", &file]);
    let machine = fleet.dev.json(&["machine", "list"])["items"][0]["id"].as_str().unwrap().to_owned();
    fleet.dev.ok(&["machine", "drain", &machine]);
    let view = &fleet.dev.json(&["unit", "status", "web"])["items"][0];
    assert!(view["placement"].is_null(), "{view}");
    let (code, said) = fleet.fails(&["unit", "start", "web"]);
    assert!(code == 1 && said.contains("drain"), "{said}");
    fleet.dev.ok(&["machine", "uncordon", &machine]);
    fleet.dev.ok(&["unit", "start", "web"]);
    fleet.pid("web");
}
