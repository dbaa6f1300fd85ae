//! `systemd-analyze verify` over files of every kind, good ones and bad ones.

use std::path::Path;
use std::process::Command;

use crate::verdict;

/// What it says when it will not have a file; all else it passes over.
const REFUSALS: [&str; 5] =
    ["Refusing", "bad unit file setting", "failed to load properly", "Failed to load unit file", "is masked"];

/// Whether systemd refuses the file, and what it says.
fn ask(dir: &Path, name: &str, text: &str) -> (bool, String) {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--generators=no", "--recursive-errors=no"])
        .arg(&path)
        .env("SYSTEMD_LOG_TARGET", "console")
        .output()
        .expect("systemd-analyze is there (package systemd)");
    std::fs::remove_file(&path).unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (REFUSALS.iter().any(|refusal| said.contains(refusal)), said)
}

#[test]
fn what_systemd_refuses_is_an_error_and_what_it_takes_is_none() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, refused) in [
        ("a.service", "[Service]\nExecStart=/bin/true\n", false),
        ("a.service", "[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\nMemory=1G\n", false),
        ("a@.service", "[Service]\nExecStart=/bin/true %i\n", false),
        ("a@1.service", "[Service]\nExecStart=/bin/true %i\n", false),
        ("a.service", "[Service]\nType=oneshot\nExecStart=/bin/true\nExecStart=/bin/false\n", false),
        ("a.service", "[Service]\nRemainAfterExit=1\nExecStop=/bin/true\n", false),
        (
            "a.service",
            "[Unit]\nSuccessAction=none\nDescription=a\n[Service]\nExecStart=-true \"a b\" 'c\"'\n",
            false,
        ),
        ("a.service", "[Service]\nExecStart=/bin/true\nWorkingDirectory=~\n", false),
        ("a.service", "[Service]\nExecStart=/bin/true\nWorkingDirectory=-/nowhere\n", false),
        ("a.service", "", true),
        ("a.service", "[Unit]\nDescription=a\n", true),
        ("a.service", "[Service]\n", true),
        ("a.service", "[Service]\nExecStrat=/bin/true\n", true),
        ("a.service", "[Service]\nExecStart=/bin/true\nExecStart=/bin/false\n", true),
        ("a.service", "[Service]\nExecStart=/bin/true\nType=dbus\n", true),
        ("a.service", "[Service]\nExecStart=/bin/true\nType=oneshot\nRestart=always\n", true),
        ("a.service", "[Service]\nExecStart=/bin/true\nExecReload=rel/x\n", true),
        ("a.service", "[Service]\nExecStart=./x\n", true),
        ("a.service", "[Service]\nExecStart=/bin/true \"a\n", true),
        ("a.service", "[Service]\nExecStart=/bin/true 'a\\' b\n", true),
        ("a.service", "[Service]\nExecStart=/bin/true\nWorkingDirectory=rel\n", true),
        ("a.service", "[Service\nExecStart=/bin/true\n", true),
        ("a.service", "[Service]\nExecStart=/bin/true\n[Unit", true),
        // Passed over: warnings at most.
        ("a.service", "[Service]\nExecStart=/bin/true\nKillMod=none\nTimeoutSec=5x\nMemoryMax=1X\n", false),
        ("a.service", "[Serivce]\nA=b\n[Service]\nExecStart=/bin/true\n", false),
        ("a.service", "A=b\n[Service]\nExecStart=/bin/true\nType=onshot\n", false),
        ("a.socket", "[Socket]\nListenStream=/run/a\nService=b.service\n[Unit]\nDescription=a\n", false),
        ("a.socket", "[Unit]\nDescription=a\n", true),
        ("a.socket", "[Socket]\nAccept=no\n", true),
        ("a.socket", "[Socket]\nListenStream=/run/a\nAccept=yes\nService=b.service\n", true),
        ("a.timer", "[Timer]\nOnCalendar=daily\nUnit=b.service\n", false),
        ("a.timer", "[Timer]\nPersistent=yes\n", true),
        ("a.path", "[Path]\nPathExists=/a\nUnit=b.service\n", false),
        ("a.path", "[Path]\nUnit=b.service\n", true),
        ("a.path", "[Path]\nPathExists=a\n", true),
        ("a.mount", "[Mount]\nWhat=/dev/a\n", false),
        ("var-lib-a\\x2db.mount", "[Mount]\nWhat=/dev/a\nWhere=/var/lib/a-b\n", false),
        ("var-lib-a\\x2db.mount", "[Mount]\nWhat=/dev/a\nWhere=/var//lib/./a-b/\n", false),
        ("\\x2ea-b_c:d.mount", "[Mount]\nWhat=/dev/a\nWhere=/.a/b_c:d\n", false),
        ("a.mount", "[Mount]\nWhat=/dev/a\nWhere=/b\n", true),
        ("a.mount", "[Mount]\nWhere=/a\n", true),
        ("a@1.mount", "[Mount]\nWhat=/dev/a\n", true),
        ("a.automount", "[Automount]\nWhere=/a\n", false),
        ("a.automount", "[Automount]\nTimeoutIdleSec=1min\n", false),
        ("a.automount", "[Automount]\nWhere=/b\n", true),
        ("a.swap", "[Swap]\nWhat=/a\n", false),
        ("a.swap", "[Swap]\nPriority=1\n", false),
        ("a.swap", "[Swap]\nWhat=/b\n", true),
        ("a.slice", "[Slice]\nCPUWeight=10\n", false),
        ("a-b.slice", "[Slice]\nMemoryMax=50%\n", false),
        ("a--b.slice", "[Slice]\nCPUWeight=10\n", true),
        ("-a.slice", "[Slice]\nCPUWeight=10\n", true),
        ("a@1.slice", "[Slice]\nCPUWeight=10\n", true),
        ("a.target", "[Unit]\nDescription=a\n", false),
        ("a@1.target", "[Unit]\nDescription=%i\n", false),
        ("a.device", "[Unit]\nDescription=a\n", false),
    ] {
        let (ours, findings) = verdict(name, text);
        let (systemds, said) = ask(dir.path(), name, text);
        assert_eq!((ours, systemds), (refused, refused), "{name}: {text}\n{findings:#?}\n{said}");
    }
}
