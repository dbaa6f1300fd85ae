//! Rollouts as a user meets them: real processes under a systemd of their own.

use std::path::PathBuf;

use serde_json::Value;

use crate::host::Dev;

struct Fleet {
    dev: Dev,
    files: PathBuf,
    /// Where units write down when they start and stop.
    diary: PathBuf,
}

impl Fleet {
    fn start() -> Fleet {
        let dev = Dev::start();
        let files = dev.dir.path().join("files");
        std::fs::create_dir(&files).unwrap();
        Fleet { diary: dev.dir.path().join("diary"), dev, files }
    }

    /// A template that sleeps for so many days, and says when each instance begins and ends.
    fn naps(&self, days: u32, fleet: &str) -> String {
        let diary = self.diary.display();
        self.write(
            "nap@.service",
            &format!(
                "[Service]\nExecStart=/bin/sleep {days}d\n\
                 ExecStartPost=/bin/sh -c 'echo +%i >> {diary}'\n\
                 ExecStopPost=/bin/sh -c 'echo -%i >> {diary}'\n\
                 [X-Fleet]\n{fleet}\n"
            ),
        )
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.files.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn fails(&self, args: &[&str]) -> String {
        let output = self.dev.run(args);
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        text
    }

    /// What was written down since this was asked last.
    fn diary(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.diary).unwrap_or_default();
        std::fs::remove_file(&self.diary).ok();
        text.lines().map(str::to_owned).collect()
    }

    fn rollouts(&self) -> Vec<Value> {
        self.dev.json(&["rollout", "list"])["items"].as_array().unwrap().clone()
    }

    /// The arguments of the processes of these instances.
    fn asleep(&self, count: u32) -> Vec<String> {
        (1..=count).map(|n| self.argument(&format!("nap@{n}.service"))).collect()
    }

    fn argument(&self, unit: &str) -> String {
        let units = self.dev.json(&["unit", "status", unit]);
        let status = units["items"][0]["statuses"].as_object().unwrap().values().next().unwrap();
        let pid = status["main_pid"].as_u64().unwrap_or_else(|| panic!("{units}"));
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        line.split('\0').nth(1).unwrap_or_else(|| panic!("{line}")).to_owned()
    }
}

