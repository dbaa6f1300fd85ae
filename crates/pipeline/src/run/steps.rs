//! The steps of a run, one after the other in one shell.
//!
//! Guarantees: every step that is begun is told of and told to have ended, whatever becomes of it.
//!
//! It must not know how the container came about.

use sealift_model::{EventKind, StepOutcome, StepResult};
use std::time::Duration;

use tokio::time::Instant;

use super::{Error, Run, Scene, chain, ending, millis, words};
use crate::checkpoint::{self, Moment};
use crate::config::StepConfig;
use crate::env::Env;
use crate::internal;
use crate::pull::Tell;
use crate::session::{Limits, Session, StepEnd};
use crate::source;
use crate::steps::{Content, Prepared};

/// What a step's end means for those behind it.
struct StepReport {
    outcome: StepOutcome,
    message: Option<String>,
    shell_lives: bool,
}

impl Run {
    pub(super) async fn all_steps(
        &mut self,
        scene: &Scene,
        env: &Env,
        session: &mut Session,
        prepared: &[Prepared],
    ) -> Result<(bool, Option<String>), Error> {
        let (main, after) = prepared.split_at(prepared.partition_point(|step| !step.after));
        let resumed = self.spec.resume.clone();
        let done = resumed.as_ref().map_or(0, |checkpoint| checkpoint.steps.len().min(main.len()));
        let main_env = match &resumed {
            Some(checkpoint) => checkpoint.environment(env, &scene.links, &self.spec),
            None => env.clone(),
        };
        for (number, step) in main.iter().take(done).enumerate() {
            let name = step.name.clone();
            self.tell(EventKind::StepStarted { step: number, name, after: false }).await;
            self.finish(number, step, StepOutcome::Skipped, None, Instant::now(), None).await;
        }
        let mut failed = self.series(scene, &main_env, session, &main[done..], done).await?;
        if let Some((step, _)) = &failed {
            self.shell_where_it_failed(scene, step).await;
        }
        if let Some(name) =
            self.spec.commit.clone().filter(|_| failed.is_none() && !self.cancel.is_cancelled())
        {
            failed = self.commit(scene, &main_env, &name).await.err().map(|why| ("commit".to_owned(), why));
        }
        if after.is_empty() || self.cancel.is_cancelled() {
            return Ok(ending(failed, self.cancel.is_cancelled()));
        }
        let mut env = env.clone();
        env.set("WERCKER_RESULT", if failed.is_none() { "passed" } else { "failed" });
        let (step, message) = failed.clone().unwrap_or_default();
        env.set("WERCKER_FAILED_STEP_DISPLAY_NAME", step);
        env.set("WERCKER_FAILED_STEP_MESSAGE", message);
        // What the steps left running is not there for the after-steps, as when the reference restarted the box.
        session.clean_shell(env.entries()).await?;
        self.series(scene, &env, session, after, main.len()).await?;
        Ok(ending(failed, self.cancel.is_cancelled()))
    }

    /// Steps one after the other, until one does not pass: that one's name and what went wrong.
    async fn series(
        &mut self,
        scene: &Scene,
        env: &Env,
        session: &mut Session,
        steps: &[Prepared],
        first: usize,
    ) -> Result<Option<(String, String)>, Error> {
        for (number, step) in (first..).zip(steps) {
            self.remember(env, session).await;
            let report = self.step(scene, env, session, number, step).await?;
            if report.outcome != StepOutcome::Passed {
                return Ok(Some((step.name.clone(), report.message.unwrap_or_default())));
            }
            if let Some(Some(name)) = self.checkpoints.get(number).filter(|_| !step.after) {
                self.keep(scene, session, name).await;
            }
            if !report.shell_lives && number + 1 < first + steps.len() {
                let lost = "what it and earlier steps exported is lost to the next";
                self.warn(format!("step {} ended the shell: {lost}", step.name)).await;
            }
        }
        Ok(None)
    }

