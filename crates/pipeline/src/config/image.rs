//! Names of images: `[registry[:port]/]name[:tag][@digest]`.

use super::BoxConfig;

impl BoxConfig {
    /// The full name of the image, variables filled in; a name without tag and digest gets `:latest`.
    #[must_use]
    pub fn image(&self, lookup: &dyn Fn(&str) -> Option<String>) -> String {
        let id = interpolate(&self.id, lookup);
        let (mut name, written_tag, digest) = split(&id);
        let tag = self.tag.as_ref().map(|tag| interpolate(tag, lookup)).or(written_tag);
        name = name.to_lowercase();
        if let Some(host) = self.registry_host(lookup)
            && !has_host(&name)
        {
            name = format!("{host}/{name}");
        }
        match (tag, digest) {
            // A digest says exactly which image; engines refuse a pull of both.
            (_, Some(digest)) => format!("{name}@{digest}"),
            (Some(tag), None) => format!("{name}:{tag}"),
            (None, None) => format!("{name}:latest"),
        }
    }

    /// The name other containers know it by: `name`, else the last part of the image's name.
    #[must_use]
    pub fn alias(&self) -> String {
        let (name, _, _) = split(&self.id);
        self.name.clone().unwrap_or_else(|| name.rsplit('/').next().unwrap_or_default().to_owned())
    }

    #[must_use]
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.iter().find(|(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    fn registry_host(&self, lookup: &dyn Fn(&str) -> Option<String>) -> Option<String> {
        let registry = interpolate(self.option("registry")?, lookup);
        let rest = registry.split_once("://").map_or(registry.as_str(), |(_, rest)| rest);
        let host = rest.split('/').next().unwrap_or_default();
        (!host.is_empty()).then(|| host.to_owned())
    }
}

/// Name, tag and digest.
fn split(id: &str) -> (String, Option<String>, Option<String>) {
    let (rest, digest) = match id.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.to_owned())),
        None => (id, None),
    };
    match rest.rsplit_once(':') {
        // A colon before a slash belongs to a registry's port.
        Some((name, tag)) if !tag.contains('/') => (name.to_owned(), Some(tag.to_owned()), digest),
        _ => (rest.to_owned(), None, digest),
    }
}

fn has_host(name: &str) -> bool {
    name.split_once('/').is_some_and(|(first, _)| first.contains(['.', ':']) || first == "localhost")
}

/// Fills in `$NAME` and `${NAME}`; an unknown name becomes nothing, as in a shell.
#[must_use]
pub fn interpolate(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let braced = rest.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let plain = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
        if let Some((name, after)) = braced {
            out.push_str(&lookup(name).unwrap_or_default());
            rest = after;
        } else if plain > 0 && !rest.starts_with(|c: char| c.is_ascii_digit()) {
            out.push_str(&lookup(&rest[..plain]).unwrap_or_default());
            rest = &rest[plain..];
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(id: &str, tag: Option<&str>, registry: Option<&str>) -> String {
        let config = BoxConfig {
            id: id.into(),
            tag: tag.map(Into::into),
            options: registry.map(|r| ("registry".to_owned(), r.to_owned())).into_iter().collect(),
            ..BoxConfig::default()
        };
        config.image(&|name| (name == "V").then(|| "1.2".to_owned()))
    }

    #[test]
    fn names_images() {
        for (id, tag, registry, want) in [
            ("ruby", None, None, "ruby:latest"),
            ("ruby:2.0", None, None, "ruby:2.0"),
            ("ruby:2.0", Some("3"), None, "ruby:3"),
            ("ruby", Some("$V"), None, "ruby:1.2"),
            ("ruby:${V}-x", None, None, "ruby:1.2-x"),
            ("host:5000/a/b", None, None, "host:5000/a/b:latest"),
            ("host:5000/a/b:t", None, None, "host:5000/a/b:t"),
            ("a@sha256:abc", None, None, "a@sha256:abc"),
            ("host:5000/a:t@sha256:abc", None, None, "host:5000/a@sha256:abc"),
            ("Me/App", None, Some("https://quay.io/v1"), "quay.io/me/app:latest"),
            ("gcr.io/x", None, Some("https://quay.io"), "gcr.io/x:latest"),
        ] {
            assert_eq!(image(id, tag, registry), want, "{id}");
        }
    }

    #[test]
    fn aliases() {
        for (id, want) in [("redis", "redis"), ("host:5000/me/redis:3", "redis"), ("a/b@sha256:c", "b")] {
            assert_eq!(BoxConfig { id: id.into(), ..BoxConfig::default() }.alias(), want);
        }
    }

    #[test]
    fn leaves_lone_dollars() {
        assert_eq!(interpolate("a$ $1 ${x $$", &|_| None), "a$ $1 ${x $$");
    }
}
