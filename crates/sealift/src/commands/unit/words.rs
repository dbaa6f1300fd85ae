//! The words by which units are named on the command line: files, names, and patterns of both.
//!
//! It must not know what is done with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sealift_client::Client;
use sealift_client::api::{List, UnitView};
use sealift_model::diagnostic::Severity;
use sealift_model::{UnitName, glob_matches};
use sealift_unitfile::{Finding, FolderUnit, verify_unit};

use crate::error::Error;

/// The most names that one word stands for.
const MOST: usize = 10_000;
/// The largest unit file; a store's record holds no more.
const LARGEST: u64 = 90_000;

/// A unit that was named, with the file if it was named by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: UnitName,
    pub(crate) file: Option<UnitText>,
}

/// A unit file and the files of its `<unit>.d/` folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitText {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) drop_ins: BTreeMap<String, String>,
}

/// Reads words that may name files: one that has a slash or is a file here is a file, any other a name. The instance of
/// a template whose file is here, `x@1` beside `x@.service`, is that file by another name.
pub(crate) fn files(words: &[String]) -> Result<Vec<Named>, Error> {
    let mut named = Vec::new();
    for word in words {
        for word in expand(word)? {
            let path = Path::new(&word);
            let base = path.file_name().and_then(|base| base.to_str()).unwrap_or(&word);
            let name = name(base)?;
            let folder = path.parent().unwrap_or(Path::new(""));
            let own = folder.join(name.as_str());
            let template = name.template().map(|template| folder.join(template.as_str()));
            let file = match read(&own)? {
                Some(file) => Some(file),
                None => template.as_deref().map(read).transpose()?.flatten(),
            };
            if file.is_none() && word.contains('/') {
                return Err(Error::with_help(
                    format!("there is no file {}", own.display()),
                    "a word without a slash names a unit that the servers know",
                ));
            }
            named.push(Named { name, file });
        }
    }
    named.sort_by(|a, b| a.name.cmp(&b.name));
    named.dedup_by(|a, b| a.name == b.name);
    Ok(named)
}

/// Reads words that name units the servers know. Patterns that match nothing are refused.
pub(crate) async fn names(words: &[String], client: &Client) -> Result<Vec<UnitName>, Error> {
    let mut names = Vec::new();
    let mut known: Option<Vec<UnitName>> = None;
    for word in words {
        for word in expand(word)? {
            if !word.contains(['*', '?', '[']) {
                names.push(name(&word)?);
                continue;
            }
            if known.is_none() {
                let list: List<UnitView> = client.get("/v1/units?text=false").await?;
                known = Some(list.items.into_iter().map(|view| view.unit.name).collect());
            }
            let with_suffix = format!("{word}.service");
            let matches = |name: &&UnitName| {
                glob_matches(&word, name.as_str()) || glob_matches(&with_suffix, name.as_str())
            };
            let before = names.len();
            names.extend(known.iter().flatten().filter(matches).cloned());
            if names.len() == before {
                return Err(Error::with_help(
                    format!("no unit matches {word:?}"),
                    "sealift unit list shows them all",
                ));
            }
        }
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// A name without a known suffix is a service's.
pub(crate) fn name(text: &str) -> Result<UnitName, Error> {
    crate::cli::unit_name(text).map_err(|error| Error::plain(error.to_string()))
}

fn read(path: &Path) -> Result<Option<UnitText>, Error> {
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { action, path, source }
    };
    match std::fs::metadata(path) {
        Ok(about) if about.is_file() && about.len() > LARGEST => {
            return Err(Error::plain(format!(
                "{} is larger than the {LARGEST} bytes a unit may have",
                path.display()
            )));
        }
        Ok(about) if about.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io("look at", path)(error)),
    }
    let text = std::fs::read_to_string(path).map_err(io("read", path))?;
    let mut drop_ins = BTreeMap::new();
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    let folder = PathBuf::from(folder);
    if folder.is_dir() {
        for entry in std::fs::read_dir(&folder).map_err(io("read", &folder))? {
            let path = entry.map_err(io("read", &folder))?.path();
            if path.extension().is_some_and(|extension| extension == "conf")
                && let Some(name) = path.file_name().and_then(|name| name.to_str())
            {
                let text = std::fs::read_to_string(&path).map_err(io("read", &path))?;
                drop_ins.insert(name.to_owned(), text);
            }
        }
    }
    Ok(Some(UnitText { path: path.to_owned(), text, drop_ins }))
}

