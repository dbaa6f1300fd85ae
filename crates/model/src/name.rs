//! Names and identities as types of their own: a value of such a type has been checked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind}: {wanted}")]
pub struct InvalidName {
    kind: &'static str,
    text: String,
    wanted: &'static str,
}

macro_rules! text_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $wanted:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as it is written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                let check: fn(&str) -> bool = $check;
                if check(&text) {
                    Ok(Self(text))
                } else {
                    Err(InvalidName { kind: $kind, text, wanted: $wanted })
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_name!(
    /// A project, and the app that is deployed from it: `hello`, `billing-api`. Safe as one path segment.
    ProjectName,
    "project name",
    "1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit",
    |text| {
        (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
    }
);

text_name!(
    /// A git branch, by the rules of `git check-ref-format` that matter to keys and paths. May hold `/`.
    BranchName,
    "branch name",
    "what `git check-ref-format --branch` accepts, at most 200 bytes",
    |text| {
        (1..=200).contains(&text.len())
            && !text.starts_with(['/', '-'])
            && !text.ends_with(['/', '.'])
            && !text.contains("..")
            && !text.contains("//")
            && !text.contains("@{")
            && !text.bytes().any(|b| b <= b' ' || b == 0x7f || b"~^:?*[\\".contains(&b))
            && text.split('/').all(|part| !part.starts_with('.') && !part.ends_with(".lock"))
    }
);

impl BranchName {
    /// The branch as one key or path segment: `%` and `/` are percent-encoded.
    #[must_use]
    pub fn segment(&self) -> String {
        self.0.replace('%', "%25").replace('/', "%2F")
    }
}

text_name!(
    /// A git commit: 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
    CommitId,
    "commit id",
    "40 or 64 hex digits, in full",
    |text| matches!(text.len(), 40 | 64) && is_lower_hex(text)
);

impl CommitId {
    /// The first 8 digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

text_name!(
    /// A machine, by 32 lower-case hex digits as in `/etc/machine-id`.
    MachineId,
    "machine id",
    "32 hex digits",
    |text| text.len() == 32 && is_lower_hex(text)
);

impl MachineId {
    /// The first 8 digits, for people.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or(&self.0)
    }
}

text_name!(
    /// One life of an agent process. A new process is a new session, so work of an older session is known to be lost.
    SessionId,
    "session id",
    "32 hex digits",
    |text| text.len() == 32 && is_lower_hex(text)
);

text_name!(
    /// A secret of a project, by the variable that the steps find it in: `NPM_TOKEN`.
    SecretName,
    "secret name",
    "1 to 100 letters, digits and '_', no digit at first, as a variable is named",
    |text| {
        (1..=100).contains(&text.len())
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && text.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
    }
);

text_name!(
    /// BLAKE3 of some bytes, 64 lower-case hex digits. Bytes are stored and asked for by it.
    Digest,
    "digest",
    "64 hex digits of a BLAKE3 hash",
    |text| text.len() == 64 && is_lower_hex(text)
);

impl MachineId {
    /// The id with these 128 bits.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(hex(&bytes))
    }
}

impl SessionId {
    /// The id with these 128 bits.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(hex(&bytes))
    }
}

impl Digest {
    /// The digest with these 256 bits.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(hex(&bytes))
    }
}

text_name!(
    /// The name of a file that systemd or Quadlet makes units of, with its suffix: `web.service`, `web@1.service`,
    /// `web.container`. 1 to 255 of `0-9A-Za-z:-_.\@`, as systemd.unit(5) says.
    UnitName,
    "unit name",
    "letters, digits and ':-_.\\@' with a suffix such as .service, .timer or .container",
    |text| {
        text.len() <= 255
            && UnitKind::of(text).is_some_and(|kind| {
                let stem = &text[..text.len() - kind.suffix().len() - 1];
                !stem.is_empty() && !stem.starts_with('@')
            })
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b))
    }
);

impl UnitName {
    /// The kind, from the suffix.
    #[must_use]
    pub fn kind(&self) -> UnitKind {
        UnitKind::of(&self.0).unwrap_or(UnitKind::Service)
    }

    /// The name without its suffix.
    #[must_use]
    pub fn stem(&self) -> &str {
        self.0.rsplit_once('.').map_or(&*self.0, |(stem, _)| stem)
    }

