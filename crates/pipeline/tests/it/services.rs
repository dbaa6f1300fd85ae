//! Services beside the box.

use std::time::Duration;

use crate::host::{Job, SH, engine, raw, script};

#[tokio::test]
async fn a_service_is_reached_by_alias_and_by_variables() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "box: {SH}\nservices:\n  - id: {SH}\n    name: web-one\n    cmd: sh -c \"sleep 0.5; httpd -f -p 7000 -h /etc\"\n    ports: [\"7000\"]\n    env:\n      greeting: hello\n  - id: {SH}\n    name: second\n    cmd: sh -c \"wget -q -O - http://web-one:7000/passwd; sleep 1000\"\nbuild:\n  steps:\n{}",
        script(
            "ask",
            "wget -q -O /dev/null http://web-one:7000/passwd\nwget -q -O /dev/null http://$WEB_ONE_PORT_7000_TCP_ADDR:$WEB_ONE_PORT_7000_TCP_PORT/passwd\necho $WEB_ONE_ENV_GREETING ${WEB_ONE_PORT#tcp://}"
        )
    );
    let ran = Job::new(yaml).run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    let said = ran.output(0);
    assert!(said.starts_with("hello ") && said.ends_with(":7000\n"), "{said}");
    let notes = format!("{:?}", ran.events);
    assert!(notes.contains("service web-one is ready: port 7000 answered"), "{notes}");
    assert!(notes.contains("service second runs; it exposes no ports"), "{notes}");
}

#[tokio::test]
async fn a_service_on_a_network_with_ipv6_is_reached_by_both_families() {
    let Some(engine) = engine().await else { return };
    let docker = raw(&engine).await;
    // Of the block for unique local addresses (RFC 4193), so that two runs of the tests are not in each other's way.
    let part = std::process::id();
    let prefix = format!("fd5e:a11f:{:x}:{:x}", part >> 16, part & 0xffff);
    let network = format!("sealift-it-v6-{part}");
    let request = bollard::models::NetworkCreateRequest {
        name: network.clone(),
        enable_ipv6: Some(true),
        ipam: Some(bollard::models::Ipam {
            config: Some(vec![bollard::models::IpamConfig {
                subnet: Some(format!("{prefix}::/64")),
                ..Default::default()
            }]),
            ..Default::default()
        }),
        ..Default::default()
    };
    docker.create_network(request).await.unwrap();
    // The name goes to both addresses. Without that of IPv4, it can only be found over IPv6.
    let code = "ip -6 -o addr show scope global | grep -q fd5e && echo the box has one too\n\
        awk '$2 == \"web\" {print ($1 ~ /^fd5e:.*:/) ? \"six\" : \"four\"}' /etc/hosts\n\
        wget -q -O - http://$WEB_PORT_7000_TCP_ADDR:7000/group | head -n 1\n\
        grep -v '\\..*web' /etc/hosts >/tmp/hosts; cat /tmp/hosts >/etc/hosts\n\
        wget -q -O - http://web:7000/group | head -n 1";
    let yaml = format!(
        "box: {SH}\nservices:\n  - id: {SH}\n    name: web\n    cmd: httpd -f -p 7000 -h /etc\n    ports: [7000]\nbuild:\n  steps:\n{}",
        script("ask", code)
    );
    let mut job = Job::new(yaml);
    job.spec.docker_network = Some(network.clone());
    let ran = job.run(&engine).await;
    docker.remove_network(&network).await.unwrap();
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output(0), "the box has one too\nfour\nsix\nroot:x:0:\nroot:x:0:\n");
}

#[tokio::test]
async fn a_service_that_never_is_ready_says_why() {
    let Some(engine) = engine().await else { return };
    for (cmd, want) in [
        ("sh -c \"echo my last words; httpd -f -p 127.0.0.1:7000 -h /etc\"", "127.0.0.1 only"),
        ("sh -c \"echo my last words; sleep 1000\"", "nothing accepts connections on port 7000"),
        ("sh -c \"echo my last words; sleep 0.5; exit 3\"", "ended with code 3"),
    ] {
        let yaml = format!(
            "box: {SH}\nservices:\n  - id: {SH}\n    name: db\n    cmd: {cmd}\n    ports: [7000]\nbuild:\n  steps:\n{}",
            script("a", "true")
        );
        let mut job = Job::new(yaml);
        job.spec.tuning.service_limit = Duration::from_secs(2);
        let ran = job.run(&engine).await;
        let Err(error) = &ran.result else { panic!("{cmd}: {:?}", ran.events) };
        let error = error.to_string();
        assert!(error.contains(want) && error.contains("my last words"), "{cmd}: {error}");
    }
}

#[tokio::test]
async fn a_project_in_the_source_is_built_and_is_the_service() {
    let Some(engine) = engine().await else { return };
    let yaml = format!(
        "box: {SH}\nservices:\n  - name: shop\n    url: file://./shop#make\n    cmd: httpd -f -p 7000 -h /pipeline/source\n    ports: [7000]\nbuild:\n  steps:\n{}",
        script("ask", "wget -q -O - http://shop:7000/page")
    );
    let job = Job::new(yaml);
    let shop = job.dir.path().join("project/shop");
    std::fs::create_dir(&shop).unwrap();
    let inner =
        format!("box: {SH}\nmake:\n  steps:\n{}", script("page", "echo made by the shop >page; echo said"));
    std::fs::write(shop.join("wercker.yml"), inner).unwrap();
    let ran = job.run(&engine).await;
    assert!(ran.outcome().passed, "{:#?}", ran.events);
    assert_eq!(ran.output(0), "made by the shop\n");
    let notes = format!("{:?}", ran.events);
    assert!(notes.contains("shop: step page") && notes.contains("shop: said"), "{notes}");

    for (url, inner, want) in [
        ("file://../elsewhere", "", "no such directory in the source tree"),
        ("https://host/x", "", "only file:// is known"),
        // A link that a step may have laid: not even its first line is told.
        ("file://leads-out", "", "no configuration in"),
        ("file://shop", "box: nothing\n", "there is no pipeline build"),
        (
            "file://shop",
            "box: SH\nbuild:\n  steps:\n    - script:\n        name: bad\n        code: exit 3\n",
            "step bad failed",
        ),
        (
            "file://shop",
            "box: SH\nservices: [{name: shop, url: 'file://.'}]\nbuild:\n  steps:\n    - script: {code: 'true'}\n",
            "stand on each other",
        ),
    ] {
        let yaml = format!(
            "box: {SH}\nservices: [{{name: shop, url: '{url}'}}]\nbuild:\n  steps:\n{}",
            script("a", "true")
        );
        let job = Job::new(yaml);
        let shop = job.dir.path().join("project/shop");
        std::fs::create_dir(&shop).unwrap();
        std::fs::write(shop.join("wercker.yml"), inner.replace("SH", SH)).unwrap();
        let leads_out = job.dir.path().join("project/leads-out");
        std::fs::create_dir(&leads_out).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", leads_out.join("wercker.yml")).unwrap();
        let error = job.run(&engine).await.error().to_string();
        assert!(error.contains(want), "{url}: {error}");
    }
}