    async fn step(
        &mut self,
        scene: &Scene,
        env: &Env,
        session: &mut Session,
        number: usize,
        step: &Prepared,
    ) -> Result<StepReport, Error> {
        let started = Instant::now();
        let Prepared { name, after, .. } = step.clone();
        self.tell(EventKind::StepStarted { step: number, name: name.clone(), after }).await;
        let ended = match &step.content {
            Content::Script(script) => match self.source(scene, env, session, number, script).await {
                Ok(end) => Ok(end),
                // The step is told of like any other before the run ends.
                Err(error) => {
                    self.finish(number, step, StepOutcome::Failed, None, started, Some(chain(&error))).await;
                    return Err(error);
                }
            },
            Content::Internal(config) => self.internal(scene, env, session, number, config).await,
        };
        let written = source::read_message(&scene.layout.pipeline, &step.message);
        let (outcome, code, message, shell_lives) = match ended {
            Err(reason) => (StepOutcome::Failed, None, Some(reason), true),
            Ok(StepEnd::Code { code: 0, shell_lives }) => {
                (StepOutcome::Passed, Some(0), written, shell_lives)
            }
            Ok(StepEnd::Code { code, shell_lives }) => {
                (StepOutcome::Failed, Some(code), written, shell_lives)
            }
            Ok(StepEnd::TimedOut { silent }) => {
                let Limits { command, silence } = scene.limits;
                let message = if silent {
                    format!("stopped: no output for {}", words(silence))
                } else {
                    format!("stopped: it took longer than {}", words(command))
                };
                (StepOutcome::TimedOut, None, Some(message), false)
            }
            Ok(StepEnd::Cancelled) => (StepOutcome::Aborted, None, Some("aborted".to_owned()), false),
        };
        let summary = message.clone().or_else(|| code.map(|code| format!("exit code {code}")));
        self.finish(number, step, outcome, code, started, message).await;
        Ok(StepReport { outcome, message: summary, shell_lives })
    }

    /// Runs a step's file in the session, starting a shell where there is none.
    async fn source(
        &self,
        scene: &Scene,
        env: &Env,
        session: &mut Session,
        number: usize,
        script: &str,
    ) -> Result<StepEnd, Error> {
        if !session.has_shell() {
            session.shell(env.entries()).await?;
        }
        Ok(session.step(number, script, scene.limits, &self.cancel, &self.events).await?)
    }

    /// Runs a step that is done by the engine and not in the shell; why it failed, if it did.
    async fn internal(
        &mut self,
        scene: &Scene,
        env: &Env,
        session: &mut Session,
        number: usize,
        config: &StepConfig,
    ) -> Result<StepEnd, String> {
        let mut env = env.clone();
        // What earlier steps exported counts in the properties.
        if session.has_shell() {
            match session.environment().await {
                Ok(exported) => exported.into_iter().for_each(|(name, value)| env.set(&name, value)),
                Err(error) => return Err(format!("cannot read the shell's variables: {}", chain(&error))),
            }
        }
        let prefix = self.container_name(None);
        let context = self.context(scene, &env, number, &prefix);
        let limit = if internal::waits_for_people(config) { Duration::MAX } else { scene.limits.command };
        let shell_lives = session.has_shell();
        tokio::select! {
            result = internal::run(config, &context) => {
                result.map(|()| StepEnd::Code { code: 0, shell_lives }).map_err(|error| chain(&error))
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
        let variables = match session.has_shell() {
            true => session.environment().await.unwrap_or_default(),
            false => Vec::new(),
        };
        // The step itself is among them.
        let steps = self.steps.iter().map(|step| step.name.clone()).collect();
        let started = Instant::now();
        let moment = Moment { name, container: &scene.container, layout: &scene.layout, steps, variables };
        let saved = tokio::select! {
            saved = checkpoint::save(&self.engine, &self.spec, dir, moment) => saved,
            () = self.cancel.cancelled() => return,
        };
        match saved {
            Ok(secret) => {
                self.note(format!("checkpoint {name} is kept ({} ms)", millis(started))).await;
                for variable in secret {
                    let why = "the value of a hidden variable is in it";
                    self.warn(format!("checkpoint {name} is without the variable {variable}: {why}")).await;
                }
            }
            Err(error) => self.warn(format!("checkpoint {name} is not kept: {}", chain(&error))).await,
        }
    }

    async fn finish(
        &mut self,
        number: usize,
        step: &Prepared,
        outcome: StepOutcome,
        exit_code: Option<i32>,
        started: Instant,
        message: Option<String>,
    ) {
        let Prepared { name, after, .. } = step.clone();
        let millis = millis(started);
        self.steps.push(StepResult { name: name.clone(), outcome, exit_code, millis, after });
        let (step, soft) = (number, false);
        self.tell(EventKind::StepFinished { step, name, outcome, exit_code, millis, after, message, soft })
            .await;
    }
}
