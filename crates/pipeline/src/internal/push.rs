//! `internal/docker-push` and `internal/docker-scratch-push`: an image of the box, or of nothing but its output.
//!
//! Guarantees: neither the shell's variables nor the run's labels nor the directory of control files come into an
//! image; the names that an image had on this machine before a push, they have again after it.
//!
//! It must not know how containers come about.

use std::fmt::Write as _;

use super::archive::{Part, pack};
use super::properties::Properties;
use super::{Context, Error, output_dir};
use crate::engine;
use crate::leftovers;
use crate::pull::{self, Tell, Tries};
use crate::registry::{self, Credentials};
use crate::source;

/// The name under which an image is put together, in an archive that goes to the engine.
const SOURCE: &str = "source";
const OUTPUT: &str = "output";

/// What an image says of itself, as instructions of a Dockerfile.
struct Description {
    lines: Vec<String>,
}

impl Description {
    /// What the step's properties say.
    async fn of(properties: &Properties<'_>, context: &Context<'_>) -> Result<Description, Error> {
        let mut lines = Vec::new();
        let mut add = |line: String| lines.push(line);
        for port in properties.list("ports") {
            // `[ip:][host:]container[/proto]`: an image knows of the container's only.
            add(format!("EXPOSE {}", port.rsplit(':').next().unwrap_or_default()));
        }
        let volumes = properties.list("volumes");
        if !volumes.is_empty() {
            add(format!("VOLUME {}", json(&volumes)));
        }
        for (name, value) in properties.pairs("env")? {
            if let Some(hidden) = hidden_in(&value, context) {
                let text = format!(
                    "the image's variable {name} holds the value of the hidden variable {hidden}: \
                     everybody who has the image can read it"
                );
                context.warn(text).await;
            }
            add(format!("ENV {name}={}", quoted("env", &value)?));
        }
        for (name, value) in properties.pairs("labels")? {
            add(format!("LABEL {}={}", quoted("labels", &name)?, quoted("labels", &value)?));
        }
        for (property, instruction) in
            [("working-dir", "WORKDIR"), ("user", "USER"), ("stopsignal", "STOPSIGNAL")]
        {
            if let Some(text) = properties.text(property) {
                if text.contains('\n') {
                    return Err(Error::Property { name: "working-dir", why: "it has a line break".into() });
                }
                add(format!("{instruction} {}", text.replace('$', "\\$")));
            }
        }
        Ok(Description { lines })
    }

    /// How it is started. Where the step says nothing, `known` is what counts.
    fn start(&mut self, properties: &Properties<'_>, known: (&[String], &[String])) {
        let (entrypoint, cmd) = (properties.words("entrypoint"), properties.words("cmd"));
        // As in a Dockerfile: another entrypoint does not get the arguments that were meant for the old one.
        let old_cmd = if entrypoint.is_empty() { known.1 } else { &[] };
        let entrypoint = if entrypoint.is_empty() { known.0 } else { &entrypoint };
        let cmd = if cmd.is_empty() { old_cmd } else { &cmd };
        self.lines.push(format!("ENTRYPOINT {}", json(entrypoint)));
        self.lines.push(format!("CMD {}", json(cmd)));
    }
}

