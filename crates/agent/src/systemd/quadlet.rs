//! Quadlet, Podman's generator of services, podman-systemd.unit(5): where it looks for files, whether it is there, and
//! what it says of a file that it makes no service of.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sealift_model::UnitName;
use tokio::process::Command;

/// The first Podman whose Quadlet reads files that last until the next boot.
const OLDEST: (u32, u32) = (5, 3);
/// It reads some folders and prints a few lines.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where systemd.generator(7) looks, behind the part that differs.
const GENERATORS: [&str; 4] = ["/run/systemd", "/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];

/// Why Quadlet cannot make services here.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "this machine has no Quadlet, which makes services of such files ({podman}); it needs Podman {}.{} or newer",
        OLDEST.0,
        OLDEST.1
    )]
    Missing {
        /// `podman version 4.3.1`, or `no podman`.
        podman: String,
    },
    #[error(
        "this machine's Quadlet is of Podman {version}, which does not read {}; it needs Podman {}.{} or newer",
        dir.display(),
        OLDEST.0,
        OLDEST.1
    )]
    Old { version: String, dir: PathBuf },
    #[error("cannot ask Quadlet")]
    Ask(#[source] std::io::Error),
    #[error("Quadlet did not answer in time")]
    Timeout,
}

impl Error {
    /// Whether another try could do.
    #[must_use]
    pub fn retryable(&self) -> bool {
        matches!(self, Error::Ask(_) | Error::Timeout)
    }
}

/// The Quadlet of one systemd.
#[derive(Debug, Clone)]
pub struct Quadlet {
    /// Files are put here. Lost at a reboot.
    pub dir: PathBuf,
    user: bool,
}

impl Quadlet {
    /// That of the machine's systemd.
    #[must_use]
    pub fn of_system() -> Self {
        Self { dir: "/run/containers/systemd".into(), user: false }
    }

    /// That of a user's systemd with this `$XDG_RUNTIME_DIR`, or of a private one, which is the same.
    #[must_use]
    pub fn of_user(runtime_dir: &Path) -> Self {
        Self { dir: runtime_dir.join("containers/systemd"), user: true }
    }

    /// Whether it is there and looks into [`Quadlet::dir`].
    ///
    /// # Errors
    /// When not; the message says what there is.
    pub async fn check(&self) -> Result<(), Error> {
        let Some(generator) = self.generator() else {
            let podman = run(Command::new("podman").arg("--version")).await;
            let podman = podman.map_or_else(|_| "no podman".to_owned(), |said| said.trim().to_owned());
            return Err(Error::Missing { podman });
        };
        let version = run(Command::new(generator).arg("-version")).await?;
        let mut numbers = version.trim().split('.').map_while(|part| part.parse().ok());
        let numbers = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        if numbers < OLDEST {
            return Err(Error::Old { version: version.trim().to_owned(), dir: self.dir.clone() });
        }
        Ok(())
    }

    /// Why it makes no service of a file, in its own words.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub async fn complaint(&self, unit: &UnitName) -> Result<String, Error> {
        let Some(generator) = self.generator() else { return Ok("it is gone".into()) };
        let mut command = Command::new(generator);
        command.args(["-dryrun", "-no-kmsg-log"]).args(self.user.then_some("-user"));
        let said = run(command.env("QUADLET_UNIT_DIRS", &self.dir)).await?;
        let lines: Vec<&str> =
            said.lines().filter(|line| !line.contains("Loading source unit file")).collect();
        let of_unit = lines
            .iter()
            .find(|line| line.contains(&format!("\"{unit}\"")) || line.contains(&format!("/{unit}\"")));
        // A file that it cannot read costs all the others their services.
        let other = lines.iter().find(|line| line.contains("error loading"));
        let line = of_unit.or(other).map_or("it does not say why", |line| line);
        Ok(line.split_once("]: ").map_or(line, |(_, line)| line).to_owned())
    }

    fn generator(&self) -> Option<PathBuf> {
        let kind = if self.user { "user" } else { "system" };
        let places = GENERATORS.iter();
        let places =
            places.map(|dir| PathBuf::from(format!("{dir}/{kind}-generators/podman-{kind}-generator")));
        places.into_iter().find(|path| path.is_file())
    }
}

/// What a program prints, and what it complains of.
async fn run(command: &mut Command) -> Result<String, Error> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, command.output()).await;
    let output = output.map_err(|_| Error::Timeout)?.map_err(Error::Ask)?;
    let said = if output.stderr.is_empty() { output.stdout } else { output.stderr };
    Ok(String::from_utf8_lossy(&said).into_owned())
}
