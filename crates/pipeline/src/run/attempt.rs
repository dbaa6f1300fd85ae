//! The attempts at a pipeline, and what its end means.
//!
//! It must not know how steps are run.

use std::convert::Infallible;

use sealift_model::EventKind;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{Error, Run, chain, millis, plan, publish, words};
use crate::config::StepConfig;
use crate::config::settings::RetryOn;
use crate::junit;
use crate::layout;
use crate::pull::Tell;
use crate::service;
use crate::spec::Outcome;
use crate::steps;

/// How an attempt that could be carried out ended.
#[derive(Debug)]
pub(super) enum Ended {
    Passed,
    Failed(Failure),
    /// There was nothing to do, for this reason.
    LeftOut(String),
}

/// What went wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure {
    /// The step that did not pass; empty where none is to blame.
    pub(super) step: String,
    pub(super) message: String,
    pub(super) code: Option<i32>,
    pub(super) timed_out: bool,
}

impl Failure {
    fn words(&self) -> String {
        if self.step.is_empty() {
            self.message.clone()
        } else {
            format!("step {} failed: {}", self.step, self.message)
        }
    }
}

impl Run {
    /// All attempts, up to the one that counts.
    pub(super) async fn whole(mut self) -> Result<Outcome, Error> {
        let started = Instant::now();
        let mut number = 1;
        let ended = loop {
            let ended = self.attempt().await;
            if !self.wants_another(number, &ended) {
                break ended;
            }
            let retry = self.settings.retry.clone();
            let delay = retry.as_ref().map(|retry| retry.delay).unwrap_or_default();
            let why = match &ended {
                Ok(Ended::Failed(failure)) => failure.words(),
                Err(error) => chain(error),
                Ok(_) => String::new(),
            };
            let of = retry.map_or(1, |retry| retry.attempts);
            self.note(format!("attempt {number} of {of} did not pass: {why}")).await;
            number += 1;
            let after_millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            self.tell(EventKind::NodeRetried { attempt: number, after_millis }).await;
            tokio::select! {
                () = sleep(delay) => {}
                () = self.whole.cancelled() => break ended,
                () = stopped(self.spec.stop.clone()) => break ended,
            }
        };
        let aborted = self.is_aborted();
        let soft_fail = self.settings.soft_fail.as_ref();
        let covered = |code: Option<i32>| soft_fail.is_some_and(|soft| soft.covers(code.map(i64::from)));
        let (passed, soft, skipped, message) = match &ended {
            _ if aborted => (false, false, None, Some("aborted".to_owned())),
            Ok(Ended::Passed) => (true, false, None, None),
            Ok(Ended::LeftOut(reason)) => {
                (true, false, Some(reason.clone()), Some(format!("left out: {reason}")))
            }
            Ok(Ended::Failed(failure)) if covered(failure.code) => {
                (false, true, None, Some(format!("{} (a soft failure)", failure.words())))
            }
            Ok(Ended::Failed(failure)) => (false, false, None, Some(failure.words())),
            Err(error) => (false, false, None, Some(chain(error))),
        };
        let millis = millis(started);
        self.tell(EventKind::PipelineFinished { passed, millis, message: message.clone() }).await;
        match ended {
            Err(error) if !aborted => Err(error),
            _ => {
                let output = ((passed && skipped.is_none()) || soft).then(|| publish::output(&self.spec));
                let reports = self.reports();
                Ok(Outcome { passed, soft, skipped, aborted, steps: self.steps, message, output, reports })
            }
        }
    }

