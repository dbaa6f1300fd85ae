//! `internal/store-container` and `internal/publish-step`: the box, or a step, as a file in the output directory.
//!
//! The reference uploaded both to a service that is gone. What is in the output directory is kept with the run.
//!
//! Guarantees: files are written within the output directory, whatever links the steps have laid there.
//!
//! It must not know what becomes of the files.

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio_util::io::{StreamReader, SyncIoBridge};

use super::ignore::Ignore;
use super::properties::Properties;
use super::{Context, Error, archive, push};
use crate::source;
use crate::yaml;

/// The largest description of a step.
const MANIFEST: u64 = 256 * 1024;

/// The box as an archive that `docker load` and `podman load` take.
pub(super) async fn container(context: &Context<'_>) -> Result<(), Error> {
    let config = crate::config::StepConfig::default();
    let image = push::commit(&Properties::new(&config, context.env), context).await?;
    let failed = context.files("cannot write container.tar");
    let file = source::create_beneath(&context.layout.pipeline, Path::new("output"), "container.tar");
    let mut file = tokio::fs::File::from_std(file.map_err(&failed)?);
    let mut answer = context.engine.save(&image).await?;
    let mut bytes = 0;
    while let Some(chunk) = answer.chunk().await {
        let chunk = chunk.map_err(io::Error::other).map_err(&failed)?;
        bytes += chunk.len();
        file.write_all(&chunk).await.map_err(&failed)?;
    }
    file.flush().await.map_err(&failed)?;
    context.say(format!("stored the box in /pipeline/output/container.tar, {} KiB", bytes / 1024)).await;
    context.say("`docker load` or `podman load` brings it back".to_owned()).await;
    Ok(())
}

/// A step of the project as an archive.
pub(super) async fn step(properties: &Properties<'_>, context: &Context<'_>) -> Result<(), Error> {
    let below = properties.text("path").unwrap_or_default();
    let relative: PathBuf =
        Path::new(&below).components().filter(|part| matches!(part, Component::Normal(_))).collect();
    let here = if relative.as_os_str().is_empty() { Path::new(".") } else { relative.as_path() };
    let (name, version) = manifest(&context.layout.source, here).map_err(|why| Error::Property {
        name: "path",
        why: format!("`{}` is no step: {why}", here.display()),
    })?;
    let owner = properties.text("owner").unwrap_or_else(|| context.spec.git.owner.clone());
    let owner = if is_plain(&owner) { format!("{owner}-") } else { String::new() };
    let file_name = format!("{owner}{name}-{version}.tar.gz");

    let failed = context.files(&format!("cannot write {file_name}"));
    let file = source::create_beneath(&context.layout.pipeline, Path::new("output"), &file_name);
    let file = file.map_err(&failed)?;
    let path = format!("{}/{}", context.root, relative.display());
    let path = path.trim_end_matches('/');
    let answer = context.engine.archive(context.container, path).await?;
    let answer = answer.ok_or_else(|| Error::NoPath { path: path.to_owned() })?;
    let reader = SyncIoBridge::new(StreamReader::new(answer.into_stream().boxed()));
    let packed = tokio::task::spawn_blocking(move || {
        let sum = Summing { file, sum: Sha256::new(), bytes: 0 };
        let mut whole = tar::Builder::new(GzEncoder::new(sum, Compression::default()));
        archive::copy(&mut whole, reader, Path::new(""), &Ignore::default())?;
        let mut sum = whole.into_inner()?.finish()?;
        sum.flush()?;
        Ok((sum.bytes, sum.sum.finalize()))
    });
    let (bytes, sum) = packed.await.map_err(io::Error::other).and_then(|packed| packed).map_err(&failed)?;
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    context.say(format!("packed {name} {version}, {bytes} bytes: /pipeline/output/{file_name}")).await;
    context
        .say("the step registry is gone; put the file on a server and use it by its address:".to_owned())
        .await;
    context.say(format!("  - {name} \"https://HOST/{file_name}#sha256={sum}\":")).await;
    Ok(())
}

/// The name and the version of the step in a directory.
fn manifest(root: &Path, dir: &Path) -> Result<(String, String), String> {
    let read = |name: &str| source::read_text(root, &dir.join(name), MANIFEST);
    if read("run.sh").is_none() {
        return Err("it has no run.sh".to_owned());
    }
    let (file, text) = ["step.yml", "wercker-step.yml"]
        .iter()
        .find_map(|file| Some((file, read(file)?)))
        .ok_or("it has no step.yml")?;
    let root = yaml::parse(&text).map_err(|error| format!("{file}: {error}"))?;
    let field = |key: &str| {
        let pairs = root.as_ref()?.mapping()?;
        let value = pairs.iter().rev().find(|(name, _)| name.text() == Some(key))?;
        value.1.text().map(str::to_owned)
    };
    let name = field("name").filter(|name| is_plain(name));
    let name = name.ok_or(format!("{file} has no `name` of letters, digits, `-` and `_`"))?;
    let version = field("version").filter(|version| is_version(version));
    let version = version.ok_or(format!("{file} has no `version` of three numbers, such as 1.0.3"))?;
    Ok((name, version))
}

fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 60
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

/// As semantic versions are: three numbers, perhaps with words behind.
fn is_version(text: &str) -> bool {
    let (numbers, rest) = text.split_at(text.find(['-', '+']).unwrap_or(text.len()));
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-+".contains(c);
    let digits = |part: &str| !part.is_empty() && part.len() < 10 && part.chars().all(|c| c.is_ascii_digit());
    numbers.split('.').count() == 3
        && numbers.split('.').all(digits)
        && rest.len() <= 60
        && rest.chars().all(plain)
}

/// A file that is summed up while it is written.
struct Summing {
    file: std::fs::File,
    sum: Sha256,
    bytes: u64,
}

impl Write for Summing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.sum.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_a_name_and_a_version() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let at = Path::new(".");
        assert_eq!(manifest(root, at).unwrap_err(), "it has no run.sh");
        std::fs::write(root.join("run.sh"), "true").unwrap();
        assert_eq!(manifest(root, at).unwrap_err(), "it has no step.yml");
        for (text, want) in [
            ("name: a\nversion: 1.2.3\n", Ok("a 1.2.3")),
            ("name: a\nversion: 1.2.3-rc.1\n", Ok("a 1.2.3-rc.1")),
            ("name: a/../b\nversion: 1.2.3\n", Err("no `name`")),
            ("name: a\nversion: 1.2\n", Err("no `version`")),
            ("name: a\nversion: 1.2.3-/../..\n", Err("no `version`")),
            ("- a\n", Err("no `name`")),
        ] {
            std::fs::write(root.join("step.yml"), text).unwrap();
            match (manifest(root, at), want) {
                (Ok((name, version)), Ok(want)) => assert_eq!(format!("{name} {version}"), want),
                (Err(got), Err(want)) => assert!(got.contains(want), "{got}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }
}
