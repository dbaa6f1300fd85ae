//! What a box gets of this machine: nothing without leave.

use crate::host::{Job, SH, engine, raw, script};

#[tokio::test]
async fn an_engine_of_its_own_needs_leave() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "box: {SH}\nbuild:\n  docker: true\n  steps:\n{}",
        script(
            "a",
            "test -S ${DOCKER_HOST#unix://} && echo $DOCKER_HOST $DOCKER_NETWORK_NAME\ngrep CapEff /proc/self/status"
        )
    );
    let ran = Job::new(yaml.clone()).run(&engine).await;
    let error = ran.error().to_string();
    assert!(error.contains("`docker: true`") && error.contains("does not allow"), "{error}");

    if engine.name().starts_with("Docker") && !has_all_capabilities() {
        return println!(
            "SKIPPED: a privileged box; Docker gives it capabilities that it has not got itself here"
        );
    }
    let mut job = Job::new(yaml);
    job.spec.allow_docker = true;
    let network = format!("sealift-{}", job.spec.key);
    let ran = job.run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert!(
        ran.output(0).starts_with(&format!("unix:///var/run/docker.sock {network}\n")),
        "{}",
        ran.output(0)
    );
}

/// Whether nothing has been taken away from root on this machine (capabilities(7)).
fn has_all_capabilities() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    let bounding = u64::from_str_radix(bounding.trim(), 16).unwrap();
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap();
    bounding.trailing_ones() > last.trim().parse().unwrap()
}

#[tokio::test]
async fn directories_ports_and_memory_need_leave() {
    let Some(engine) = engine().await else { return };
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("f"), "from outside\n").unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let yaml = format!(
        "box:\n  id: {SH}\n  volumes: {}:/out\n  ports: [\"127.0.0.1:{port}:9000\"]\nservices:\n  - id: {SH}\n    name: idle\n    cmd: sleep 1000\nbuild:\n  steps:\n{}",
        outside.path().display(),
        script("a", "cat /out/f || echo nothing there")
    );
    let ran = Job::new(yaml.clone()).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert!(ran.output(0).ends_with("nothing there\n"), "{}", ran.output(0));
    assert!(ran.warnings().iter().any(|warning| warning.contains("is not mounted")), "{:?}", ran.warnings());

    let docker = raw(&engine).await;
    let network = format!("sealift-it-net-{}", std::process::id());
    let request = bollard::models::NetworkCreateRequest { name: network.clone(), ..Default::default() };
    docker.create_network(request).await.unwrap();
    let mut job = Job::new(yaml.replace("cat /out/f", "cat /out/f; sleep 0.1"));
    job.spec.enable_volumes = true;
    job.spec.expose_ports = true;
    job.spec.memory = Some(512 * 1024 * 1024);
    job.spec.docker_network = Some(network.clone());
    let container = format!("sealift-{}-box", job.spec.key);
    let (sender, mut seen) = tokio::sync::mpsc::channel(1);
    let address = engine.address().to_owned();
    let ran = job
        .run_watching(&engine, move |event, _| {
            if matches!(event, sealift_model::EventKind::Output { .. }) {
                // From a thread of its own: the run must not stand still meanwhile.
                let (address, container, sender) = (address.clone(), container.clone(), sender.clone());
                let inspect = std::thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                    runtime.block_on(async {
                        let docker = bollard::Docker::connect_with_host(&address).unwrap();
                        let found = docker.inspect_container(&container, None).await.unwrap();
                        sender.try_send(found).ok();
                    });
                });
                inspect.join().unwrap();
            }
        })
        .await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output(0), "from outside\n");
    let host = seen.recv().await.unwrap().host_config.unwrap();
    assert_eq!(host.memory, Some(384 * 1024 * 1024));
    let bindings = host.port_bindings.unwrap();
    let binding = &bindings["9000/tcp"].as_ref().unwrap()[0];
    assert_eq!(binding.host_port.as_deref(), Some(port.to_string().as_str()));
    // It was there before, so it is there after.
    docker.remove_network(&network).await.unwrap();
}
