//! `internal/docker-build`: an image from a Dockerfile in the source, as the steps have left it.
//!
//! Guarantees: what is built is the source in the box, read while it is sent, without what
//! `.dockerignore` names.
//!
//! It must not know what becomes of the image.

use std::collections::BTreeMap;

use super::archive::{self, Part, pack};
use super::ignore::Ignore;
use super::properties::Properties;
use super::{Context, Error};
use crate::registry;

pub(super) async fn build(properties: &Properties<'_>, context: &Context<'_>) -> Result<(), Error> {
    let given = properties.needed("image-name")?;
    // Named after the run, as the reference did: two runs of one file do not take each other's image.
    let (name, tag) = registry::split(&format!("{}{given}", context.spec.run_id))?;
    let full = format!("{name}:{}", tag.as_deref().unwrap_or("latest"));
    let map = |pairs: Vec<(String, String)>| serde_json::json!(pairs.into_iter().collect::<BTreeMap<_, _>>());
    let mut options = vec![
        ("t", full.clone()),
        ("buildargs", map(properties.pairs("build-args")?).to_string()),
        ("labels", map(properties.pairs("labels")?).to_string()),
    ];
    let dockerfile = properties.text("dockerfile").unwrap_or_else(|| "Dockerfile".to_owned());
    options.push(("dockerfile", dockerfile.clone()));
    let hosts = properties.list("extra-hosts");
    if !hosts.is_empty() {
        options.push(("extrahosts", hosts.join(",")));
    }
    for (property, option) in [("no-cache", "nocache"), ("squash", "squash"), ("q", "q")] {
        if properties.flag(property) {
            options.push((option, "1".to_owned()));
        }
    }
    let (files, wrong) = registry::read(&context.spec.auth_files);
    for reason in wrong {
        pull_warn(context, reason).await;
    }
    let mut credentials = registry::all(&files);
    if let Some(text) = properties.text("registry-auth-config") {
        let given = registry::given(&text).map_err(|error| Error::Property {
            name: "registry-auth-config",
            // Not the text itself: it holds passwords.
            why: format!(
                "line {}, column {}: not JSON as {{\"HOST\": {{\"username\": .., \"password\": ..}}}}",
                error.line(),
                error.column()
            ),
        })?;
        credentials.extend(given);
    }
    let path = match properties.text("context") {
        Some(below) => format!("{}/{}", context.root, below.trim_matches('/')),
        None => context.root.to_owned(),
    };
    let ignored = archive::text(context, &format!("{path}/.dockerignore")).await?.unwrap_or_default();
    let ignore = Ignore::parse(&ignored, &dockerfile);
    let archive = pack(Vec::new(), vec![Part::of(context, &path, "").await?.without(ignore)]);
    context.made.add_image(&full);
    let mut build = context.engine.build(&options, &credentials, archive).await?;
    let quiet = properties.flag("q");
    while let Some(line) = build.next().await {
        let line = line?;
        if !quiet {
            context.say(line).await;
        }
    }
    context.made.things().built.insert(given, full.clone());
    context.say(format!("built {full}")).await;
    Ok(())
}

async fn pull_warn(context: &Context<'_>, reason: String) {
    use crate::pull::Tell as _;
    context.warn(format!("credentials cannot be read: {reason}")).await;
}
