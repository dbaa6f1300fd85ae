//! The steps of a run, one after the other in one shell.
//!
//! Guarantees: every step that is begun is told of and told to have ended, whatever becomes of it; one that is left out
//! is told of as skipped. A step that fails without failing the pipeline, and one that is tried again, takes nothing
//! from the steps behind it: what those before it exported is there.
//!
//! It must not know how the container came about.

use std::fs;
use std::time::Duration;

use sealift_model::{EventKind, StepOutcome, StepResult};
use tokio::time::{Instant, sleep};

use super::attempt::{Ended, Failure};
use super::{Error, Run, Scene, chain, millis, own, words};
use crate::checkpoint::{self, Moment};
use crate::config::settings::RetryOn;
use crate::config::{StepConfig, StepSettings};
use crate::env::Env;
use crate::internal;
use crate::pull::Tell;
use crate::session::{self, CONTROL, Limits, Session, StepEnd};
use crate::source;
use crate::steps::{Content, Prepared};

/// How one attempt at a step ended.
struct Tried {
    outcome: StepOutcome,
    code: Option<i32>,
    message: Option<String>,
}

impl Tried {
    fn skipped(message: Option<String>) -> Tried {
        Tried { outcome: StepOutcome::Skipped, code: None, message }
    }
}

/// What a step's end means for those behind it.
struct StepReport {
    /// None: they may run.
    failure: Option<Failure>,
    /// The shell ended, and with it what was exported.
    lost: bool,
}

/// A step with all that concerns it.
struct Step<'a> {
    number: usize,
    prepared: &'a Prepared,
    settings: StepSettings,
    limits: Limits,
}

impl Run {
    pub(super) async fn all_steps(
        &mut self,
        scene: &Scene,
        env: &Env,
        session: &mut Session,
        prepared: &[Prepared],
    ) -> Result<Ended, Error> {
        let (main, after) = prepared.split_at(prepared.partition_point(|step| !step.after));
        let mut main_env = env.clone();
        if let Some(checkpoint) = self.spec.resume.clone() {
            main_env = checkpoint.environment(env, &scene.links, &self.spec);
            for plan in self.plans.iter_mut().take(checkpoint.steps.len().min(main.len())) {
                plan.skip = Some(if checkpoint.name == checkpoint::name_of_failure(self.spec.source.dir()) {
                    "done by the run that failed".to_owned()
                } else {
                    format!("done before checkpoint {}", checkpoint.name)
                });
            }
        }
        self.exported = main_env.clone();
        let mut failed = self.series(scene, session, main, 0).await?;
        if failed.is_some() {
            self.keep_failure(scene).await;
        }
        if let Some(failure) = &failed {
            self.shell_where_it_failed(scene, session, &failure.step).await;
        }
        let commit = self.spec.commit.clone().filter(|_| failed.is_none() && !self.cancel.is_cancelled());
        if let Some(name) = commit
            && let Err(message) = self.commit(scene, &main_env, &name).await
        {
            failed = Some(Failure { message, ..Failure::default() });
        }
        let ended = failed.clone().map_or(Ended::Passed, Ended::Failed);
        if after.is_empty() || self.whole.is_cancelled() {
            return Ok(ended);
        }
        // The pipeline's limit of time is not theirs: they tell that it was reached.
        self.cancel = self.whole.child_token();
        let mut env = env.clone();
        env.set("WERCKER_RESULT", if failed.is_none() { "passed" } else { "failed" });
        let Failure { step, message, .. } = failed.unwrap_or_default();
        env.set("WERCKER_FAILED_STEP_DISPLAY_NAME", step);
        env.set("WERCKER_FAILED_STEP_MESSAGE", message);
        // What the steps left running is not there for the after-steps, as when the reference restarted the box.
        session.clean_shell(env.entries()).await?;
        self.exported = env;
        self.series(scene, session, after, main.len()).await?;
        Ok(ended)
    }

