//! A shell for a person in the box of a step that failed.
//!
//! Guarantees: the box is as the step left it, and the variables are those that the step began with; after-steps and
//! the clean-up come when the person has left.
//!
//! It must not know where the person's terminal is.

use super::{Run, Scene, chain};
use crate::env::Env;
use crate::pull::Tell as _;
use crate::session::Session;
use crate::shell;

const SHELL: &str = "if [ -x /bin/bash ]; then exec /bin/bash; fi; exec /bin/sh";

impl Run {
    /// Notes what the shell exports, before a step may take it along.
    pub(super) async fn remember(&mut self, env: &Env, session: &mut Session) {
        if !self.spec.shell_on_failure {
            return;
        }
        let mut exported = env.clone();
        if session.has_shell() {
            match session.environment().await {
                Ok(found) => found.into_iter().for_each(|(name, value)| exported.set(&name, value)),
                Err(error) => tracing::debug!(%error, "cannot read the shell's variables"),
            }
        }
        self.exported = exported;
    }

    /// Lets whoever started the run look around, if that is wanted.
    pub(super) async fn shell_where_it_failed(&self, scene: &Scene, step: &str) {
        let Some(terminal) = self.spec.terminal.as_ref().filter(|_| self.spec.shell_on_failure) else {
            return;
        };
        if self.cancel.is_cancelled() {
            return;
        }
        self.note(format!("step {step} failed: here is a shell in its box, which ends with `exit`")).await;
        let dir = self.exported.get("WERCKER_SOURCE_DIR").unwrap_or("/");
        let command =
            ["/bin/sh".to_owned(), "-c".to_owned(), format!("cd {} 2>/dev/null; {SHELL}", shell::quote(dir))];
        let env = self.exported.entries();
        let attached = async {
            let opened =
                self.engine.interactive(&scene.container, &command, None, env, terminal.size()).await;
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
