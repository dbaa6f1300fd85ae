//! What Sealift's own form of the file (`sealift: 1`) adds to pipelines, steps, boxes and workflows.
//!
//! Types only: how they are written is in `read_settings`, how they act is for whoever runs a pipeline.

use std::time::Duration;

use super::template::Template;
use super::when::When;

/// Settings of a pipeline, or of its place in a workflow. What is none was not written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    pub when: Option<When>,
    pub matrix: Option<Matrix>,
    /// For one attempt as a whole.
    pub timeout: Option<Duration>,
    pub retry: Option<Retry>,
    pub soft_fail: Option<SoftFail>,
    pub secrets: Vec<Secret>,
    pub cache: Option<Cache>,
    pub artifacts: Option<Artifacts>,
    /// Paths below the source that become the output; none: what the pipeline put into its output directory.
    pub publish: Vec<String>,
    pub approval: Option<Approval>,
    pub concurrency: Option<Concurrency>,
    /// Pipelines that have to pass before.
    pub needs: Vec<String>,
}

impl Settings {
    /// These settings, and those of `below` where nothing was written here.
    #[must_use]
    pub fn over(&self, below: &Settings) -> Settings {
        let list = |own: &[String], other: &[String]| if own.is_empty() { other } else { own }.to_vec();
        Settings {
            when: self.when.clone().or_else(|| below.when.clone()),
            matrix: self.matrix.clone().or_else(|| below.matrix.clone()),
            timeout: self.timeout.or(below.timeout),
            retry: self.retry.clone().or_else(|| below.retry.clone()),
            soft_fail: self.soft_fail.clone().or_else(|| below.soft_fail.clone()),
            secrets: if self.secrets.is_empty() { &below.secrets } else { &self.secrets }.clone(),
            cache: self.cache.clone().or_else(|| below.cache.clone()),
            artifacts: self.artifacts.clone().or_else(|| below.artifacts.clone()),
            publish: list(&self.publish, &below.publish),
            approval: self.approval.clone().or_else(|| below.approval.clone()),
            concurrency: self.concurrency.clone().or_else(|| below.concurrency.clone()),
            needs: list(&self.needs, &below.needs),
        }
    }
}

/// Settings of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepSettings {
    pub when: Option<When>,
    pub retry: Option<Retry>,
    pub soft_fail: Option<SoftFail>,
    pub timeout: Option<Duration>,
    /// For this step alone; names as written.
    pub env: Vec<(String, String)>,
}

/// Variables and their values: one cell of a matrix, in the order of the file.
pub type Cell = Vec<(String, String)>;

/// One pipeline several times, with other variables.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matrix {
    pub axes: Vec<(String, Vec<String>)>,
    /// A cell that has all the values of one of these is left out.
    pub exclude: Vec<Cell>,
    /// Cells besides those of the axes.
    pub include: Vec<Cell>,
}

impl Matrix {
    /// More cells than any person looks at.
    pub const MAX_CELLS: usize = 256;

    /// The cells, the last axis the fastest; none when there are more than [`Matrix::MAX_CELLS`].
    #[must_use]
    pub fn cells(&self) -> Option<Vec<Cell>> {
        let mut cells: Vec<Cell> = if self.axes.is_empty() { Vec::new() } else { vec![Cell::new()] };
        for (name, values) in &self.axes {
            // Counted before it is built, so that a large matrix costs nothing.
            if cells.len().saturating_mul(values.len()) > Self::MAX_CELLS {
                return None;
            }
            let with = |cell: &Cell, value: &String| {
                let mut cell = cell.clone();
                cell.push((name.clone(), value.clone()));
                cell
            };
            cells = cells.iter().flat_map(|cell| values.iter().map(move |value| with(cell, value))).collect();
        }
        let excluded = |cell: &Cell| {
            self.exclude.iter().any(|out| !out.is_empty() && out.iter().all(|pair| cell.contains(pair)))
        };
        cells.retain(|cell| !excluded(cell));
        for cell in &self.include {
            if !cells.contains(cell) {
                cells.push(cell.clone());
            }
        }
        (cells.len() <= Self::MAX_CELLS).then_some(cells)
    }
}

/// To try again after a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// All attempts, the first one too; at least 1, at most [`Retry::MAX_ATTEMPTS`].
    pub attempts: u32,
    /// Between two attempts.
    pub delay: Duration,
    /// After what; never empty.
    pub on: Vec<RetryOn>,
}

impl Retry {
    pub const MAX_ATTEMPTS: u32 = 10;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    Failed,
    TimedOut,
}

/// A failure that does not fail what is above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SoftFail {
    /// Said in the place of a workflow against what the pipeline says.
    Never,
    Any,
    /// Only with these exit codes; never empty.
    ExitCodes(Vec<u8>),
}

impl SoftFail {
    /// Whether a failure with this exit code is a soft one.
    #[must_use]
    pub fn covers(&self, code: Option<i64>) -> bool {
        match self {
            SoftFail::Never => false,
            SoftFail::Any => true,
            SoftFail::ExitCodes(codes) => {
                code.is_some_and(|code| codes.iter().any(|known| i64::from(*known) == code))
            }
        }
    }
}

/// A secret that is handed to a pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its name where it is kept.
    pub from: String,
    /// The variable that holds it in the pipeline.
    pub variable: String,
}

