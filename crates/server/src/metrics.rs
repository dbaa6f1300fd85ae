//! What a server counts of itself, and `GET /metrics`: Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use sealift_model::RunState;

use crate::cache::World;

/// The counters of one server's life.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Whether `/metrics` is told to anybody.
    pub(crate) open: bool,
    answers: Mutex<BTreeMap<u16, u64>>,
    pub(crate) passes: AtomicU64,
    /// How often a stream was woken and looked at what its machine is to do.
    pub(crate) assignment_looks: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
}

impl Metrics {
    pub(crate) fn new(open: bool) -> Self {
        Self { open, ..Self::default() }
    }

    pub(crate) fn answered(&self, status: StatusCode) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.entry(status.as_u16()).or_default() += 1;
    }

    /// All of it, as of now.
    pub(crate) fn text(&self, world: &World) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, values: Vec<(String, u64)>| {
            // Writing to a string does not fail.
            writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
            for (labels, value) in values {
                writeln!(text, "{name}{labels} {value}").ok();
            }
        };
        let machines = |present: bool| {
            let known = world.machines.keys();
            known.filter(|id| world.presence.contains_key(*id) == present).count() as u64
        };
        family(
            "sealift_machines",
            "gauge",
            "Machines by whether they are there.",
            vec![
                ("{present=\"true\"}".into(), machines(true)),
                ("{present=\"false\"}".into(), machines(false)),
            ],
        );
        let mut units: BTreeMap<&str, u64> = BTreeMap::new();
        for status in world.statuses.values().flat_map(BTreeMap::values) {
            *units.entry(status.value.active.as_str()).or_default() += 1;
        }
        family(
            "sealift_units",
            "gauge",
            "Units on machines by what they say of them.",
            labelled("state", units),
        );
        family(
            "sealift_placements",
            "gauge",
            "Units that are placed on a machine.",
            vec![(String::new(), world.placements.len() as u64)],
        );
        let runs = |state| world.runs.values().filter(|run| run.value.state == state).count() as u64;
        family(
            "sealift_runs",
            "gauge",
            "Runs that have not ended.",
            vec![
                ("{state=\"queued\"}".into(), runs(RunState::Queued)),
                ("{state=\"running\"}".into(), runs(RunState::Running)),
            ],
        );
        let passes = self.passes.load(Ordering::Relaxed);
        family(
            "sealift_planner_passes_total",
            "counter",
            "Looks of the planner.",
            vec![(String::new(), passes)],
        );
        let looks = self.assignment_looks.load(Ordering::Relaxed);
        family(
            "sealift_assignment_looks_total",
            "counter",
            "Looks at what a machine is to do, for its stream.",
            vec![(String::new(), looks)],
        );
        let failed = self.handshakes_failed.load(Ordering::Relaxed);
        family(
            "sealift_tls_handshakes_failed_total",
            "counter",
            "TLS connections that came to nothing.",
            vec![(String::new(), failed)],
        );
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers =
            answers.into_iter().map(|(code, count)| (format!("{{code=\"{code}\"}}"), count)).collect();
        family("sealift_requests_total", "counter", "Requests by the status of their answers.", answers);
        let revision = vec![(String::new(), world.revision.0)];
        family("sealift_store_revision", "counter", "The store's revision that is shown.", revision);
        text
    }
}

fn labelled(label: &str, values: BTreeMap<&str, u64>) -> Vec<(String, u64)> {
    values.into_iter().map(|(value, count)| (format!("{{{label}=\"{value}\"}}"), count)).collect()
}