    /// A template (`web@.service`) can be stored but not run.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.stem().find('@').is_some_and(|at| at + 1 == self.stem().len())
    }

    /// What stands behind the first `@`: `1` of `web@1.service`; none of a template, and of a unit without a template.
    #[must_use]
    pub fn instance(&self) -> Option<&str> {
        self.stem().split_once('@').map(|(_, instance)| instance).filter(|instance| !instance.is_empty())
    }

    /// The template that an instance is of: `web@.service` of `web@1.service`.
    #[must_use]
    pub fn template(&self) -> Option<UnitName> {
        self.instance()?;
        let (prefix, _) = self.stem().split_once('@')?;
        Some(Self(format!("{prefix}@.{}", self.kind().suffix())))
    }

    /// What systemd calls the unit. Of a Quadlet file that is the service which Quadlet makes of it (`web.container`
    /// becomes `web.service`, `data.volume` becomes `data-volume.service`), unless the file names another with
    /// `ServiceName=`. Of any other file it is the file's own name.
    #[must_use]
    pub fn in_systemd(&self) -> UnitName {
        match self.kind().quadlet_suffix() {
            Some(suffix) => Self(format!("{}{suffix}.service", self.stem())),
            None => self.clone(),
        }
    }

    /// This instance of a template; none of a unit that is no template, or if it would be no name.
    #[must_use]
    pub fn with_instance(&self, instance: &str) -> Option<UnitName> {
        let prefix = self.stem().strip_suffix('@')?;
        format!("{prefix}@{instance}.{}", self.kind().suffix()).parse().ok()
    }
}

/// The kinds of files that a user writes: systemd's units (but for scopes, which no file can make), and Quadlet's files,
/// podman-systemd.unit(5), of which Podman makes services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UnitKind {
    Service,
    Socket,
    Device,
    Mount,
    Automount,
    Swap,
    Target,
    Path,
    Timer,
    Slice,
    Container,
    Pod,
    Volume,
    Network,
    Kube,
    Image,
    Build,
}

impl UnitKind {
    pub const ALL: [UnitKind; 17] = [
        UnitKind::Service,
        UnitKind::Socket,
        UnitKind::Device,
        UnitKind::Mount,
        UnitKind::Automount,
        UnitKind::Swap,
        UnitKind::Target,
        UnitKind::Path,
        UnitKind::Timer,
        UnitKind::Slice,
        UnitKind::Container,
        UnitKind::Pod,
        UnitKind::Volume,
        UnitKind::Network,
        UnitKind::Kube,
        UnitKind::Image,
        UnitKind::Build,
    ];

    /// The file name suffix without its dot.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            UnitKind::Service => "service",
            UnitKind::Socket => "socket",
            UnitKind::Device => "device",
            UnitKind::Mount => "mount",
            UnitKind::Automount => "automount",
            UnitKind::Swap => "swap",
            UnitKind::Target => "target",
            UnitKind::Path => "path",
            UnitKind::Timer => "timer",
            UnitKind::Slice => "slice",
            UnitKind::Container => "container",
            UnitKind::Pod => "pod",
            UnitKind::Volume => "volume",
            UnitKind::Network => "network",
            UnitKind::Kube => "kube",
            UnitKind::Image => "image",
            UnitKind::Build => "build",
        }
    }

    /// Whether Quadlet makes a service of the file; systemd itself does not read it.
    #[must_use]
    pub fn is_quadlet(self) -> bool {
        self.quadlet_suffix().is_some()
    }

    /// Whether systemd knows it as a service.
    #[must_use]
    pub fn is_service(self) -> bool {
        self == UnitKind::Service || self.is_quadlet()
    }

    /// Whether there can be templates and instances of it: systemd's rule (fleet's was the same), and all that Quadlet
    /// makes is a service.
    #[must_use]
    pub fn may_be_template(self) -> bool {
        matches!(
            self,
            UnitKind::Service | UnitKind::Socket | UnitKind::Target | UnitKind::Path | UnitKind::Timer
        ) || self.is_quadlet()
    }

    /// What Quadlet puts behind a file's stem to name its service.
    fn quadlet_suffix(self) -> Option<&'static str> {
        match self {
            UnitKind::Container | UnitKind::Kube => Some(""),
            UnitKind::Pod => Some("-pod"),
            UnitKind::Volume => Some("-volume"),
            UnitKind::Network => Some("-network"),
            UnitKind::Image => Some("-image"),
            UnitKind::Build => Some("-build"),
            _ => None,
        }
    }

    fn of(name: &str) -> Option<UnitKind> {
        let (_, suffix) = name.rsplit_once('.')?;
        Self::ALL.into_iter().find(|kind| kind.suffix() == suffix)
    }
}

/// A run: the project and its number there, counted from 1. Written `hello-12`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId {
    pub project: ProjectName,
    pub number: u64,
}

