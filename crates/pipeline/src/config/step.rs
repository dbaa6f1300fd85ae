//! One entry of a list of steps, in its three forms: `- name`, `- name: {..}` and `- name:` with its properties
//! beside it.

use sealift_model::diagnostic::{Diagnostic, Severity, nearest};

use super::keys;
use super::read::{NEEDS_VERSION, Reader, diagnostic, scalar, written};
use super::settings::StepSettings;
use crate::yaml::{Node, Place};

/// A step as the file gives it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepConfig {
    /// As written: `name`, `owner/name`, `owner/name@version`.
    pub id: String,
    pub owner: String,
    pub name: String,
    /// `*` where none is written; none for `script`.
    pub version: Option<String>,
    /// Where its content comes from, written in quotes behind the id.
    pub url: Option<String>,
    /// The property `name`.
    pub display: Option<String>,
    pub cwd: Option<String>,
    pub checkpoint: Option<String>,
    /// All other properties, in order.
    pub properties: Vec<(String, String)>,
    /// Boxed, since most steps have none.
    pub settings: Box<StepSettings>,
    pub line: usize,
}

impl StepConfig {
    /// What people see: the name given to it, else its id.
    #[must_use]
    pub fn title(&self) -> &str {
        self.display.as_deref().filter(|display| !display.is_empty()).unwrap_or(&self.id)
    }

    #[must_use]
    pub fn property(&self, key: &str) -> Option<&str> {
        self.properties.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn named(written: &str, line: usize) -> StepConfig {
        let (id, url) = match written.split_once('"') {
            Some((id, rest)) => (id.trim(), Some(rest.trim_end().trim_end_matches('"').to_owned())),
            None => (written.trim(), None),
        };
        let (path, version) = match id.rsplit_once('@') {
            Some((path, version)) => (path, Some(version.to_owned())),
            None => (id, None),
        };
        let (owner, name) = path.split_once('/').unwrap_or(("wercker", path));
        let script = owner == "wercker" && name == "script";
        StepConfig {
            id: id.to_owned(),
            owner: owner.to_owned(),
            name: name.to_owned(),
            version: if script { version } else { version.or_else(|| Some("*".to_owned())) },
            url,
            line,
            ..StepConfig::default()
        }
    }
}

/// Reads one entry; what is wrong with it goes to the reader, and an entry that cannot be used is none.
pub(super) fn read_step(node: &Node, reader: &mut Reader) -> Option<StepConfig> {
    let native = reader.native;
    // What the reference left out in silence is an error in Sealift's own form.
    let dropping = if native { Severity::Error } else { Severity::Warning };
    let found = &mut reader.found;
    let Some(pairs) = node.mapping() else {
        let Some(id) = scalar(node) else {
            found.push(fatal(node.at, "a step is empty".to_owned()));
            return None;
        };
        return Some(StepConfig::named(&id, node.at.line));
    };
    let Some((key, value)) = pairs.first() else {
        found.push(fatal(node.at, "a step is empty".to_owned()));
        return None;
    };
    let mut step = StepConfig::named(&scalar(key).unwrap_or_default(), key.at.line);
    let properties = if let Some(nested) = value.mapping() {
        for (key, _) in &pairs[1..] {
            let text = format!("`{}` is dropped: step {} already has its properties", name_of(key), step.id);
            found.push(diagnostic(dropping, key.at, text, Some("indent it below the step".to_owned())));
        }
        nested
    } else if pairs.len() > 1 {
        if !value.is_null() {
            let text = format!("the value of `{}` is dropped: its properties follow", name_of(key));
            found.push(diagnostic(dropping, value.at, text, None));
        }
        &pairs[1..]
    } else {
        let mut refusal = fatal(key.at, format!("step {} is empty", step.id));
        refusal.help = Some(if step.name == "script" {
            "write the commands below it as `code: |`".to_owned()
        } else {
            "without properties, leave out the colon".to_owned()
        });
        found.push(refusal);
        return None;
    };
    warn_misspelt(&step, key.at, properties, native, found);
    for (key, value) in properties {
        if !native || !reader.step_setting(&mut step.settings, &name_of(key), value) {
            read_property(&mut step, key, value, native, &mut reader.found);
        }
    }
    check_required(&step, key.at, &mut reader.found);
    Some(step)
}

fn read_property(step: &mut StepConfig, key: &Node, value: &Node, native: bool, found: &mut Vec<Diagnostic>) {
    let read = if native { written } else { scalar };
    let dropping = if native { Severity::Error } else { Severity::Warning };
    let name = read(key).unwrap_or_default();
    let text = read(value);
    if text.is_none() && !value.is_null() {
        let message =
            format!("property `{name}` of step {} is neither text nor number: it becomes empty", step.id);
        found.push(diagnostic(dropping, value.at, message, None));
    }
    let text = text.unwrap_or_default();
    match name.as_str() {
        "name" => step.display = Some(text),
        "cwd" => step.cwd = Some(text),
        "checkpoint" => step.checkpoint = Some(text),
        // Among duplicate keys the last wins.
        _ => match step.properties.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = text,
            None => step.properties.push((name, text)),
        },
    }
}

/// What is nearly a script step, and what is nearly one of its properties. Other steps are free in their properties.
fn warn_misspelt(
    step: &StepConfig,
    at: Place,
    properties: &[(Node, Node)],
    native: bool,
    found: &mut Vec<Diagnostic>,
) {
    let did_you_mean = |word: &str| Some(format!("did you mean `{word}`?"));
    let has_code = properties.iter().any(|(key, _)| name_of(key) == "code");
    if step.id != "script" {
        if has_code && nearest(&step.id, ["script"]).is_some() {
            let text = format!("step `{}` is not known", step.id);
            found.push(diagnostic(Severity::Warning, at, text, did_you_mean("script")));
        }
        return;
    }
    let known = [keys::names(keys::STEP, native), keys::names(keys::SCRIPT, native)].concat();
    for (key, _) in properties {
        let name = name_of(key);
        if known.contains(&name.as_str()) {
            continue;
        }
        if keys::is_native(keys::STEP, &name) {
            let text = format!("`{name}` of a script step does nothing without `sealift: 1`");
            found.push(diagnostic(Severity::Warning, key.at, text, Some(NEEDS_VERSION.to_owned())));
        } else if let Some(near) = nearest(&name, known.iter().copied()) {
            let text = format!("a script step knows no `{name}`");
            // Without its code the step would do nothing, and pass.
            let severity = if near == "code" && !has_code { Severity::Error } else { Severity::Warning };
            found.push(diagnostic(severity, key.at, text, did_you_mean(near)));
        }
    }
}

/// Properties without which the internal steps mean nothing.
fn check_required(step: &StepConfig, at: Place, found: &mut Vec<Diagnostic>) {
    let required: &[&str] = match step.id.as_str() {
        "internal/docker-run" => &["image", "name"],
        "internal/docker-kill" => &["name"],
        "internal/docker-build" => &["image-name"],
        _ => &[],
    };
    for key in required {
        // `name` is also the display name.
        let given = step.property(key).is_some() || (*key == "name" && step.display.is_some());
        if !given {
            found.push(fatal(at, format!("step {} lacks the property `{key}`", step.id)));
        }
    }
}

fn fatal(at: Place, message: String) -> Diagnostic {
    diagnostic(Severity::Error, at, message, None)
}

fn name_of(key: &Node) -> String {
    scalar(key).unwrap_or_default()
}
