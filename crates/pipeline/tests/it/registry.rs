//! A real registry on this machine, for one test.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Who may use a registry that asks. The password's header has characters that only one alphabet has.
pub(crate) const USER: &str = "tester";
pub(crate) const PASSWORD: &str = "right-Pass?>~~~";
/// The password as htpasswd writes it.
const HASH: &str = "$2b$04$97RHklvseFWAkloLf/6CIOy/.zITTmy/mk0nsQElg8dARNMPx/xEC";

/// Ends with its handle.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
    closed: bool,
    _dir: tempfile::TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Registry {
    /// One that everybody may use.
    pub(crate) fn open() -> Registry {
        Registry::start(false)
    }

    /// One that only [`USER`] may use.
    pub(crate) fn closed() -> Registry {
        Registry::start(true)
    }

    fn start(closed: bool) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        // Free now; were it taken in the next moment, the registry would say so and the test fail.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let passwords = dir.path().join("htpasswd");
        std::fs::write(&passwords, format!("{USER}:{HASH}\n")).unwrap();
        let auth = if closed {
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", passwords.display())
        } else {
            String::new()
        };
        let config = dir.path().join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n{auth}",
            dir.path().join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command
            .spawn()
            .expect("no registry: apt-get install docker-registry, or set SEALIFT_SKIP=containers");
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(&host).is_err() {
            assert!(child.try_wait().unwrap().is_none(), "docker-registry ended at once");
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::yield_now();
        }
        Registry { child, host, closed, _dir: dir }
    }

    /// What it answers on a path.
    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "-H", "Accept: application/vnd.oci.image.manifest.v1+json"]);
        curl.args(["-H", "Accept: application/vnd.docker.distribution.manifest.v2+json"]);
        if self.closed {
            curl.args(["-u", &format!("{USER}:{PASSWORD}")]);
        }
        curl.arg(format!("http://{}/v2/{path}", self.host)).output().unwrap().stdout
    }

    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        let text = self.get(path);
        serde_json::from_slice(&text).unwrap_or_else(|_| panic!("{path}: {}", String::from_utf8_lossy(&text)))
    }

    /// An image's configuration and its layers, unpacked.
    pub(crate) fn image(&self, name: &str, tag: &str) -> (serde_json::Value, Vec<Vec<u8>>) {
        let manifest = self.json(&format!("{name}/manifests/{tag}"));
        let blob = |part: &serde_json::Value| {
            self.get(&format!(
                "{name}/blobs/{}",
                part["digest"].as_str().unwrap_or_else(|| panic!("{manifest}"))
            ))
        };
        let config = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let layers = layers.iter().map(|layer| {
            let mut unpacked = Vec::new();
            let packed = blob(layer);
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut unpacked)
                .unwrap();
            unpacked
        });
        (config, layers.collect())
    }
}

/// The names in a tar archive.
pub(crate) fn names(layer: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(layer);
    let entries = archive.entries().unwrap();
    let names = entries.map(|entry| entry.unwrap().path().unwrap().display().to_string());
    let mut names: Vec<String> = names.map(|name| name.trim_end_matches('/').to_owned()).collect();
    names.sort();
    names
}
