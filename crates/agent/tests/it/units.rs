//! Units as they are assigned, on a real systemd.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sealift_agent::releases::Releases;
use sealift_agent::reports::Reports;
use sealift_agent::systemd::{Manager, Systemd, launch};
use sealift_agent::units::Units;
use sealift_client::{Address, Client};
use sealift_model::{
    ActiveState, DesiredState, Requirements, Resources, Timestamp, Unit, UnitAssignment, UnitName,
    UnitStatus, Withdrawal,
};
use sealift_package::signing::SigningKey;

use crate::systemd::manager;

/// Far longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A machine with its systemd and a keeper of units.
struct Host {
    dir: tempfile::TempDir,
    manager: Manager,
    systemd: Systemd,
    units: Units,
    reports: Reports,
}

impl Host {
    async fn new() -> Self {
        Self::of(tempfile::tempdir().unwrap()).await
    }

    /// A host with what another one left.
    async fn of(dir: tempfile::TempDir) -> Self {
        let (manager, systemd) = manager(dir.path()).await;
        let key = SigningKey::load_or_create(&dir.path().join("key")).unwrap();
        let client = Client::new(Address::Unix(dir.path().join("nobody")), None);
        let releases = Releases::open(dir.path().join("releases"), key.public(), client).unwrap();
        let reports = Reports::default();
        let now = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            Timestamp(u64::try_from(now.as_millis()).unwrap())
        };
        let (clock, state_dir) = (Arc::new(now), dir.path().join("units"));
        let units =
            Units::open(manager.clone(), systemd.clone(), state_dir, releases, reports.clone(), clock);
        let units = units.await.unwrap();
        let following = units.clone();
        tokio::spawn(async move { following.follow().await });
        Self { dir, manager, systemd, units, reports }
    }

    fn assign(&self, unit: &Unit) {
        let assignment = UnitAssignment { unit: unit.clone(), placement: 1, package: None };
        self.units.change(vec![assignment], Vec::new());
    }

    /// Waits for a report of the unit that is as wanted.
    async fn report(&self, unit: &Unit, wanted: impl Fn(&UnitStatus) -> bool) -> UnitStatus {
        let found = async {
            loop {
                let status = self.reports.get(&unit.name);
                if let Some(status) = status.filter(|s| s.generation == unit.generation && wanted(s)) {
                    return status;
                }
                self.reports.next().await;
            }
        };
        let found = tokio::time::timeout(LIMIT, found).await;
        found.map_err(|_| self.reports.get(&unit.name)).expect("a report as wanted; the last is told")
    }

    /// Assigns it and waits until it is carried out.
    async fn hold(&self, unit: &Unit) -> UnitStatus {
        self.assign(unit);
        self.report(unit, |_| true).await
    }

    async fn remove(&self, unit: &UnitName) {
        self.units.change(Vec::new(), vec![Withdrawal { unit: unit.clone(), placement: 1 }]);
        let gone = async {
            while self.reports.get(unit).is_some() {
                self.reports.next().await;
            }
        };
        tokio::time::timeout(LIMIT, gone).await.unwrap();
    }

    fn path(&self, file: &str) -> PathBuf {
        self.manager.unit_dir.join(file)
    }

    async fn end(self) -> tempfile::TempDir {
        self.units.stop();
        launch::end_private(self.dir.path(), &self.systemd).await.unwrap();
        self.dir
    }
}

fn unit(name: &str, text: &str) -> Unit {
    Unit::new(name.parse().unwrap(), text, DesiredState::Launched)
}

/// Its next generation.
fn changed(unit: &Unit, change: impl FnOnce(&mut Unit)) -> Unit {
    let mut next = Unit { generation: unit.generation + 1, ..unit.clone() };
    change(&mut next);
    next
}