    /// Steps one after the other, until one does not pass: that one's name and what went wrong.
    async fn series(
        &mut self,
        scene: &Scene,
        session: &mut Session,
        steps: &[Prepared],
        first: usize,
    ) -> Result<Option<Failure>, Error> {
        for (number, prepared) in (first..).zip(steps) {
            let plan = self.plans.get(number).cloned().unwrap_or_default();
            let limits = Limits {
                command: plan.settings.timeout.unwrap_or(scene.limits.command),
                silence: scene.limits.silence,
            };
            let step = Step { number, prepared, settings: plan.settings, limits };
            if let Some(reason) = plan.skip {
                self.finish(&step, Tried::skipped(Some(reason)), Instant::now(), false).await;
                continue;
            }
            self.remember(session).await;
            let report = self.step(scene, session, &step).await?;
            if report.failure.is_some() {
                return Ok(report.failure);
            }
            if let Some(Some(name)) = self.checkpoints.get(number).filter(|_| !prepared.after) {
                self.keep(scene, session, name).await;
            }
            if report.lost && number + 1 < first + steps.len() {
                let lost = "what it exported, if anything, is lost to the next";
                self.warn(format!(
                    "step {} ended the shell in a way that tells nothing: {lost}",
                    prepared.name
                ))
                .await;
            }
        }
        Ok(None)
    }

    async fn step(
        &mut self,
        scene: &Scene,
        session: &mut Session,
        step: &Step<'_>,
    ) -> Result<StepReport, Error> {
        let started = Instant::now();
        let Prepared { name, after, .. } = step.prepared.clone();
        self.tell(EventKind::StepStarted { step: step.number, name: name.clone(), after }).await;
        let result = self.attempts(scene, session, step).await;
        let tried = match result {
            Ok(tried) => tried,
            // The step is told of like any other before the run ends.
            Err(error) => {
                let message = Some(chain(&error));
                let tried = Tried { outcome: StepOutcome::Failed, code: None, message };
                self.finish(step, tried, started, false).await;
                return Err(error);
            }
        };
        let passed = tried.outcome == StepOutcome::Passed;
        let soft = !passed && self.is_soft(step, &tried);
        let lost = (passed || soft) && !session.knows_exports();
        let failure = (!passed && !soft).then(|| Failure {
            step: name,
            message: summary(&tried),
            code: tried.code,
            timed_out: tried.outcome == StepOutcome::TimedOut,
        });
        self.finish(step, tried, started, soft).await;
        Ok(StepReport { failure, lost })
    }

    /// Whether a step that did not pass fails nothing.
    fn is_soft(&self, step: &Step<'_>, tried: &Tried) -> bool {
        // Not one that was stopped with all the pipeline.
        let ended = matches!(tried.outcome, StepOutcome::Failed | StepOutcome::TimedOut);
        let covered =
            step.settings.soft_fail.as_ref().is_some_and(|soft| soft.covers(tried.code.map(i64::from)));
        ended && covered && !self.cancel.is_cancelled()
    }

    /// All attempts at a step, up to the one that counts. After a failure that has something behind it, there is a shell
    /// with what was exported before.
    async fn attempts(
        &mut self,
        scene: &Scene,
        session: &mut Session,
        step: &Step<'_>,
    ) -> Result<Tried, Error> {
        let Step { settings, prepared, .. } = step;
        let mut number = 1;
        loop {
            let tried = self.once(scene, session, step).await?;
            let again = settings.retry.as_ref().filter(|retry| {
                let ended = match tried.outcome {
                    StepOutcome::Failed => retry.on.contains(&RetryOn::Failed),
                    StepOutcome::TimedOut => retry.on.contains(&RetryOn::TimedOut),
                    _ => false,
                };
                ended && number < retry.attempts && !self.cancel.is_cancelled()
            });
            let restores =
                again.is_some() || (tried.outcome != StepOutcome::Passed && self.is_soft(step, &tried));
            // What is behind a failure needs the variables from before it.
            if restores && !session.has_shell() {
                let before = self.exported.entries();
                if tried.outcome == StepOutcome::TimedOut {
                    // It is still there.
                    session.clean_shell(before).await?;
                } else {
                    session.shell(before).await?;
                }
            }
            let Some(retry) = again else { return Ok(tried) };
            number += 1;
            let (of, delay) = (retry.attempts, retry.delay);
            let pause = if delay.is_zero() { String::new() } else { format!(" in {}", words(delay)) };
            let why = summary(&tried);
            self.note(format!("step {}: {why}; attempt {number} of {of} follows{pause}", prepared.name))
                .await;
            let cancel = self.cancel.clone();
            tokio::select! {
                () = sleep(delay) => {}
                () = cancel.cancelled() => return Ok(self.stopped()),
            }
        }
    }

