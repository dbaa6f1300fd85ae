//! `wercker step publish`: checks a step and packs it into a file. There is no registry any more to send it to.
//!
//! Guarantees: the same tree gives the same file, byte for byte, whoever packs it and whenever; nothing outside of the
//! directory gets into it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ArgMatches;
use flate2::{Compression, GzBuilder};
use sealift_model::diagnostic::chain;
use sealift_pipeline::steps::Manifest;
use sha2::{Digest as _, Sha256};

use super::text;
use crate::error::Error;
use crate::print::{Mood, Voice};

const MANIFEST: &str = "step.yml";
/// More files than any step has.
const MOST_FILES: usize = 10_000;

pub(super) fn publish(matches: &ArgMatches, voice: &Voice) -> Result<ExitCode, Error> {
    let dir = PathBuf::from(text(matches, "dir").unwrap_or("."));
    let path = dir.join(MANIFEST);
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    let read = std::fs::read_to_string(&path).map_err(io("read", &path))?;
    let manifest = Manifest::parse(&read)
        .map_err(|error| Error::plain(format!("{} cannot be used: {}", path.display(), chain(&error))))?;
    let (name, version) = checked(&manifest, &path)?;
    if !dir.join("run.sh").is_file() {
        voice.warn("there is no run.sh, so the step does nothing");
    }
    let owner = text(matches, "owner").map(str::to_owned);
    let file = PathBuf::from(format!("{name}-{version}.tar.gz"));
    let bytes = pack(&dir, &file)?;
    let digest = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let written = File::create(&file).and_then(|mut out| out.write_all(&bytes));
    written.map_err(io("write", &file))?;
    voice.say(Mood::Good, &format!("Packed step: {}", file.display()));
    voice.say(Mood::Plain, &format!("sha256: {digest}"));
    voice.say(
        Mood::Plain,
        "The steps registry is gone. Put the file where others can fetch it, and name it in wercker.yml:",
    );
    let id = owner.map_or_else(|| name.clone(), |owner| format!("{owner}/{name}"));
    voice.say(Mood::Plain, &format!("    - {id} \"https://HOST/{}\"", file.display()));
    Ok(ExitCode::SUCCESS)
}

/// Name and version, as they may stand in a file's name.
fn checked(manifest: &Manifest, path: &Path) -> Result<(String, String), Error> {
    let wrong = |what: &str| Err(Error::plain(format!("{}: {what}", path.display())));
    let plain = |text: &str| {
        !text.is_empty()
            && !text.starts_with(['.', '-'])
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte))
    };
    let Some(name) = manifest.name.clone().filter(|name| plain(name)) else {
        return wrong("`name` is missing or is not made of letters, digits, `-`, `_` and `.`");
    };
    let Some(version) = manifest.version.clone() else { return wrong("`version` is missing") };
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = core.split('.').collect();
    if numbers.len() != 3 || !numbers.iter().all(|number| number.parse::<u64>().is_ok()) || !plain(&version) {
        return wrong(&format!("`version` is {version:?}; it has to be like 1.2.3"));
    }
    if manifest.summary.as_deref().unwrap_or_default().is_empty() {
        return wrong("`summary` is missing: one line on what the step does");
    }
    Ok((name, version))
}

/// The tree as a tar.gz, without what is hidden and without `result` itself.
fn pack(dir: &Path, result: &Path) -> Result<Vec<u8>, Error> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    let mut files = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        let full = dir.join(&below);
        for entry in std::fs::read_dir(&full).map_err(io("read", &full))? {
            let entry = entry.map_err(io("read", &full))?;
            let name = entry.file_name();
            let kind = entry.file_type().map_err(io("look at", &entry.path()))?;
            let path = below.join(&name);
            let hidden = name.to_string_lossy().starts_with('.') || Path::new(&name) == result;
            if hidden {
                continue;
            }
            if kind.is_dir() {
                open.push(path);
            } else if kind.is_file() {
                files.push(path);
            }
            // A link could lead anywhere.
        }
        if files.len() > MOST_FILES {
            return Err(Error::plain(format!("{} has more than {MOST_FILES} files", dir.display())));
        }
    }
    files.sort();
    let packed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut tar = tar::Builder::new(packed);
    tar.mode(tar::HeaderMode::Deterministic);
    for path in files {
        let full = dir.join(&path);
        tar.append_path_with_name(&full, &path).map_err(io("read", &full))?;
    }
    let packed = tar.into_inner().and_then(flate2::write::GzEncoder::finish);
    packed.map_err(io("pack", dir))
}