impl FromStr for RunId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let wanted = "a project name, '-' and a number from 1, such as hello-12";
        let invalid = || InvalidName { kind: "run id", text: text.to_owned(), wanted };
        let (project, number) = text.rsplit_once('-').ok_or_else(invalid)?;
        let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        match (project.parse(), number.parse()) {
            (Ok(project), Ok(number)) if plain => Ok(RunId { project, number }),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidName;

    fn try_from(text: String) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.to_string()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.project, self.number)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn accepts_and_refuses_by_table() {
        for (text, good) in [
            ("hello", true),
            ("a.b-c_1", true),
            ("", false),
            ("-a", false),
            ("Ab", false),
            ("a/b", false),
            ("..", false),
        ] {
            assert_eq!(text.parse::<ProjectName>().is_ok(), good, "project {text:?}");
        }
        for (text, good) in [
            ("main", true),
            ("feature/x", true),
            ("", false),
            ("a..b", false),
            ("/a", false),
            ("a/", false),
            ("a b", false),
            ("a/.b", false),
            ("x.lock", false),
            ("-x", false),
            ("a\u{7}b", false),
            ("a:b", false),
        ] {
            assert_eq!(text.parse::<BranchName>().is_ok(), good, "branch {text:?}");
        }
        for (text, good) in [
            ("NPM_TOKEN", true),
            ("_a1", true),
            ("", false),
            ("1A", false),
            ("A-B", false),
            ("A=", false),
            ("é", false),
        ] {
            assert_eq!(text.parse::<SecretName>().is_ok(), good, "secret {text:?}");
        }
        for (text, good) in [
            ("web.service", true),
            ("web@1.service", true),
            ("web@.service", true),
            ("a.b.timer", true),
            (".service", false),
            ("@.service", false),
            ("web", false),
            ("web.exe", false),
            ("web.container", true),
            ("a.scope", false),
            ("var-lib-a\\x2db.mount", true),
            ("a/b.service", false),
            ("a b.service", false),
        ] {
            assert_eq!(text.parse::<UnitName>().is_ok(), good, "unit {text:?}");
        }
        for (text, good) in [
            ("hello-1", true),
            ("a-b-12", true),
            ("hello-0", false),
            ("hello-01", false),
            ("hello", false),
            ("-1", false),
            ("hello-+1", false),
        ] {
            assert_eq!(text.parse::<RunId>().is_ok(), good, "run {text:?}");
        }
    }

    #[test]
    fn a_unit_is_known_by_template_instance_and_systemds_name() {
        for (name, template, instance, of, in_systemd) in [
            ("web.service", false, None, None, "web.service"),
            ("web@.service", true, None, None, "web@.service"),
            ("web@1.service", false, Some("1"), Some("web@.service"), "web@1.service"),
            ("web@a@.service", false, Some("a@"), Some("web@.service"), "web@a@.service"),
            ("a.b@c.d.timer", false, Some("c.d"), Some("a.b@.timer"), "a.b@c.d.timer"),
            ("web.container", false, None, None, "web.service"),
            ("web@.container", true, None, None, "web@.service"),
            ("web@1.container", false, Some("1"), Some("web@.container"), "web@1.service"),
            ("a.pod", false, None, None, "a-pod.service"),
            ("a.volume", false, None, None, "a-volume.service"),
            ("a.network", false, None, None, "a-network.service"),
            ("a.kube", false, None, None, "a.service"),
            ("a.image", false, None, None, "a-image.service"),
            ("a.build", false, None, None, "a-build.service"),
        ] {
            let unit: UnitName = name.parse().unwrap();
            assert_eq!((unit.is_template(), unit.instance()), (template, instance), "{name}");
            assert_eq!(unit.template().as_ref().map(UnitName::as_str), of, "{name}");
            assert_eq!(unit.in_systemd().as_str(), in_systemd, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_branch_segment_is_one_segment_and_injective(a in "[a-z%/]{1,12}", b in "[a-z%/]{1,12}") {
            if let (Ok(a), Ok(b)) = (a.parse::<BranchName>(), b.parse::<BranchName>()) {
                prop_assert!(!a.segment().contains('/'));
                prop_assert_eq!(a == b, a.segment() == b.segment());
            }
        }

        #[test]
        fn names_survive_json(number in 1u64.., project in "[a-z][a-z0-9-]{0,20}") {
            let id = RunId { project: project.parse().unwrap(), number };
            let json = serde_json::to_string(&id).unwrap();
            prop_assert_eq!(serde_json::from_str::<RunId>(&json).unwrap(), id);
        }
    }
}