    /// The end of a step that something else ended.
    fn stopped(&self) -> Tried {
        let (outcome, message) = if self.is_aborted() {
            (StepOutcome::Aborted, "aborted".to_owned())
        } else {
            (StepOutcome::TimedOut, self.too_long())
        };
        Tried { outcome, code: None, message: Some(message) }
    }

    /// One attempt at a step.
    async fn once(&mut self, scene: &Scene, session: &mut Session, step: &Step<'_>) -> Result<Tried, Error> {
        let Step { number, prepared, settings, limits } = step;
        let ended = match &prepared.content {
            Content::Script(script) if settings.env.is_empty() && settings.retry.is_none() => {
                Ok(self.source(session, *number, script, *limits).await?)
            }
            Content::Script(script) => {
                let message = format!("/pipeline/{}", prepared.message.display());
                let file = format!("{number}-around.sh");
                let path = scene.layout.control.join(&file);
                let text = own::surround(script, &message, &settings.env);
                fs::write(&path, text).map_err(|source| Error::Files { path, source })?;
                Ok(self.source(session, *number, &format!("{CONTROL}/{file}"), *limits).await?)
            }
            Content::Internal(config) => self.internal(scene, session, step, config).await,
        };
        let written = source::read_message(&scene.layout.pipeline, &prepared.message);
        let (outcome, code, message) = match ended {
            Err(reason) => (StepOutcome::Failed, None, Some(reason)),
            Ok(StepEnd::Code(0)) => (StepOutcome::Passed, Some(0), written),
            Ok(StepEnd::Code(code)) => (StepOutcome::Failed, Some(code), written),
            Ok(StepEnd::TimedOut { silent }) => {
                let message = if silent {
                    format!("stopped: no output for {}", words(limits.silence))
                } else {
                    format!("stopped: it took longer than {}", words(limits.command))
                };
                (StepOutcome::TimedOut, None, Some(message))
            }
            Ok(StepEnd::Cancelled) => return Ok(self.stopped()),
        };
        Ok(Tried { outcome, code, message })
    }

    /// Runs a step's file in the session, starting a shell where there is none.
    async fn source(
        &self,
        session: &mut Session,
        number: usize,
        script: &str,
        limits: Limits,
    ) -> Result<StepEnd, Error> {
        if !session.has_shell() {
            let env = exported(&self.exported, session).await?;
            session.shell(env.entries()).await?;
        }
        Ok(session.step(number, script, limits, &self.cancel, &self.events).await?)
    }

    /// Runs a step that is done by the engine and not in the shell; why it failed, if it did.
    async fn internal(
        &mut self,
        scene: &Scene,
        session: &mut Session,
        step: &Step<'_>,
        config: &StepConfig,
    ) -> Result<StepEnd, String> {
        // What earlier steps exported counts in the properties.
        let mut env = exported(&self.exported, session)
            .await
            .map_err(|error| format!("cannot read the shell's variables: {}", chain(&error)))?;
        for (name, value) in &step.settings.env {
            let value = env.fill(value);
            env.set(name, value);
        }
        let prefix = self.container_name(None);
        let context = self.context(scene, &env, step.number, &prefix);
        let limit = if internal::waits_for_people(config) { Duration::MAX } else { step.limits.command };
        tokio::select! {
            result = internal::run(config, &context) => {
                result.map(|()| StepEnd::Code(0)).map_err(|error| chain(&error))
            }
            () = self.cancel.cancelled() => Ok(StepEnd::Cancelled),
            () = tokio::time::sleep(limit) => Ok(StepEnd::TimedOut { silent: false }),
        }
    }