/// Refuses a file that systemd or we would refuse, with the places; gives what is only odd about it, as it is to be read.
pub(crate) fn check(named: &Named) -> Result<Vec<String>, Error> {
    let Some(file) = &named.file else { return Ok(Vec::new()) };
    let findings = verify_unit(&named.name, &FolderUnit { text: &file.text, drop_ins: &file.drop_ins });
    let source = |drop_in: Option<&String>| match drop_in.and_then(|name| file.drop_ins.get_key_value(name)) {
        Some((name, text)) => (format!("{}.d/{name}", file.path.display()), text),
        None => (file.path.display().to_string(), &file.text),
    };
    let error = findings.iter().find(|finding| finding.diagnostic.severity == Severity::Error);
    if let Some(Finding { drop_in, .. }) = error {
        let (file, text) = source(drop_in.as_ref());
        let same_file = findings.iter().filter(|finding| finding.drop_in == *drop_in);
        let diagnostics = same_file.map(|finding| finding.diagnostic.clone()).collect();
        return Err(Error::File { file, text: text.clone(), diagnostics });
    }
    let shown = findings.iter().map(|finding| {
        let (file, text) = source(finding.drop_in.as_ref());
        finding.diagnostic.render(&file, text)
    });
    Ok(shown.collect())
}

/// `a{1..3}` and `a{x,y}` as a shell would take them, for words that were quoted or come from where there is no shell.
fn expand(word: &str) -> Result<Vec<String>, Error> {
    let Some((before, rest)) = word.split_once('{') else { return Ok(vec![word.to_owned()]) };
    let Some((inside, after)) = rest.split_once('}') else { return Ok(vec![word.to_owned()]) };
    let middles: Vec<String> = if let Some((first, last)) = inside.split_once("..") {
        let numbers = first.parse::<u32>().ok().zip(last.parse::<u32>().ok());
        let (first, last) = numbers.filter(|(first, last)| first <= last).ok_or_else(|| {
            Error::plain(format!("{{{inside}}} is no range; expected numbers such as {{1..8}}"))
        })?;
        if usize::try_from(last - first).is_ok_and(|count| count >= MOST) {
            return Err(Error::plain(format!("{{{inside}}} is more than {MOST} units")));
        }
        (first..=last).map(|number| number.to_string()).collect()
    } else {
        inside.split(',').map(str::to_owned).collect()
    };
    let rests = expand(after)?;
    if middles.len() * rests.len() > MOST {
        return Err(Error::plain(format!("{word} is more than {MOST} units")));
    }
    Ok(middles
        .iter()
        .flat_map(|middle| rests.iter().map(move |rest| format!("{before}{middle}{rest}")))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_by_table() {
        for (word, wanted) in [
            ("web", &["web"][..]),
            ("web@{1..3}", &["web@1", "web@2", "web@3"]),
            ("{a,b}{1..2}.service", &["a1.service", "a2.service", "b1.service", "b2.service"]),
            ("a{b", &["a{b"]),
        ] {
            assert_eq!(expand(word).unwrap(), wanted, "{word}");
        }
        for word in ["a{3..1}", "a{x..y}", "a{1..20000}", "{1..5000}{1..5000}"] {
            assert!(expand(word).is_err(), "{word}");
        }
        assert_eq!(name("web").unwrap().as_str(), "web.service");
        assert_eq!(name("web.timer").unwrap().as_str(), "web.timer");
        assert!(name("a b").is_err());
    }

    #[test]
    fn a_file_is_found_by_its_name_and_by_its_template() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("x@.service"), "[Service]\n").unwrap();
        std::fs::create_dir(path("x@.service.d")).unwrap();
        std::fs::write(path("x@.service.d/10-a.conf"), "[Unit]\n").unwrap();
        let word = path("x@{1..2}").display().to_string();
        let named = files(&[word]).unwrap();
        let names: Vec<_> = named.iter().map(|named| named.name.as_str()).collect();
        assert_eq!(names, ["x@1.service", "x@2.service"]);
        let file = named[0].file.as_ref().unwrap();
        assert_eq!((&*file.text, file.drop_ins.len()), ("[Service]\n", 1));
        let error = files(&[path("y.service").display().to_string()]).unwrap_err().to_string();
        assert!(error.contains("there is no file"), "{error}");
    }
}