fn files_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        files.push(name.clone());
        if entry.file_type().unwrap().is_dir() {
            files.extend(files_in(&entry.path()).into_iter().map(|file| format!("{name}/{file}")));
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn only_what_systemd_acts_on_restarts_a_unit() {
    let host = Host::new().await;
    let service = "[Service]\nExecStart=sleep 1d\n";
    let first = unit("a\\x2db.service", service);
    let pid = host.hold(&first).await.main_pid;
    assert!(pid.is_some());
    let before = host.hold(&first).await.hash;

    let fleet = changed(&first, |unit| unit.text = format!("{service}[X-Fleet]\nPriority=3\n"));
    let status = host.hold(&fleet).await;
    assert_eq!((status.main_pid, &status.hash), (pid, &before), "[X-Fleet] is nothing to systemd");
    assert_eq!(std::fs::read_to_string(host.path("a\\x2db.service")).unwrap(), fleet.text);

    let asked = changed(&fleet, |unit| unit.restarts += 1);
    let status = host.hold(&asked).await;
    assert!(status.main_pid.is_some() && status.main_pid != pid, "a restart was asked for");
    let (pid, fleet) = (status.main_pid, asked);

    let drop_in = changed(&fleet, |unit| {
        unit.drop_ins.insert("20-a.conf".into(), "[Service]\nEnvironment=A=1\n".into());
    });
    let status = host.hold(&drop_in).await;
    assert!(status.main_pid.is_some() && status.main_pid != pid && status.hash != before);
    assert_eq!(files_in(&host.path("a\\x2db.service.d")), ["20-a.conf"]);

    let capped = changed(&drop_in, |unit| {
        unit.drop_ins = BTreeMap::from([("30-b.conf".into(), "[Service]\nEnvironment=B=1\n".into())]);
        unit.requirements =
            Requirements { caps: Resources { memory: 1 << 30, cpu: 1500 }, ..Requirements::default() };
    });
    host.hold(&capped).await;
    assert_eq!(files_in(&host.path("a\\x2db.service.d")), ["10-sealift.conf", "30-b.conf"]);
    let ours = std::fs::read_to_string(host.path("a\\x2db.service.d/10-sealift.conf")).unwrap();
    assert!(ours.ends_with("[Service]\nMemoryMax=1073741824\nCPUQuota=150.0%\n"), "{ours}");

    host.remove(&first.name).await;
    assert_eq!(files_in(&host.manager.unit_dir), [""; 0]);
    assert_eq!(files_in(&host.dir.path().join("units")), [""; 0]);
    assert_eq!(host.systemd.state(&first.name).await.unwrap().load, "not-found");
    host.end().await;
}

#[tokio::test]
async fn a_file_is_read_also_where_systemd_did_without_one() {
    let host = Host::new().await;
    let slice = unit("made.slice", "[Unit]\nDescription=Ours\n");
    let service = unit("in.service", "[Service]\nSlice=made.slice\nExecStart=sleep 1d\n");
    host.hold(&service).await;
    assert_eq!(host.systemd.state(&slice.name).await.unwrap().load, "loaded", "systemd makes slices up");
    assert_eq!(host.systemd.origin(&slice.name).await.unwrap(), None);
    host.hold(&slice).await;
    assert_eq!(host.systemd.origin(&slice.name).await.unwrap(), Some(host.path("made.slice")));
    host.remove(&slice.name).await;
    assert_eq!(host.systemd.origin(&slice.name).await.unwrap(), None);
    host.end().await;
}

#[tokio::test]
async fn what_has_done_its_work_is_not_started_again_but_what_failed_is() {
    let host = Host::new().await;
    let count = host.dir.path().join("count");
    let ran = || std::fs::read_to_string(&count).unwrap().lines().count();
    let line = format!("echo ran >>{}", count.display());
    let good = unit("good.service", &format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c '{line}'\n"));
    assert_eq!((host.hold(&good).await.active, ran()), (ActiveState::Inactive, 1));
    let again = changed(&good, |unit| unit.text.push_str("[X-Fleet]\nPriority=1\n"));
    host.hold(&again).await;
    assert_eq!(ran(), 1);
    let other = changed(&again, |unit| unit.text.insert_str(0, "# other\n"));
    host.hold(&other).await;
    assert_eq!(ran(), 2);

    let bad =
        unit("bad.service", &format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c '{line}; exit 3'\n"));
    let status = host.hold(&bad).await;
    assert_eq!((status.active, status.exit_code, ran()), (ActiveState::Failed, Some(3), 3));
    host.hold(&changed(&bad, |unit| unit.text.push_str("[X-Fleet]\n"))).await;
    assert_eq!(ran(), 4);
    host.end().await;
}

#[tokio::test]
async fn a_sidekick_follows_its_unit_by_install() {
    let host = Host::new().await;
    let sidekick = Unit {
        desired: DesiredState::Loaded,
        ..unit(
            "side.service",
            "[Unit]\nBindsTo=main.service\nAfter=main.service\n[Service]\nExecStart=sleep 1d\n\
             [Install]\nWantedBy=main.service\n[X-Fleet]\nMachineOf=main.service\n",
        )
    };
    assert_eq!(host.hold(&sidekick).await.active, ActiveState::Inactive);
    assert_eq!(files_in(&host.path("main.service.wants")), ["side.service"]);
    let main = unit("main.service", "[Service]\nExecStart=sleep 1d\n");
    host.hold(&main).await;
    host.report(&sidekick, |status| status.active == ActiveState::Active).await;

    let stopped = changed(&main, |unit| unit.desired = DesiredState::Loaded);
    host.hold(&stopped).await;
    host.report(&sidekick, |status| status.active == ActiveState::Inactive).await;

    let free = changed(&sidekick, |unit| unit.text = "[Service]\nExecStart=sleep 1d\n".into());
    host.hold(&free).await;
    assert_eq!(files_in(&host.path("main.service.wants")), [""; 0], "without [Install] there is no link");
    let bound = changed(&free, |unit| unit.text.clone_from(&sidekick.text));
    host.hold(&bound).await;
    host.remove(&sidekick.name).await;
    host.remove(&main.name).await;
    let left = files_in(&host.manager.unit_dir);
    assert!(left.iter().all(|file| file == "main.service.wants"), "{left:?}");
    host.end().await;
}

#[tokio::test]
async fn what_cannot_be_carried_out_is_told_and_holds_up_nobody() {
    let host = Host::new().await;
    let text = "[Service]\nExecStart=sleep 1d\n";
    let mut named = unit("named.service", text);
    named.drop_ins.insert("10-sealift.conf".into(), "[Service]\n".into());
    for (unit, wanted) in [
        (unit("t@.service", text), "t@.service is a template; only its instances run"),
        (named, "10-sealift.conf is the name of Sealift's own drop-in; take another number"),
        (
            unit("junk.container", "[Container]\nImage=a\nfoo\n"),
            "line 3 of junk.container is neither a section nor Key=value; Quadlet would make no service of any file",
        ),
    ] {
        let status = host.hold(&unit).await;
        assert_eq!(status.error.as_deref(), Some(wanted));
        host.remove(&unit.name).await;
    }
    assert_eq!(host.hold(&unit("t@1.service", text)).await.active, ActiveState::Active);
    host.end().await;
}

#[tokio::test]
async fn what_ran_under_a_systemd_that_is_gone_is_started_under_the_next() {
    let host = Host::new().await;
    let stays = unit("stays.service", "[Service]\nExecStart=sleep 1d\n");
    let pid = host.hold(&stays).await.main_pid;
    let host = Host::of(host.end().await).await;
    assert!(host.path("stays.service").is_file());
    let status = host.hold(&stays).await;
    assert!(status.main_pid.is_some() && status.main_pid != pid, "{status:?}");
    // Another life of the agent alone touches nothing.
    host.units.stop();
    let host = Host::of(host.dir).await;
    assert_eq!(host.hold(&stays).await.main_pid, status.main_pid);
    host.end().await;
}

/// Where there is a Quadlet its service is held, else its want is told; either is right for its machine.
#[tokio::test]
async fn a_container_is_held_as_its_service_or_the_want_of_quadlet_is_told() {
    let host = Host::new().await;
    let container = Unit {
        desired: DesiredState::Loaded,
        ..unit("web.container", "[Container]\nImage=localhost/none\nServiceName=site\n[X-Fleet]\n")
    };
    if let Err(missing) = host.manager.quadlet.check().await {
        let status = host.hold(&container).await;
        assert_eq!(status.error, Some(missing.to_string()));
        assert_eq!(files_in(&host.manager.quadlet.dir), [""; 0]);
        println!("ONLY THE WANT WAS TOLD: {missing}");
        host.end().await;
        return;
    }
    let status = host.hold(&container).await;
    assert_eq!((&*status.load, status.error), ("loaded", None));
    let site = "site.service".parse().unwrap();
    let origin = host.systemd.origin(&site).await.unwrap();
    assert_eq!(origin, Some(host.manager.quadlet.dir.join("web.container")));

    // Its pod comes later, from another group.
    let loaded = |name, text| Unit { desired: DesiredState::Loaded, ..unit(name, text) };
    let inside = loaded("in.container", "[Container]\nImage=localhost/none\nPod=p.pod\n");
    host.assign(&inside);
    let error = host.report(&inside, |status| status.error.is_some()).await.error.unwrap();
    assert!(error.contains("p.pod") && error.contains("in.service"), "{error}");
    let pod = loaded("p.pod", "[Pod]\n");
    assert_eq!(host.hold(&pod).await.load, "loaded");
    host.report(&inside, |status| status.error.is_none() && status.load == "loaded").await;

    // A user's Quadlet would wait for the network of a system's systemd, which may not run here.
    let renamed = changed(&container, |unit| {
        unit.text = "[Container]\nImage=localhost/none\n[Quadlet]\nDefaultDependencies=no\n".into();
    });
    assert_eq!(host.hold(&renamed).await.load, "loaded");
    assert_eq!(host.systemd.state(&site).await.unwrap().load, "not-found");

    // Podman itself, as far as it comes without an image: systemd's word is told under the file's name.
    let started = changed(&renamed, |unit| unit.desired = DesiredState::Launched);
    let status = host.hold(&started).await;
    assert_eq!((status.active, status.unit.as_str()), (ActiveState::Failed, "web.container"));
    for unit in [&inside.name, &pod.name, &container.name] {
        host.remove(unit).await;
    }
    assert_eq!(files_in(&host.manager.quadlet.dir), [""; 0]);
    assert_eq!(host.systemd.state(&"web.service".parse().unwrap()).await.unwrap().load, "not-found");
    host.end().await;
}
