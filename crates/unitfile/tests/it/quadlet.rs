//! Files for Quadlet. The verdicts are those of Podman 5.4; where the machine has a Quadlet, it is asked again.

use std::path::{Path, PathBuf};
use std::process::Command;

use sealift_unitfile::UnitFile;

use crate::verdict;

const GENERATORS: [&str; 2] =
    ["/usr/libexec/podman/quadlet", "/usr/lib/systemd/system-generators/podman-system-generator"];

/// The machine's own Quadlet, or the one that `SEALIFT_QUADLET` names. It has to be Podman 5.4 or newer: older ones know
/// fewer keys.
fn generator() -> Option<PathBuf> {
    let named = std::env::var_os("SEALIFT_QUADLET").map(PathBuf::from);
    let found = named.or_else(|| GENERATORS.iter().map(PathBuf::from).find(|path| path.is_file()))?;
    let output = Command::new(&found).arg("-version").output().expect("Quadlet tells its version");
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    ((numbers.next(), numbers.next()) >= (Some(5), Some(4))).then_some(found)
}

/// The services that Quadlet makes of a file, and what it says.
fn ask(generator: &Path, name: &str, text: &str) -> (Vec<String>, String) {
    let dir = tempfile::tempdir().unwrap();
    let (source, made) = (dir.path().join("source"), dir.path().join("made"));
    std::fs::create_dir(&source).unwrap();
    std::fs::create_dir(&made).unwrap();
    std::fs::write(source.join(name), text).unwrap();
    let output = Command::new(generator)
        .arg("-no-kmsg-log")
        .arg(&made)
        .env("QUADLET_UNIT_DIRS", &source)
        .output()
        .unwrap();
    let names =
        std::fs::read_dir(&made).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let services = names.filter(|name| name.ends_with(".service")).collect();
    (services, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn what_quadlet_refuses_is_an_error_and_what_it_takes_has_the_name_that_we_say() {
    let generator = generator();
    if generator.is_none() {
        println!("NOT ASKED: no Quadlet of Podman 5.4 or newer is here; SEALIFT_QUADLET can name one");
    }
    for (name, text, service) in [
        ("a.container", "[Container]\nImage=localhost/a\n", Some("a.service")),
        ("a@.container", "[Container]\nImage=localhost/a\n", Some("a@.service")),
        ("a@1.container", "[Container]\nImage=localhost/a\n", Some("a@1.service")),
        ("a.container", "[Container]\nImage=localhost/a\nServiceName=b\n", Some("b.service")),
        (
            "a.container",
            "[Container]\nRootfs=/a\n[Service]\nType=oneshot\nKillMode=mixed\n",
            Some("a.service"),
        ),
        (
            "a.container",
            "[Unit]\nDescription=a\n[Container]\nImage=localhost/a\nUser=1\nGroup=1\nExposeHostPort=80-90/udp\n\
             [Quadlet]\nDefaultDependencies=no\n[Install]\nWantedBy=default.target\n[X-Fleet]\nGlobal=yes\n",
            Some("a.service"),
        ),
        ("a.volume", "[Volume]\nDriver=local\n", Some("a-volume.service")),
        ("a.volume", "[Unit]\nDescription=a\n", Some("a-volume.service")),
        ("a@1.volume", "[Volume]\n", Some("a@1-volume.service")),
        ("a.network", "[Network]\nInternal=yes\n", Some("a-network.service")),
        ("a.pod", "[Pod]\nPublishPort=80:80\n", Some("a-pod.service")),
        ("a.pod", "[Pod]\nServiceName=b\n", Some("b.service")),
        ("a.kube", "[Kube]\nYaml=/a.yaml\n", Some("a.service")),
        ("a.image", "[Image]\nImage=localhost/a\n", Some("a-image.service")),
        ("a.build", "[Build]\nImageTag=localhost/a\nSetWorkingDirectory=/a\n", Some("a-build.service")),
        ("a.container", "[Unit]\nDescription=a\n", None),
        ("a.container", "[Container]\nExec=true\n", None),
        ("a.container", "[Container]\nImage=localhost/a\nRootfs=/a\n", None),
        ("a.container", "[Container]\nImage=localhost/a\nImgae=a\n", None),
        ("a.container", "[Container]\nImage=localhost/a\nRestart=always\n", None),
        ("a.container", "[Container]\nImage=localhost/a\n[Quadlet]\nDefaultDependency=no\n", None),
        ("a.container", "[Container]\nImage=localhost/a\nGroup=1\n", None),
        ("a.container", "[Container]\nImage=localhost/a\nExposeHostPort=abc\n", None),
        ("a.container", "[Container]\nImage=localhost/a\nReloadCmd=a\nReloadSignal=HUP\n", None),
        ("a.container", "[Container]\nImage=localhost/a\n[Service]\nType=simple\n", None),
        ("a.container", "[Container]\nImage=localhost/a\n[Service]\nKillMode=none\n", None),
        ("a.container", "[Container]\nImage=localhost/a\nfoo\n", None),
        ("a.container", "[Container]\nImage=localhost/a\n[Service\n", None),
        ("a.kube", "[Kube]\nLogDriver=none\n", None),
        ("a.kube", "[Kube]\nYaml=/a.yaml\n[Service]\nType=simple\n", None),
        ("a.kube", "[Kube]\nYaml=/a.yaml\n[Service]\nKillMode=none\n", None),
        ("a.image", "[Image]\nAllTags=yes\n", None),
        ("a.build", "[Build]\nImageTag=a\n", None),
        ("a.build", "[Build]\nFile=/a\n", None),
    ] {
        let (refused, findings) = verdict(name, text);
        assert_eq!(refused, service.is_none(), "{name}: {text}\n{findings:#?}");
        if let Some(service) = service {
            let named = UnitFile::parse(text).name_in_systemd(&name.parse().unwrap());
            assert_eq!(named.as_str(), service, "{name}: {text}");
        }
        if let Some(generator) = &generator {
            let (made, said) = ask(generator, name, text);
            assert_eq!(
                made,
                service.map(String::from).into_iter().collect::<Vec<_>>(),
                "{name}: {text}\n{said}"
            );
        }
    }
}