#[test]
fn a_changed_template_rolls_and_what_fails_goes_back() {
    let fleet = Fleet::start();
    let policy = "Replicas=3\nUpdateTimeout=30s";
    fleet.dev.ok(&["unit", "start", &fleet.naps(1, policy)]);
    assert_eq!(fleet.asleep(3), ["1d"; 3]);
    fleet.diary();
    fleet.dev.ok(&["unit", "start", "--replace", &fleet.naps(2, policy)]);
    assert_eq!(fleet.diary(), ["-1", "+1", "-2", "+2", "-3", "+3"], "one at a time");
    assert_eq!(fleet.asleep(3), ["2d"; 3]);
    assert_eq!(fleet.rollouts(), [Value::Null; 0]);

    // The first one fails; the others are not touched.
    let bad = fleet
        .write("nap@.service", &format!("[Service]\nExecStart=/bin/sh -c 'exit 7'\n[X-Fleet]\n{policy}\n"));
    let said = fleet.fails(&["unit", "start", "--replace", &bad]);
    assert!(said.contains("taken back: nap@1.service on ") && said.contains("exit-code"), "{said}");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fleet.rollouts()[0]["updated"] != serde_json::json!([]) {
        assert!(std::time::Instant::now() < end, "{:?}", fleet.rollouts());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let rollouts = fleet.rollouts();
    assert_eq!((&rollouts[0]["name"], &rollouts[0]["state"]), (&"nap@.service".into(), &"back".into()));
    let said = fleet.fails(&["rollout", "again", "nap@"]);
    assert!(said.contains("exit-code"), "{said}");
    let diary = fleet.diary();
    assert!(!diary.contains(&"-2".to_owned()) && !diary.contains(&"-3".to_owned()), "{diary:?}");
    assert!(fleet.dev.ok(&["unit", "status", "nap@1"]).contains("taken back"));

    // Instances are their template's; one can be restarted, which restarts what runs.
    for words in [["unit", "stop", "nap@2"], ["unit", "destroy", "nap@2"]] {
        let output = fleet.dev.run(&words);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(4) && said.contains("made by nap@.service"), "{said}");
    }
    fleet.fails(&["unit", "restart", "nap@2"]);
    // The first one may still be coming back.
    let of_two = || fleet.diary().into_iter().filter(|line| line.ends_with('2'));
    let mut restarted: Vec<_> = of_two().collect();
    while restarted.len() < 2 {
        assert!(std::time::Instant::now() < end, "{restarted:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
        restarted.extend(of_two());
    }
    assert_eq!(restarted, ["-2", "+2"]);
    // What mends it goes through.
    fleet.dev.ok(&["unit", "start", "--replace", &fleet.naps(3, policy)]);
    assert_eq!(fleet.asleep(3), ["3d"; 3]);
    assert_eq!(fleet.rollouts(), [Value::Null; 0]);
}

#[test]
fn a_health_command_decides_and_people_can_take_back() {
    let fleet = Fleet::start();
    let well = fleet.dev.dir.path().join("well");
    std::fs::write(&well, "").unwrap();
    let policy = format!("Replicas=2\nUpdateHealth=test -e {}\nUpdateTimeout=1h", well.display());
    fleet.dev.ok(&["unit", "start", &fleet.naps(1, &policy)]);
    fleet.dev.ok(&["unit", "start", "--replace", &fleet.naps(2, &policy)]);
    std::fs::remove_file(&well).unwrap();
    fleet.diary();
    fleet.dev.ok(&["unit", "start", "--replace", "--no-block", &fleet.naps(3, &policy)]);
    // The first waits to be well; nobody waits for it by the clock here.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while fleet.diary() != ["-1", "+1"] {
        assert!(std::time::Instant::now() < end, "{:?}", fleet.rollouts());
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(fleet.rollouts()[0]["state"], "rolling");
    let said = fleet.dev.ok(&["rollout", "back", "nap@"]);
    assert!(said.contains("nap@.service is back"), "{said}");
    std::fs::write(&well, "").unwrap();
    let said = fleet.dev.ok(&["rollout", "again", "nap@"]);
    assert!(said.contains("nap@.service is over"), "{said}");
    assert_eq!(fleet.asleep(2), ["3d"; 2]);
}

#[test]
fn with_start_first_there_is_always_enough() {
    let fleet = Fleet::start();
    let policy = "Replicas=2\nUpdateOrder=start-first";
    fleet.dev.ok(&["unit", "start", &fleet.naps(1, policy)]);
    fleet.diary();
    fleet.dev.ok(&["unit", "start", "--replace", &fleet.naps(2, policy)]);
    let mut up = 2;
    let mut fewest = up;
    let diary = fleet.diary();
    for line in &diary {
        up += if line.starts_with('+') { 1 } else { -1 };
        fewest = fewest.min(up);
    }
    assert!(fewest >= 2, "{diary:?}");
    assert_eq!(diary.first().map(String::as_str), Some("+3"), "{diary:?}");
    assert_eq!(fleet.asleep(2), ["2d"; 2]);
}

#[test]
fn a_global_unit_goes_back_on_its_machine_too() {
    let fleet = Fleet::start();
    let unit = |command: &str| {
        fleet.write("all.service", &format!("[Service]\nExecStart={command}\n[X-Fleet]\nGlobal=true\n"))
    };
    fleet.dev.ok(&["unit", "start", &unit("/bin/sleep 1d")]);
    fleet.dev.ok(&["unit", "start", "--replace", &unit("/bin/sleep 2d")]);
    assert_eq!(fleet.argument("all.service"), "2d");
    let said = fleet.fails(&["unit", "start", "--replace", &unit("/bin/false")]);
    assert!(said.contains("taken back: all.service on "), "{said}");
    let said = fleet.dev.ok(&["rollout", "back", "all"]);
    assert!(said.contains("all.service is already back"), "{said}");
    assert_eq!(fleet.argument("all.service"), "2d");
}
