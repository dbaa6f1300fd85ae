//! What is left of a step that failed: a shell for a person in its box, and its state for another run.
//!
//! Guarantees: the box is as the step left it, and the shell has the variables and the directory in which the step
//! ended, or those that it began with where it cannot tell (it was killed, it is still there, it has a trap of its own for
//! the shell's end); after-steps and the clean-up come when the person has left.
//!
//! It must not know where the person's terminal is.

use super::steps::exported;
use super::{Run, Scene, chain};
use crate::checkpoint::{self, Moment};
use crate::env::Env;
use crate::pull::Tell as _;
use crate::session::Session;
use crate::shell;

impl Run {
    /// Notes what the shell exports, before a step may take it along.
    pub(super) async fn remember(&mut self, session: &mut Session) {
        if !session.knows_exports() {
            return;
        }
        match exported(&self.exported, session).await {
            Ok(exported) => self.exported = exported,
            Err(error) if !self.exported_unknown => {
                self.exported_unknown = true;
                let lost = "a step that ends its shell takes what was exported along";
                self.warn(format!("{}; {lost}", chain(&error))).await;
            }
            Err(_) => {}
        }
    }

    /// What the shell exports, or did when it ended; where nobody can tell, what is known from before the step.
    pub(super) async fn known_exports(&self, session: &mut Session) -> Env {
        exported(&self.exported, session).await.unwrap_or_else(|_| self.exported.clone())
    }

    /// Keeps the state before the step that failed, as far as it can be told from what that step did.
    pub(super) async fn keep_failure(&mut self, scene: &Scene) {
        let Some(dir) = self.spec.checkpoint_dir.clone().filter(|_| self.spec.checkpoint_on_failure) else {
            return;
        };
        if self.is_aborted() {
            return;
        }
        let mut steps: Vec<String> = self.steps.iter().map(|step| step.name.clone()).collect();
        steps.pop();
        let name = checkpoint::name_of_failure(self.spec.source.dir());
        let moment = Moment {
            name: &name,
            container: &scene.container,
            layout: &scene.layout,
            steps,
            variables: self.exported.entries().to_vec(),
            trees: false,
        };
        let whole = self.whole.clone();
        let saved = tokio::select! {
            saved = checkpoint::save(&self.engine, &self.spec, &dir, moment) => saved,
            () = whole.cancelled() => return,
        };
        match saved {
            Ok((dir, _)) => self.failure = Some(dir),
            Err(error) => self.warn(format!("the state of the failure is not kept: {}", chain(&error))).await,
        }
    }

    /// Takes the trees as well, when nobody writes to them any more.
    pub(super) async fn leave_failure(&mut self) {
        let Some(dir) = self.failure.take() else { return };
        let work_dir = self.spec.work_dir.clone();
        let left = tokio::task::spawn_blocking(move || checkpoint::leave(&dir, &work_dir));
        if let Ok(Err(error)) = left.await {
            self.warn(format!("what the failed run changed is not kept: {error}")).await;
        }
    }

    /// Lets whoever started the run look around, if that is wanted.
    pub(super) async fn shell_where_it_failed(&self, scene: &Scene, session: &mut Session, step: &str) {
        let Some(terminal) = self.spec.terminal.as_ref().filter(|_| self.spec.shell_on_failure) else {
            return;
        };
        if self.cancel.is_cancelled() {
            return;
        }
        self.note(format!("step {step} failed: here is a shell in its box, which ends with `exit`")).await;
        let env = self.known_exports(session).await;
        let dir = env.get("PWD").or_else(|| env.get("WERCKER_SOURCE_DIR")).unwrap_or("/");
        let command = [
            "/bin/sh".to_owned(),
            "-c".to_owned(),
            format!("cd {} 2>/dev/null; {}", shell::quote(dir), shell::BEST),
        ];
        let attached = async {
            let opened =
                self.engine.interactive(&scene.container, &command, None, env.entries(), terminal.size());
            let opened = opened.await;
            let shell = opened.map_err(|error| chain(&error))?;
            terminal.attach(shell).await.map_err(|error| error.to_string())
        };
        tokio::select! {
            result = attached => if let Err(why) = result {
                self.warn(format!("there is no shell in the box: {why}")).await;
            },
            () = self.cancel.cancelled() => {}
        }
    }
}