/// Paths that are kept from one run to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    pub key: Template,
    /// Keys, or beginnings of keys, that are tried when there is none of `key`.
    pub fallback: Vec<Template>,
    pub paths: Vec<String>,
    /// Whether a failed run keeps what it made.
    pub keep_on_failure: bool,
}

/// What a pipeline is given of what others made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Artifacts {
    /// Pipelines whose output is laid over the source, in this order.
    pub from: Vec<String>,
}

/// A person has to agree first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Approval {
    /// False where the place of a workflow says so against its pipeline.
    pub wanted: bool,
    pub question: Option<String>,
}

impl Approval {
    /// What is asked before `node` runs.
    #[must_use]
    pub fn asks(&self, node: &str) -> String {
        self.question.clone().unwrap_or_else(|| format!("Run {node}?"))
    }
}

/// One at a time within a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concurrency {
    /// May hold `${VARIABLES}` and `{{ branch }}`.
    pub group: Template,
    /// Whether a newer run ends an older one that waits or runs.
    pub cancel_superseded: bool,
}

/// When a service counts as started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    pub probe: Probe,
    /// How long it may take.
    pub timeout: Duration,
}

impl Ready {
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It accepts connections there.
    Port(u16),
    /// It has printed a line that holds this text.
    Log(String),
    /// This command of the shell, in the service's container, ends with 0.
    Command(String),
}

/// `90s`, `20m`, `1h30m`: whole numbers of hours, minutes and seconds, in this order.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut seconds: u64 = 0;
    let mut rest = text;
    for (unit, size) in [('h', 3600), ('m', 60), ('s', 1)] {
        let Some((digits, after)) = rest.split_once(unit) else { continue };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        seconds = seconds.checked_add(digits.parse::<u64>().ok()?.checked_mul(size)?)?;
        rest = after;
    }
    (rest.is_empty() && !text.is_empty()).then(|| Duration::from_secs(seconds))
}

/// As [`parse_duration`] reads it.
#[must_use]
pub fn print_duration(duration: Duration) -> String {
    let total = duration.as_secs();
    let parts = [(total / 3600, "h"), (total / 60 % 60, "m"), (total % 60, "s")];
    let text: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// `512m`, `2g`, `65536k`, in bytes; a plain number is bytes. Units are powers of 1024.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (digits, unit): (&str, u64) = match text.as_bytes().last()? {
        b'k' => (text.strip_suffix('k')?, 1 << 10),
        b'm' => (text.strip_suffix('m')?, 1 << 20),
        b'g' => (text.strip_suffix('g')?, 1 << 30),
        _ => (&text, 1),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse::<u64>().ok()?.checked_mul(unit)).flatten()
}

/// Thousandths of a CPU from `2`, `0.5`, `1.25`.
#[must_use]
pub fn parse_cpus(text: &str) -> Option<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(part) || part.len() > 3 {
        return None;
    }
    let thousandths: u32 = format!("{part:0<3}").parse().ok()?;
    whole.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(thousandths).filter(|millis| *millis > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, want) in [
            ("90s", Some(90)),
            ("20m", Some(1200)),
            ("1h30m", Some(5400)),
            ("1h1m1s", Some(3661)),
            ("0s", Some(0)),
            ("90", None),
            ("", None),
            ("1m1h", None),
            ("-1s", None),
            ("1.5h", None),
            ("s", None),
            ("99999999999999999999s", None),
            ("9999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), want.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn sizes_and_cpus() {
        for (text, want) in [
            ("512m", Some(512 << 20)),
            ("2G", Some(2 << 30)),
            ("100", Some(100)),
            ("m", None),
            ("1.5g", None),
            ("é", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_size(text), want, "{text}");
        }
        for (text, want) in [
            ("2", Some(2000)),
            ("0.5", Some(500)),
            ("1.25", Some(1250)),
            ("0", None),
            ("1.", None),
            ("x", None),
        ] {
            assert_eq!(parse_cpus(text), want, "{text}");
        }
    }

    #[test]
    fn cells_of_a_matrix() {
        let cell = |pairs: &[(&str, &str)]| -> Cell {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let matrix = Matrix {
            axes: vec![
                ("A".into(), vec!["1".into(), "2".into()]),
                ("B".into(), vec!["x".into(), "y".into()]),
            ],
            exclude: vec![cell(&[("B", "x"), ("A", "2")])],
            include: vec![cell(&[("A", "3")]), cell(&[("A", "1"), ("B", "x")])],
        };
        assert_eq!(
            matrix.cells().unwrap(),
            [
                cell(&[("A", "1"), ("B", "x")]),
                cell(&[("A", "1"), ("B", "y")]),
                cell(&[("A", "2"), ("B", "y")]),
                cell(&[("A", "3")]),
            ]
        );
        let many = (0..17).map(|n| n.to_string()).collect::<Vec<_>>();
        let large =
            Matrix { axes: vec![("A".into(), many.clone()), ("B".into(), many)], ..Matrix::default() };
        assert_eq!(large.cells(), None);
    }

    #[test]
    fn soft_failures() {
        assert!(SoftFail::Any.covers(None) && !SoftFail::Never.covers(Some(1)));
        let some = SoftFail::ExitCodes(vec![3]);
        assert_eq!((some.covers(Some(3)), some.covers(Some(4)), some.covers(None)), (true, false, false));
    }

    proptest! {
        #[test]
        fn a_duration_is_read_as_it_is_printed(seconds in 0_u64..1_000_000) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&print_duration(duration)), Some(duration));
        }
    }
}
