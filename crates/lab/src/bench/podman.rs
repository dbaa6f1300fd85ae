//! Podman by its command line, and the image that benchmarks run in: busybox of this machine, so that no registry is
//! needed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Resource, getrlimit};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Error;

/// The image.
pub const IMAGE: &str = "localhost/sealift-lab-sh:latest";

/// How podman has to be called on this machine.
#[derive(Debug, Clone)]
pub struct Podman {
    global: Vec<String>,
    limits: Vec<String>,
}

impl Podman {
    /// Looks at this machine and makes the image.
    ///
    /// # Errors
    /// When podman or busybox is missing or says no.
    pub async fn find() -> Result<Podman, Error> {
        // crun refuses hosts that mix both versions of cgroups; runc does not.
        let pure_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").is_file();
        let global = if pure_v2 { Vec::new() } else { vec!["--runtime".to_owned(), "runc".to_owned()] };
        let podman = Podman { global, limits: limits() };
        podman.make_image().await?;
        Ok(podman)
    }

    /// `podman run` with what this machine wants of it.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> Vec<String> {
        let mut all = self.global.clone();
        all.push("run".to_owned());
        all.extend(self.limits.iter().flat_map(|limit| ["--ulimit".to_owned(), limit.clone()]));
        all.extend(args.iter().map(|arg| (*arg).to_owned()));
        all
    }

    /// Any other command.
    #[must_use]
    pub fn other(&self, args: &[&str]) -> Vec<String> {
        self.global.iter().cloned().chain(args.iter().map(|arg| (*arg).to_owned())).collect()
    }

    async fn make_image(&self) -> Result<(), Error> {
        let tree = tree()?;
        let io = |source| Error::Io {
            action: "run",
            what: "podman (apt-get install podman runc)".to_owned(),
            source,
        };
        let mut child = Command::new("podman")
            .args(self.other(&["import", "--quiet", "-", IMAGE]))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(io)?;
        let stdin = child.stdin.take();
        let write = async move {
            if let Some(mut stdin) = stdin {
                stdin.write_all(&tree).await?;
                stdin.shutdown().await?;
            }
            Ok::<(), std::io::Error>(())
        };
        let (written, output) = tokio::join!(write, child.wait_with_output());
        let output = output.map_err(io)?;
        if !output.status.success() {
            return Err(Error::failed("podman import", String::from_utf8_lossy(&output.stderr).trim()));
        }
        written.map_err(io)
    }
}

/// Runs podman and gives what it said.
///
/// # Errors
/// When it cannot be run or fails.
pub async fn call(args: &[String]) -> Result<String, Error> {
    let io = |source| Error::Io { action: "run", what: "podman".to_owned(), source };
    let output = Command::new("podman").args(args).stdin(Stdio::null()).output().await.map_err(io)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(Error::failed(
            format!("podman {}", args.join(" ")),
            String::from_utf8_lossy(&output.stderr).trim(),
        ))
    }
}

/// Runs podman and throws away what it said.
///
/// # Errors
/// When it cannot be run or fails.
pub async fn call_quietly(args: &[String]) -> Result<(), Error> {
    let io = |source| Error::Io { action: "run", what: "podman".to_owned(), source };
    let mut command = Command::new("podman");
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = command.status().await.map_err(io)?;
    if status.success() { Ok(()) } else { Err(Error::failed("podman", status)) }
}

/// Where podman is looked for.
pub(super) fn path() -> OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

/// Podman asks for more than a process without `CAP_SYS_RESOURCE` may give to its children.
fn limits() -> Vec<String> {
    let pid_max = std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok());
    let nproc = [getrlimit(Resource::Nproc).maximum, pid_max].into_iter().flatten().min();
    [("nofile", getrlimit(Resource::Nofile).maximum), ("nproc", nproc)]
        .into_iter()
        .filter_map(|(name, limit)| Some(format!("{name}={0}:{0}", limit?)))
        .collect()
}

/// A root tree with busybox, its applets and what a shell expects.
fn tree() -> Result<Vec<u8>, Error> {
    let io = |source| Error::Io { action: "read", what: "busybox".to_owned(), source };
    let busybox = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Needs("no busybox: apt-get install busybox-static".to_owned()))?;
    let list = std::process::Command::new(&busybox).arg("--list").output().map_err(io)?.stdout;
    let mut tree = tar::Builder::new(Vec::new());
    let mut entry = |kind, mode, path: &str, bytes: &[u8], target: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        match target {
            Some(target) => tree.append_link(&mut header, path, target),
            None => tree.append_data(&mut header, path, bytes),
        }
        .map_err(io)
    };
    entry(tar::EntryType::Regular, 0o755, "bin/busybox", &std::fs::read(&busybox).map_err(io)?, None)?;
    for applet in String::from_utf8_lossy(&list).lines().filter(|applet| *applet != "busybox") {
        entry(tar::EntryType::Symlink, 0o777, &format!("bin/{applet}"), &[], Some("/bin/busybox"))?;
    }
    for (dir, mode) in [("tmp", 0o1777), ("root", 0o700), ("proc", 0o755), ("sys", 0o755), ("dev", 0o755)] {
        entry(tar::EntryType::Directory, mode, dir, &[], None)?;
    }
    entry(tar::EntryType::Regular, 0o644, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n", None)?;
    entry(tar::EntryType::Regular, 0o644, "etc/group", b"root:x:0:\n", None)?;
    tree.into_inner().map_err(io)
}
