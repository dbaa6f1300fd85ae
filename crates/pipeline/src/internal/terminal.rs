//! `internal/shell`: a person's shell in the box.
//!
//! It must not know where the person's terminal is: the run is given one, or none.

use super::properties::Properties;
use super::{Context, Error};
use crate::shell;

pub(super) async fn shell(properties: &Properties<'_>, context: &Context<'_>) -> Result<(), Error> {
    let Some(terminal) = &context.spec.terminal else {
        return Err(Error::Refused(
            "there is no terminal for a shell: start the run by hand, from a terminal".to_owned(),
        ));
    };
    let code = properties.text("code").unwrap_or_default();
    let then = properties.text("cmd").unwrap_or_else(|| shell::BEST.to_owned());
    let dir = context.env.get("WERCKER_SOURCE_DIR").unwrap_or("/");
    let script = format!("cd {} || exit 1\n{code}\n{then}", shell::quote(dir));
    let command = ["/bin/sh".to_owned(), "-c".to_owned(), script];
    let env = context.env.entries();
    let shell = context.engine.interactive(context.container, &command, None, env, terminal.size()).await?;
    let resizer = shell.resizer.clone();
    context.say("a shell in the box; it ends with `exit`".to_owned()).await;
    terminal.attach(shell).await.map_err(context.files("the terminal broke off"))?;
    match resizer.code().await? {
        Some(0) | None => Ok(()),
        // The person's last command is no verdict on the pipeline, as with the reference.
        Some(code) => {
            context.say(format!("the shell ended with code {code}")).await;
            Ok(())
        }
    }
}
