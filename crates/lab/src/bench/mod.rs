//! Benchmarks: what they measured as a table for people and as one line of JSON for programs.
//!
//! They never assert speed: a figure says whether it met its bar, and that is all. Where a peer exists, it is measured
//! in the same run and the ratio is a figure.

pub mod cluster;
pub mod commits;
mod fleet;
pub mod pipeline;
pub mod placement;
pub mod podman;
pub mod push;
pub mod scale;

use std::time::Duration;

use serde::Serialize;

/// The benchmarks there are, with what they measure.
pub const BENCHES: [(&str, &str); 6] = [
    ("placement", "pure placement: decisions a second, and one change planned anew"),
    (
        "pipeline",
        "a pipeline's steps, output and source beside the bare container commands (needs podman and busybox-static)",
    ),
    (
        "cluster",
        "units on a cluster of three hosts beside bare systemctl, rest, and a lost host (needs root, scripts/host-image and the sealift binary beside this one)",
    ),
    (
        "push",
        "from a push to the running unit, memory and CPU at rest (needs the sealift binary beside this one)",
    ),
    (
        "scale",
        "one server with 5,000 simulated machines and 100,000 units over real connections (needs the sealift binary beside this one)",
    ),
    (
        "commits",
        "placements written to three members of etcd a second (needs etcd and the sealift binary beside this one)",
    ),
];

/// Why a benchmark could not measure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no benchmark {name}; see bench --list")]
    NoBench { name: String },
    #[error("{0}")]
    Needs(String),
    #[error("cannot {action} {what}")]
    Io {
        action: &'static str,
        what: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{what}: {said}")]
    Failed { what: String, said: String },
}

impl Error {
    pub(crate) fn failed(what: impl Into<String>, said: impl std::fmt::Display) -> Error {
        Error::Failed { what: what.into(), said: said.to_string() }
    }
}

/// An error of doing this to that.
fn io(action: &'static str, what: &str) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.to_owned();
    move |source| Error::Io { action, what, source }
}

/// One measured thing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What it is to be: at most this, or at least, see `at_least`.
    pub bar: Option<f64>,
    pub met: Option<bool>,
    #[serde(skip)]
    at_least: bool,
}

impl Figure {
    #[must_use]
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Figure {
        Figure { name: name.into(), value, unit, bar: None, met: None, at_least: false }
    }

    /// With the bar that it has to stay under.
    #[must_use]
    pub fn under(self, bar: f64) -> Figure {
        Figure { met: Some(self.value < bar), bar: Some(bar), ..self }
    }

    /// With the bar that it has to reach.
    #[must_use]
    pub fn at_least(self, bar: f64) -> Figure {
        Figure { met: Some(self.value >= bar), bar: Some(bar), at_least: true, ..self }
    }
}

/// What a benchmark measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub bench: &'static str,
    pub figures: Vec<Figure>,
}

impl Report {
    /// A line for each figure.
    #[must_use]
    pub fn table(&self) -> String {
        let wide = self.figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
        let line = |figure: &Figure| {
            let bar = figure.bar.map_or_else(String::new, |bar| {
                let sign = if figure.at_least { ">=" } else { "<" };
                let met = if figure.met == Some(true) { "met" } else { "NOT MET" };
                format!("  bar {sign} {bar} {}: {met}", figure.unit)
            });
            let (name, value) = (&figure.name, number(figure.value));
            format!("{name:wide$}  {value:>12} {:<11}{bar}", figure.unit).trim_end().to_owned()
        };
        let lines: Vec<String> = self.figures.iter().map(line).collect();
        format!("{}\n\n{}", self.bench, lines.join("\n"))
    }

    /// The same in one line.
    ///
    /// # Errors
    /// Never, as far as anybody knows: figures are plain data.
    pub fn json(&self) -> Result<String, Error> {
        serde_json::to_string(self).map_err(|error| Error::failed("cannot write the figures", error))
    }
}

/// As many digits as tell something.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The middle value; of an even number the mean of the middle two.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), middle.checked_sub(1).and_then(|below| sorted.get(below))) {
        (Some(high), Some(low)) if sorted.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (Some(value), _) => *value,
        (None, _) => 0.0,
    }
}

/// What so many of a hundred values do not exceed.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// Runs a benchmark; `machines` is how many `scale` simulates.
///
/// # Errors
/// When it could not measure; the message says what is missing.
pub async fn run(name: &str, machines: u32) -> Result<Report, Error> {
    match name {
        "placement" => placement::run(),
        "pipeline" => pipeline::run().await,
        // It waits for hosts in its own threads.
        "cluster" => tokio::task::spawn_blocking(cluster::run)
            .await
            .unwrap_or_else(|error| Err(Error::failed("the benchmark broke off", error))),
        "push" => push::run().await,
        "scale" => scale::run(machines).await,
        "commits" => commits::run().await,
        _ => Err(Error::NoBench { name: name.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Report, median};

    #[test]
    fn a_report_says_the_same_twice() {
        let figures = vec![
            Figure::new("fast enough", 1234.5, "/s").at_least(1000.0),
            Figure::new("too slow", 12.345, "ms").under(1.0),
            Figure::new("just so", 3.0, "MB"),
        ];
        let report = Report { bench: "it", figures };
        let table = report.table();
        assert!(table.contains("bar >= 1000 /s: met") && table.contains("bar < 1 ms: NOT MET"), "{table}");
        assert_eq!(
            report.json().unwrap(),
            r#"{"bench":"it","figures":[{"name":"fast enough","value":1234.5,"unit":"/s","bar":1000.0,"met":true},{"name":"too slow","value":12.345,"unit":"ms","bar":1.0,"met":false},{"name":"just so","value":3.0,"unit":"MB","bar":null,"met":null}]}"#
        );
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }
}