/// A value between quotes, as ENV and LABEL read it: nothing in it is filled in a second time.
fn quoted(name: &'static str, value: &str) -> Result<String, Error> {
    if value.contains(['\n', '\r', '\0']) {
        return Err(Error::Property {
            name,
            why: "a value has a line break, which no image can hold".into(),
        });
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        if matches!(c, '"' | '\\' | '$') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    Ok(out)
}

fn json(words: &[String]) -> String {
    serde_json::Value::from(words.to_vec()).to_string()
}

/// The hidden variable whose value is in `text`.
fn hidden_in<'a>(text: &str, context: &'a Context<'_>) -> Option<&'a str> {
    let mut hidden = context.spec.hidden_env.iter();
    hidden.find(|(_, value)| value.len() > 3 && text.contains(value.as_str())).map(|(name, _)| name.as_str())
}

/// The box as it is now.
pub(super) async fn push(properties: &Properties<'_>, context: &Context<'_>) -> Result<(), Error> {
    let names = Names::of(properties)?;
    let image = match properties.text("image-name") {
        Some(name) => context.made.built(&name).ok_or_else(|| Error::Property {
            name: "image-name",
            why: format!("no internal/docker-build before this step has made {name}"),
        })?,
        None => commit(properties, context).await?,
    };
    hand_over(&image, &names, properties, context).await
}

/// Makes an image of the box: its files, and the source and output trees, which are mounted and so not among them.
pub(super) async fn commit(properties: &Properties<'_>, context: &Context<'_>) -> Result<String, Error> {
    let author = properties.text("author").unwrap_or_default();
    let message = properties.text("message").unwrap_or_default();
    context.say("committing the box".to_owned()).await;
    let base = context.made.own_name(context.prefix);
    context.engine.commit(context.container, &base, &author, &message).await?;

    let mut description = Description::of(properties, context).await?;
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let known = context.image;
    description.start(properties, (&list(&known.entrypoint), &list(&known.cmd)));
    let mut dockerfile = format!("FROM {base}\n");
    let owner = known.user.as_deref().filter(|user| !user.is_empty()).unwrap_or("0:0");
    for (from, to) in [(SOURCE, context.root), (OUTPUT, "/pipeline/output")] {
        writeln!(dockerfile, "COPY --chown={owner} {}", json(&[from.to_owned(), to.to_owned()])).ok();
    }
    // The box is started in `/` for the shell's sake.
    let dir = known.working_dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or("/");
    writeln!(dockerfile, "WORKDIR {dir}").ok();
    // Or what is started from the image would be taken for something that a run has left.
    for label in leftovers::labels("", "", "").into_keys() {
        writeln!(dockerfile, "LABEL {label}=\"\"").ok();
    }
    for line in &description.lines {
        writeln!(dockerfile, "{line}").ok();
    }
    if !author.is_empty() {
        writeln!(dockerfile, "MAINTAINER {}", quoted("author", &author)?.trim_matches('"')).ok();
    }
    let parts = vec![
        Part::of(context, context.root, SOURCE).await?,
        Part::of(context, "/pipeline/output", OUTPUT).await?,
    ];
    let context_archive = pack(vec![("Dockerfile", dockerfile)], parts);
    // Podman: one layer for all instructions, and nothing kept for the next time.
    let image = context.made.own_name(context.prefix);
    let options = [("t", image.clone()), ("layers", "false".to_owned()), ("nocache", "true".to_owned())];
    let mut build = context.engine.build(&options, &[], context_archive).await?;
    while let Some(line) = build.next().await {
        let line = line?;
        tracing::debug!(line, "committing");
    }
    Ok(image)
}

/// Nothing but the output directory, else the source.
pub(super) async fn scratch(properties: &Properties<'_>, context: &Context<'_>) -> Result<(), Error> {
    let names = Names::of(properties)?;
    let mut description = Description::of(properties, context).await?;
    if !properties.words("entrypoint").is_empty() {
        description.lines.push(format!("ENTRYPOINT {}", json(&properties.words("entrypoint"))));
    }
    if !properties.words("cmd").is_empty() {
        description.lines.push(format!("CMD {}", json(&properties.words("cmd"))));
    }
    let from = if source::has_entries(&output_dir(context)) { "/pipeline/output" } else { context.root };
    context.say(format!("making an image of {from}")).await;
    let layer = pack(Vec::new(), vec![Part::of(context, from, "").await?]);
    let image = context.made.own_name(context.prefix);
    context.engine.import(&image, &description.lines, layer).await?;
    hand_over(&image, &names, properties, context).await
}

/// Where an image is to go.
struct Names {
    name: String,
    tags: Vec<String>,
}

impl Names {
    fn of(properties: &Properties<'_>) -> Result<Names, Error> {
        let repository = properties.needed("repository")?;
        let (name, tag) = registry::split(&repository)?;
        let name = registry::qualify(&name, &|key| properties.option(key));
        let mut tags = properties.list("tag");
        if tags.is_empty() {
            tags.push(tag.unwrap_or_else(|| "latest".to_owned()));
        }
        if let Some(wrong) = tags.iter().find(|tag| !registry::is_tag(tag)) {
            let why = format!("`{wrong}` is no tag: letters, digits, `.`, `_` and `-`, 128 at most");
            return Err(Error::Property { name: "tag", why });
        }
        tags.dedup();
        Ok(Names { name, tags })
    }
}

/// Names an image and pushes it, tag by tag.
async fn hand_over(
    image: &str,
    names: &Names,
    properties: &Properties<'_>,
    context: &Context<'_>,
) -> Result<(), Error> {
    let Names { name, tags } = names;
    let option = |key: &str| properties.option(key);
    if context.spec.docker_local {
        for tag in tags {
            context.engine.tag(image, name, tag).await?;
            context.say(format!("tagged {name}:{tag}; it is not pushed")).await;
        }
        return Ok(());
    }
    let (credentials, hint) = pull::credentials(name, &option, context.spec.logins(), context).await?;
    for tag in tags {
        let full = format!("{name}:{tag}");
        let before = context.engine.image_id(&full).await?;
        if before.is_none() {
            context.made.add_image(&full);
        }
        context.engine.tag(image, name, tag).await?;
        context.say(format!("pushing {full}")).await;
        let mut tries = Tries::default();
        let pushed = loop {
            match push_once(name, tag, credentials.as_ref(), context).await {
                Ok(digest) => break Ok(digest),
                Err(error) => match tries.again(&full, error, engine::is_passing, context).await {
                    Ok(()) => {}
                    Err(error) => break Err(error),
                },
            }
        };
        // On this machine the name means again what it did.
        match before {
            Some(before) => context.engine.tag(&before, name, tag).await?,
            None => {
                context.engine.remove_image(&full).await?;
                context.made.drop_image(&full);
            }
        }
        if let (Err(_), Some(hint)) = (&pushed, &hint) {
            context.warn(hint.clone()).await;
        }
        let digest = pushed?;
        let digest = if digest.is_empty() { String::new() } else { format!(" as {name}@{digest}") };
        context.say(format!("pushed {full}{digest}")).await;
    }
    Ok(())
}

/// The digest under which the registry keeps it.
async fn push_once(
    name: &str,
    tag: &str,
    credentials: Option<&Credentials>,
    context: &Context<'_>,
) -> Result<String, engine::Error> {
    let mut push = context.engine.push(name, tag, credentials).await?;
    while let Some(line) = push.next().await {
        let line = line?;
        tracing::debug!(line, "pushing");
    }
    Ok(push.digest().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_as_they_are() {
        assert_eq!(quoted("env", r#"a "b" \c $d"#).unwrap(), r#""a \"b\" \\c \$d""#);
        assert!(quoted("env", "a\nb").is_err());
        assert_eq!(json(&["a".into(), "b \"c".into()]), r#"["a","b \"c"]"#);
    }
}