    /// One attempt, from its first event to the last but one, within its limit of time.
    async fn attempt(&mut self) -> Result<Ended, Error> {
        self.cancel = self.whole.child_token();
        self.steps.clear();
        self.caches.clear();
        // Kept until the box is removed: letting go of its input would end the box, and the engine would be busy with
        // that when it is to remove it.
        let mut session = None;
        let limit = self.settings.timeout;
        let stop = self.cancel.clone();
        let asked = self.spec.stop.clone();
        let timer = async move {
            let over = async {
                match limit {
                    Some(limit) => sleep(limit).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => {}
                () = stopped(asked) => {}
            }
            stop.cancel();
            std::future::pending::<Infallible>().await
        };
        let mut ended = tokio::select! {
            ended = Box::pin(self.begin(&mut session)) => ended,
            never = timer => match never {},
        };
        if let Err(error) = self.clean_up().await {
            self.warn(format!("something of the run is left: {}", chain(&error))).await;
        }
        self.leave_failure().await;
        if matches!(
            ended,
            Err(Error::Cancelled
                | Error::Service(service::Error::Cancelled)
                | Error::Steps(steps::Error::Cancelled))
        ) && !self.is_aborted()
        {
            ended = Ok(Ended::Failed(Failure {
                message: self.too_long(),
                timed_out: true,
                ..Failure::default()
            }));
        }
        if let Ok(Ended::Passed) = ended {
            ended = self.publish().await;
        }
        self.keep_caches(matches!(ended, Ok(Ended::Passed))).await;
        self.report_tests().await;
        ended
    }

    /// Whether somebody has ended the run.
    pub(super) fn is_aborted(&self) -> bool {
        self.whole.is_cancelled() || self.spec.stop.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Whether the pipeline is tried once more after attempt `number`.
    fn wants_another(&self, number: u32, ended: &Result<Ended, Error>) -> bool {
        let Some(retry) = self.settings.retry.as_ref().filter(|retry| number < retry.attempts) else {
            return false;
        };
        let what = match ended {
            Ok(Ended::Failed(Failure { timed_out: true, .. })) => RetryOn::TimedOut,
            // An engine, an image or a service may be there the next time; a mistake in the file stays.
            Ok(Ended::Failed(_))
            | Err(Error::Engine(_) | Error::Pull(_) | Error::Service(_) | Error::Session(_)) => {
                RetryOn::Failed
            }
            Ok(_) | Err(_) => return false,
        };
        retry.on.contains(&what) && !self.is_aborted()
    }

    /// Why what goes on was stopped though nobody cancelled the run.
    pub(super) fn too_long(&self) -> String {
        let limit = self.settings.timeout.map(words).unwrap_or_default();
        format!("stopped: the pipeline took longer than {limit}")
    }

    /// Why the pipeline is left out, if it is. Tells of conditions that cannot be judged.
    pub(super) async fn left_out(&mut self, main: &[StepConfig], after: &[StepConfig]) -> Option<String> {
        let when = self.settings.when.clone();
        let steps = main.iter().chain(after).map(|step| step.settings.when.as_ref());
        if self.spec.changed.is_none() && steps.chain([when.as_ref()]).any(plan::asks_for_paths) {
            self.note(plan::NO_PATHS.to_owned()).await;
        }
        let facts = plan::facts(&self.spec);
        let reason = when.filter(|when| !when.matches(&facts)).map(|_| plan::condition(&facts))?;
        self.tell(EventKind::NodeSkipped { reason: reason.clone(), fine: true }).await;
        Some(reason)
    }

    /// Puts what the pipeline publishes where its output is looked for.
    async fn publish(&self) -> Result<Ended, Error> {
        if self.settings.publish.is_empty() {
            return Ok(Ended::Passed);
        }
        let (spec, paths) = (self.spec.clone(), self.settings.publish.clone());
        let (published, beside) = tokio::task::spawn_blocking(move || {
            let beside = publish::has_output(&spec);
            (publish::publish(&layout::source_of(&spec), &publish::place(&spec), &paths), beside)
        })
        .await
        .map_err(Error::Task)?;
        if beside {
            let text = "what the steps put into the output directory is left aside, since `publish` names the output";
            self.warn(text.to_owned()).await;
        }
        Ok(match published {
            Ok(()) => Ended::Passed,
            Err(error) => {
                let message = format!("its output cannot be published: {}", chain(&error));
                Ended::Failed(Failure { message, ..Failure::default() })
            }
        })
    }

    /// Tells what JUnit files say; what cannot be read is no failure of the run.
    async fn report_tests(&self) {
        let report = self.spec.work_dir.join("pipeline/report");
        match tokio::task::spawn_blocking(move || junit::summarise(&report)).await {
            Ok(found) => {
                for problem in found.problems {
                    self.warn(problem).await;
                }
                if let Some(tests) = found.tests {
                    self.tell(tests.event()).await;
                }
            }
            Err(error) => tracing::debug!(%error, "the reports of tests are not read"),
        }
    }
}

/// Waits until the run is to end; for ever where nobody can ask for it.
async fn stopped(stop: Option<CancellationToken>) {
    match stop {
        Some(stop) => stop.cancelled().await,
        None => std::future::pending().await,
    }
}