    fn context<'a>(
        &'a self,
        scene: &'a Scene,
        env: &'a Env,
        step: usize,
        prefix: &'a str,
    ) -> internal::Context<'a> {
        internal::Context {
            engine: &self.engine,
            spec: &self.spec,
            container: &scene.container,
            image: &scene.image,
            network: &scene.network,
            prefix,
            hosts: &scene.hosts,
            layout: &scene.layout,
            root: &scene.root,
            env,
            step,
            events: &self.events,
            made: &self.made,
        }
    }

    /// Keeps the box of a run that has passed as an image; why it could not, if so.
    async fn commit(&self, scene: &Scene, env: &Env, name: &str) -> Result<(), String> {
        let prefix = self.container_name(None);
        let context = self.context(scene, env, self.steps.len().saturating_sub(1), &prefix);
        let done = tokio::select! {
            done = internal::commit(name, &context) => done.map_err(|error| chain(&error)),
            () = self.cancel.cancelled() => Err("aborted".to_owned()),
        };
        if done.is_ok() {
            self.note(format!("the box is kept as {name}")).await;
        }
        done
    }

    /// Keeps the state after a step under a name. That it cannot be kept is no reason to stop.
    async fn keep(&self, scene: &Scene, session: &mut Session, name: &str) {
        let Some(dir) = &self.spec.checkpoint_dir else {
            return self.warn(format!("checkpoint {name} is not kept: the run has no place for it")).await;
        };
        let variables = self.known_exports(session).await;
        // The step itself is among them.
        let steps = self.steps.iter().map(|step| step.name.clone()).collect();
        let started = Instant::now();
        let moment = Moment {
            name,
            container: &scene.container,
            layout: &scene.layout,
            steps,
            variables: variables.entries().to_vec(),
            trees: true,
        };
        let saved = tokio::select! {
            saved = checkpoint::save(&self.engine, &self.spec, dir, moment) => saved,
            () = self.cancel.cancelled() => return,
        };
        match saved {
            Ok((_, secret)) => {
                self.note(format!("checkpoint {name} is kept ({} ms)", millis(started))).await;
                for variable in secret {
                    let why = "the value of a hidden variable is in it";
                    self.warn(format!("checkpoint {name} is without the variable {variable}: {why}")).await;
                }
            }
            Err(error) => self.warn(format!("checkpoint {name} is not kept: {}", chain(&error))).await,
        }
    }

    async fn finish(&mut self, step: &Step<'_>, tried: Tried, started: Instant, soft: bool) {
        let Prepared { name, after, .. } = step.prepared.clone();
        let Tried { outcome, code: exit_code, message, .. } = tried;
        let millis = millis(started);
        self.steps.push(StepResult { name: name.clone(), outcome, exit_code, millis, after });
        let step = step.number;
        self.tell(EventKind::StepFinished { step, name, outcome, exit_code, millis, after, message, soft })
            .await;
    }
}

/// What the shell exports, or did when it ended; `known` where nobody can tell.
pub(super) async fn exported(known: &Env, session: &mut Session) -> Result<Env, session::Error> {
    Ok(session.environment().await?.map_or_else(|| known.clone(), Env::from))
}

/// What went wrong, for people.
fn summary(tried: &Tried) -> String {
    let code = || tried.code.map(|code| format!("exit code {code}"));
    tried.message.clone().or_else(code).unwrap_or_default()
}
