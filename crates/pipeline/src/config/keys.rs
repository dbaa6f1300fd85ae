//! Every key that the file may have, in one place: the reader takes from here what it knows and suggests, and the
//! JSON schema and the reference are made from it.

/// A key of a map.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// Whether it needs `sealift: 1`.
    pub native: bool,
    pub kind: Kind,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// A value, as YAML in one line.
    pub example: &'static str,
}

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Text, a number or a boolean, which becomes text.
    Text,
    Bool,
    /// A whole number within these limits.
    Integer(i64, i64),
    /// `90s`, `20m`, `1h30m`.
    Duration,
    /// One of these words.
    Word(&'static [&'static str]),
    List(&'static Kind),
    /// One of it, or a list.
    OneOrList(&'static Kind),
    /// A map with names of the author's choice.
    Map(&'static Kind),
    /// A map of [`MAPS`].
    Of(&'static str),
    Any(&'static [Kind]),
}

impl Kind {
    /// Whether a list can be meant.
    pub(super) fn takes_list(&self) -> bool {
        match self {
            Kind::List(_) | Kind::OneOrList(_) => true,
            Kind::Any(kinds) => kinds.iter().any(Kind::takes_list),
            _ => false,
        }
    }
}

/// A kind of map.
#[derive(Debug)]
pub struct KeyMap {
    pub name: &'static str,
    pub about: &'static str,
    pub keys: &'static [Key],
    /// What other keys may hold; none: there are no others.
    pub others: Option<Kind>,
    pub required: &'static [&'static str],
}

const fn key(name: &'static str, kind: Kind, example: &'static str, about: &'static str) -> Key {
    Key { name, native: false, kind, about, example }
}

const fn native(name: &'static str, kind: Kind, example: &'static str, about: &'static str) -> Key {
    Key { name, native: true, kind, about, example }
}

const TEXTS: Kind = Kind::OneOrList(&Kind::Text);
const BOXED: Kind = Kind::Any(&[Kind::Text, Kind::Of("box")]);
const STEPS: Kind = Kind::List(&Kind::Of("step"));
const WHEN_KIND: Kind = Kind::OneOrList(&Kind::Of("when"));
const RETRY_KIND: Kind = Kind::Any(&[Kind::Integer(0, 9), Kind::Of("retry")]);
const SOFT_FAIL: Kind = Kind::Any(&[Kind::Bool, Kind::OneOrList(&Kind::Integer(1, 255))]);

pub const TOP: &[Key] = &[
    native(
        "sealift",
        Kind::Integer(1, 1),
        "1",
        "The version of Sealift's own form. Without it the file is read as wercker read it.",
    ),
    key("box", BOXED, "debian:12", "The image that pipelines run in."),
    key(
        "services",
        Kind::List(&BOXED),
        "[redis, {id: postgres, name: db}]",
        "Containers that run beside every pipeline.",
    ),
    key(
        "command-timeout",
        Kind::Integer(0, 60),
        "30",
        "Minutes that one step may take; 25 without it, 60 at most.",
    ),
    key(
        "no-response-timeout",
        Kind::Integer(0, 60),
        "10",
        "Minutes that a step may be silent; 5 without it, 60 at most.",
    ),
    key("source-dir", Kind::Text, "src", "A directory of the source; the working directory of steps."),
    key("ignore-file", Kind::Text, ".buildignore", "A file of patterns of what is left out of the source."),
    key(
        "workflows",
        Kind::List(&Kind::Of("workflow")),
        "[{name: ci, pipelines: [{name: build}]}]",
        "Graphs of pipelines.",
    ),
];

/// The settings that a pipeline and its place in a workflow share.
macro_rules! settings {
    ($($key:expr),* $(,)?) => {
        &[
            $($key,)*
            native("when", WHEN_KIND, "{branch: [main, 'release/*'], tag: 'v*'}", "Runs only then; otherwise it is left out."),
            native("matrix", Kind::Of("matrix"), "{RUBY: ['3.2', '3.3'], DB: [pg, mysql]}", "Runs once for each combination of the values."),
            native("timeout", Kind::Duration, "20m", "How long one attempt may take, 24h at most."),
            native("retry", RETRY_KIND, "2", "How many times it is tried again after a failure, or a map."),
            native("soft-fail", SOFT_FAIL, "[3, 4]", "A failure, or only one with these exit codes, does not fail what is above."),
            native("secrets", Kind::List(&Kind::Any(&[Kind::Text, Kind::Of("secret")])), "[TOKEN, {from: DEPLOY_KEY, as: KEY}]", "Secrets that it is given, as variables."),
            native("cache", Kind::Of("cache"), "{key: 'gems-{{ checksum Gemfile.lock }}', paths: [vendor]}", "Paths that are kept from run to run."),
            native("artifacts", Kind::Of("artifacts"), "{from: [build]}", "Outputs of other pipelines that are laid over its source."),
            native("publish", TEXTS, "[dist, report.xml]", "Paths of the source that become the output."),
            native("approval", Kind::Any(&[Kind::Bool, Kind::Text]), "Deploy to production?", "A person has to agree before it starts."),
            native("concurrency", Kind::Any(&[Kind::Text, Kind::Of("concurrency")]), "deploy", "Of one group only one runs at a time."),
            native("needs", TEXTS, "[build]", "Pipelines that must have passed before."),
        ]
    };
}

pub const PIPELINE: &[Key] = settings![
    key("box", BOXED, "golang:1.22", "The image of this pipeline."),
    key("services", Kind::List(&BOXED), "[]", "The services of this pipeline; an empty list means none."),
    key("steps", STEPS, "[{script: {code: make}}]", "What is done, in order, up to the first failure."),
    key("after-steps", STEPS, "[{script: {code: ./tell}}]", "What is done after that, passed or failed."),
    key("base-path", Kind::Text, "/go/src/app", "Where the source lies in the container."),
    key("docker", Kind::Bool, "true", "Whether the pipeline gets a container engine."),
];

pub const BOX: &[Key] = &[
    key("id", Kind::Text, "postgres:16", "The image: `[registry/]name[:tag][@digest]`."),
    key("tag", Kind::Text, "16", "The tag, instead of the one in `id`."),
    key("name", Kind::Text, "db", "A service's name in the network."),
    key("cmd", Kind::Text, "sh -c 'sleep 60'", "The command, instead of the image's."),
    key("entrypoint", Kind::Text, "/entry.sh", "The entry point, instead of the image's."),
    key(
        "env",
        Kind::Map(&Kind::Text),
        "{POSTGRES_PASSWORD: x}",
        "Variables; without `sealift: 1` their names become upper case.",
    ),
    key(
        "ports",
        Kind::List(&Kind::Text),
        "['8080:80']",
        "Ports to publish: `[ip:][host:]container[/proto]`.",
    ),
    key(
        "volumes",
        Kind::Text,
        "/data:/data",
        "Directories of the host: `host[:guest]`, several with spaces between.",
    ),
    key("url", Kind::Text, "file://./db", "A service that is built from this directory first."),
    key("registry", Kind::Text, "quay.io", "The registry of an image without one."),
    key("username", Kind::Text, "$USER", "For the registry."),
    key("password", Kind::Text, "$PASSWORD", "For the registry."),
    key(
        "aws-region",
        Kind::Text,
        "eu-west-1",
        "The region of Amazon's registry, where its name does not tell it.",
    ),
    key("aws-access-key", Kind::Text, "$KEY", "A key that Amazon's registry gives a password for."),
    key("aws-secret-key", Kind::Text, "$SECRET", "The secret that belongs to `aws-access-key`."),
    key("aws-registry-id", Kind::Text, "'123456789012'", "The account that Amazon's registry belongs to."),
    key("aws-strict-auth", Kind::Bool, "true", "Not used: the registry says itself what the keys may do."),
    key("azure-client-id", Kind::Text, "$ID", "The user of Azure's registry: a service principal."),
    key("azure-client-secret", Kind::Text, "$SECRET", "The password of that service principal."),
    key("azure-subscription-id", Kind::Text, "$ID", "Not used: Azure's registry does not ask for it."),
    key("azure-tenant-id", Kind::Text, "$ID", "Not used: Azure's registry does not ask for it."),
    key("azure-resource-group", Kind::Text, "group", "Not used: Azure's registry does not ask for it."),
    key("azure-registry-name", Kind::Text, "name", "Azure's registry as `NAME.azurecr.io`."),
    key("azure-login-server", Kind::Text, "name.azurecr.io", "The host of Azure's registry."),
    native("ready", Kind::Of("ready"), "{port: 5432, timeout: 30s}", "When a service counts as started."),
    native("aliases", TEXTS, "[db, database]", "More names in the network."),
    native("user", Kind::Text, "1000:1000", "The user of the container's processes."),
    native("memory", Kind::Text, "512m", "A limit: bytes, or with `k`, `m` or `g`."),
    native("cpus", Kind::Text, "1.5", "A limit: how many CPUs it may use."),
];

/// Properties that any step may have, whatever it does.
pub const STEP: &[Key] = &[
    key("name", Kind::Text, "run the tests", "What people see."),
    key("cwd", Kind::Text, "$WERCKER_ROOT/web", "The directory it runs in."),
    key("checkpoint", Kind::Text, "built", "Keeps the box as an image after this step."),
    native("when", WHEN_KIND, "{branch: main}", "Runs only then; otherwise it is left out."),
    native(
        "retry",
        RETRY_KIND,
        "{attempts: 3, delay: 10s}",
        "How many times it is tried again after a failure, or a map.",
    ),
    native(
        "soft-fail",
        SOFT_FAIL,
        "true",
        "A failure, or only one with these exit codes, does not fail the pipeline.",
    ),
    native("timeout", Kind::Duration, "90s", "How long one attempt may take, 24h at most."),
    native("env", Kind::Map(&Kind::Text), "{RUST_LOG: debug}", "Variables for this step alone."),
];

/// What a script step reads besides.
pub const SCRIPT: &[Key] = &[key("code", Kind::Text, "make test", "Commands of the shell.")];

pub const WORKFLOW: &[Key] = &[
    key("name", Kind::Text, "ci", "What it is called by."),
    key(
        "pipelines",
        Kind::List(&Kind::Any(&[Kind::Text, Kind::Of("place")])),
        "[{name: build}, {name: test, requires: [build]}]",
        "Its pipelines and what they require.",
    ),
    native(
        "stages",
        Kind::List(&Kind::Any(&[
            Kind::Text,
            Kind::Of("place"),
            Kind::List(&Kind::Any(&[Kind::Text, Kind::Of("place")])),
        ])),
        "[build, [test, lint], {pipeline: deploy, approval: true}]",
        "Its pipelines one after the other; those in a list of their own side by side.",
    ),
];

pub const PLACE: &[Key] = settings![
    key("name", Kind::Text, "test", "A name within the workflow, and the pipeline unless that is named too."),
    key("pipelineName", Kind::Text, "build", "The pipeline of the file."),
    key(
        "requires",
        Kind::List(&Kind::Text),
        "[build]",
        "Names of this workflow that must have passed before."
    ),
    key("artifactPipeline", Kind::Text, "build", "Whose output is the source."),
    key("envFile", Kind::Text, "test.env", "A file of variables."),
    native("pipeline", Kind::Text, "build", "The pipeline of the file; the same as `pipelineName`."),
];

pub const WHEN: &[Key] = &[
    native("branch", TEXTS, "[main, 'release/*']", "Globs of branches; `!` excludes."),
    native("tag", TEXTS, "['v*', '!*-rc*']", "Globs of tags; `!` excludes."),
    native("path", TEXTS, "['src/**', '!**/*.md']", "Globs of changed paths; `!` excludes."),
];

pub const RETRY: &[Key] = &[
    native("attempts", Kind::Integer(1, 10), "3", "All attempts, the first one too."),
    native("delay", Kind::Duration, "10s", "Between two attempts, 1h at most."),
    native(
        "on",
        Kind::OneOrList(&Kind::Word(&["failed", "timed-out"])),
        "[timed-out]",
        "After what; both without it.",
    ),
];

pub const MATRIX: &[Key] = &[
    native(
        "exclude",
        Kind::List(&Kind::Map(&Kind::Text)),
        "[{RUBY: '3.2', DB: mysql}]",
        "Combinations that are left out.",
    ),
    native("include", Kind::List(&Kind::Map(&Kind::Text)), "[{RUBY: head, DB: pg}]", "Combinations besides."),
];

pub const SECRET: &[Key] = &[
    native("from", Kind::Text, "DEPLOY_KEY", "Its name where it is kept."),
    native("as", Kind::Text, "KEY", "The variable that holds it."),
];

pub const CACHE: &[Key] = &[
    native(
        "key",
        Kind::Text,
        "'gems-{{ checksum Gemfile.lock }}'",
        "What it is kept under; `${VAR}`, `{{ branch }}` and `{{ checksum FILE.. }}` are filled in.",
    ),
    native("fallback", TEXTS, "[gems-]", "Beginnings of keys to take instead, the first that is there."),
    native("paths", TEXTS, "[vendor/bundle]", "What is kept, below the source."),
    native("keep-on-failure", Kind::Bool, "true", "Whether a failed run keeps its cache."),
];

pub const ARTIFACTS: &[Key] = &[native(
    "from",
    TEXTS,
    "[build, lint]",
    "Pipelines that must have passed before; their outputs are laid over the source, in this order.",
)];

pub const CONCURRENCY: &[Key] = &[
    native(
        "group",
        Kind::Text,
        "'deploy-{{ branch }}'",
        "The name of the group; `${VAR}` and `{{ branch }}` are filled in.",
    ),
    native("cancel-superseded", Kind::Bool, "true", "Whether a newer run ends an older one."),
];

pub const READY: &[Key] = &[
    native("port", Kind::Integer(1, 65535), "5432", "Ready when it accepts connections there."),
    native(
        "log",
        Kind::Text,
        "ready to accept connections",
        "Ready when a line of its output holds this text.",
    ),
    native("command", Kind::Text, "pg_isready", "Ready when this command passes in its container."),
    native("timeout", Kind::Duration, "30s", "How long it may take, 1h at most; 60s without it."),
];

/// All maps with fixed keys. `step` is special: its keys stand below the step's name.
pub const MAPS: &[KeyMap] = &[
    map("file", "The whole file: other keys are pipelines.", TOP, Some(Kind::Of("pipeline"))),
    map("pipeline", "Other keys are deploy targets: steps that replace `steps`.", PIPELINE, Some(STEPS)),
    map("box", "A box or a service.", BOX, None),
    map("step-properties", "Other keys are properties of the step.", STEP, Some(Kind::Text)),
    map("workflow", "A graph of pipelines.", WORKFLOW, None),
    map("place", "A pipeline's place in a workflow.", PLACE, None),
    map("when", "All that is given must match.", WHEN, None),
    map("retry", "How often, and when, it is tried again.", RETRY, None),
    map("matrix", "Other keys are variables with lists of values.", MATRIX, Some(Kind::List(&Kind::Text))),
    KeyMap { required: &["from"], ..map("secret", "A secret under another name.", SECRET, None) },
    KeyMap { required: &["key", "paths"], ..map("cache", "Paths that are kept.", CACHE, None) },
    KeyMap { required: &["from"], ..map("artifacts", "What others made.", ARTIFACTS, None) },
    KeyMap { required: &["group"], ..map("concurrency", "One at a time.", CONCURRENCY, None) },
    map("ready", "One of `port`, `log` and `command`.", READY, None),
];

const fn map(name: &'static str, about: &'static str, keys: &'static [Key], others: Option<Kind>) -> KeyMap {
    KeyMap { name, about, keys, others, required: &[] }
}

/// Names of the keys that may be used: those of Sealift's own form only where the file asks for it.
pub(super) fn names(keys: &'static [Key], with_native: bool) -> Vec<&'static str> {
    keys.iter().filter(|key| with_native || !key.native).map(|key| key.name).collect()
}

/// Whether a name is a key of Sealift's own form only.
pub(super) fn is_native(keys: &'static [Key], name: &str) -> bool {
    keys.iter().any(|key| key.native && key.name == name)
}
