//! The D-Bus driver against real units.

use std::path::Path;

use sealift_agent::systemd::launch::{self, Surroundings};
use sealift_agent::systemd::{Manager, Systemd};
use sealift_model::{ActiveState, UnitName};

pub(crate) async fn manager(dir: &Path) -> (Manager, Systemd) {
    let around = Surroundings {
        is_root: rustix::process::geteuid().is_root(),
        uid: rustix::process::geteuid().as_raw(),
        runtime_dir: None,
        private_dir: dir.to_owned(),
        force_private: true,
    };
    let connected =
        launch::connect(&around).await.expect("a private systemd can be started (scripts/install-deps test)");
    std::fs::create_dir_all(&connected.0.unit_dir).unwrap();
    connected
}

#[tokio::test]
async fn units_start_stop_and_tell_their_state() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, systemd) = manager(dir.path()).await;
    let good = "good.service".parse().unwrap();
    let bad = "bad.service".parse().unwrap();
    std::fs::write(manager.unit_dir.join("good.service"), "[Service]\nExecStart=sleep 1d\n").unwrap();
    std::fs::write(manager.unit_dir.join("bad.service"), "[Service]\nType=oneshot\nExecStart=false\n")
        .unwrap();
    systemd.reload().await.unwrap();

    assert!(systemd.start(&good).await.unwrap().is_done());
    let state = systemd.state(&good).await.unwrap();
    assert_eq!((state.active, &*state.sub, &*state.load), (ActiveState::Active, "running", "loaded"));
    assert!(state.main_pid.is_some() && state.since.0 > 1_700_000_000_000);

    assert_eq!(systemd.start(&bad).await.unwrap().0, "failed");
    let state = systemd.state(&bad).await.unwrap();
    assert_eq!((state.active, state.result.as_deref()), (ActiveState::Failed, Some("exit-code")));
    systemd.reset_failed(&bad).await.unwrap();
    systemd.reset_failed(&"unheard-of.service".parse().unwrap()).await.unwrap();

    assert!(systemd.stop(&good).await.unwrap().is_done());
    assert_eq!(systemd.state(&good).await.unwrap().active, ActiveState::Inactive);
    assert_eq!(systemd.state(&"unheard-of.service".parse().unwrap()).await.unwrap().load, "not-found");
    launch::end_private(dir.path(), &systemd).await.unwrap();
}

#[tokio::test]
async fn many_who_ask_at_once_get_each_his_own_answer() {
    let dir = tempfile::tempdir().unwrap();
    let (manager, systemd) = manager(dir.path()).await;
    let name = |text: String| -> UnitName { text.parse().unwrap() };
    for number in 0..40 {
        let path = manager.unit_dir.join(format!("many-{number}.service"));
        std::fs::write(path, "[Service]\nExecStart=sleep 1d\n").unwrap();
    }
    let link = manager.unit_dir.join("alias.service");
    std::os::unix::fs::symlink("many-1.service", link).unwrap();
    // Without a reload: systemd finds what it has not looked for before.
    for number in [1, 7, 39] {
        assert!(systemd.start(&name(format!("many-{number}.service"))).await.unwrap().is_done());
    }
    let mut names: Vec<_> = (0..40).map(|number| name(format!("many-{number}.service"))).collect();
    names.extend(["alias.service", "unheard-of.service", "template@.service"].map(|text| name(text.into())));
    let states = futures_util::future::join_all(names.iter().map(|name| systemd.state(name))).await;
    for (name, state) in names.iter().zip(states) {
        if name.is_template() {
            assert!(state.is_err(), "a template has no state, and costs nobody his answer");
            continue;
        }
        let state = state.unwrap();
        let runs = ["many-1.service", "many-7.service", "many-39.service", "alias.service"];
        let wanted = match name.as_str() {
            name if runs.contains(&name) => ("loaded", ActiveState::Active),
            "unheard-of.service" => ("not-found", ActiveState::Inactive),
            _ => ("loaded", ActiveState::Inactive),
        };
        assert_eq!((&*state.load, state.active), wanted, "{name}");
        assert_eq!(state.main_pid.is_some(), state.active == ActiveState::Active, "{name}");
    }
    launch::end_private(dir.path(), &systemd).await.unwrap();
}

#[tokio::test]
async fn a_private_manager_is_found_again_with_its_units_running() {
    let dir = tempfile::tempdir().unwrap();
    let (manager_, systemd) = manager(dir.path()).await;
    let name = "stay.service".parse().unwrap();
    std::fs::write(manager_.unit_dir.join("stay.service"), "[Service]\nExecStart=sleep 1d\n").unwrap();
    systemd.reload().await.unwrap();
    systemd.start(&name).await.unwrap();
    let pid = systemd.state(&name).await.unwrap().main_pid;
    drop(systemd);
    let (_, systemd) = manager(dir.path()).await;
    assert!(pid.is_some());
    assert_eq!(systemd.state(&name).await.unwrap().main_pid, pid);
    launch::end_private(dir.path(), &systemd).await.unwrap();
}
