//! The options of `sealift run`.

use std::path::PathBuf;

use clap::Args;

pub(super) const EXAMPLES: &str = "\
Examples:
  sealift run
  sealift run --pipeline deploy --deploy-target staging --secrets-file ~/.secrets
  sealift run --from test
  sealift run --workflow ci --yes
  sealift run --dry-run
  sealift run --watch
  sealift run --artifacts out/

Of the variables around it, X_NAME is handed to the steps as NAME, and XXX_NAME as NAME that is
never shown. A file ENVIRONMENT in the project is read in the same way.

Exit codes: 0 passed; 1 failed; 130 stopped by Ctrl-C; 2 and 4 nothing was run.";

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The project's directory
    #[arg(default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The pipeline to run
    #[arg(long, short, default_value = "build", value_name = "NAME")]
    pub(crate) pipeline: String,
    /// The workflow to run, with all its pipelines
    #[arg(long, short, value_name = "NAME", conflicts_with = "pipeline")]
    pub(crate) workflow: Option<String>,
    /// Run this step and no other; may be given several times, by name or by number
    #[arg(long, value_name = "STEP", conflicts_with = "workflow")]
    pub(crate) only: Vec<String>,
    /// Leave out this step; may be given several times, by name or by number
    #[arg(long, value_name = "STEP", conflicts_with = "workflow")]
    pub(crate) skip: Vec<String>,
    /// Begin with this step, by name or by number
    #[arg(long, value_name = "STEP", conflicts_with = "workflow")]
    pub(crate) from: Option<String>,
    /// How many pipelines of a workflow may run at once [default: half the CPUs, at least 2]
    #[arg(long, value_name = "N", requires = "workflow")]
    pub(crate) slots: Option<usize>,
    /// A shell in the box of a step that failed, before it is removed; needs a terminal
    #[arg(long, conflicts_with_all = ["watch", "dry_run"])]
    pub(crate) shell_on_failure: bool,
    /// Ctrl-C ends the steps and lets the after-steps run; a second one ends those
    #[arg(long)]
    pub(crate) after_steps_on_cancel: bool,
    /// Begin with an empty cache, and keep none
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Agree to everything that a workflow asks
    #[arg(long)]
    pub(crate) yes: bool,
    /// Publish the ports of boxes and services on this machine
    #[arg(long)]
    pub(crate) expose_ports: bool,
    /// Let boxes and services mount directories of this machine
    #[arg(long)]
    pub(crate) enable_volumes: bool,
    /// Give a pipeline with `docker: true` this machine's container engine, and so the whole machine
    #[arg(long)]
    pub(crate) allow_docker: bool,
    /// Warnings about the file are errors
    #[arg(long)]
    pub(crate) strict: bool,
    /// Copy what the pipeline made into this directory, which must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) artifacts: Option<PathBuf>,
    /// Print what would be run, and why something would not be; run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Run again whenever a file of the project changes, until Ctrl-C
    #[arg(long, conflicts_with_all = ["dry_run", "artifacts"])]
    pub(crate) watch: bool,
    /// The steps work on the directory itself and change it; nothing is copied
    #[arg(long)]
    pub(crate) direct: bool,
    /// A run that fails leaves the cache as it was
    #[arg(long)]
    pub(crate) cache_on_success: bool,
    /// All output line by line, also on a terminal
    #[arg(long, visible_alias = "verbose")]
    pub(crate) plain: bool,
    #[command(flatten)]
    pub(crate) variables: VariableArgs,
    #[command(flatten)]
    pub(crate) facts: FactArgs,
}

/// What the steps find in their environment.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Variables and secrets")]
pub(crate) struct VariableArgs {
    /// A variable for the steps; may be given several times
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,
    /// A file of NAME=value lines for the steps [default: ENVIRONMENT in the project, if there]
    #[arg(long, value_name = "FILE")]
    pub(crate) env_file: Option<PathBuf>,
    /// A file of NAME=value lines that are never shown
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets_file: Option<PathBuf>,
    /// A variable of this shell that the steps get and that is never shown; may be given several times
    #[arg(long, value_name = "NAME", value_parser = variable_name)]
    pub(crate) secret: Vec<String>,
}

/// What is known of the commit and of where it goes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Facts")]
pub(crate) struct FactArgs {
    /// Tell the steps that this is a deploy and not a build
    #[arg(long)]
    pub(crate) deploy: bool,
    /// The steps of this deploy target; implies --deploy
    #[arg(long, value_name = "NAME")]
    pub(crate) deploy_target: Option<String>,
    /// The branch [default: what git says]
    #[arg(long)]
    pub(crate) branch: Option<String>,
    /// The commit [default: what git says]
    #[arg(long)]
    pub(crate) commit: Option<String>,
    /// The tag [default: what git says]
    #[arg(long)]
    pub(crate) tag: Option<String>,
    /// For conditions on paths: what has changed since this revision [default: unknown, all are met]
    #[arg(long, value_name = "REVISION")]
    pub(crate) since: Option<String>,
}

fn variable_name(name: &str) -> Result<String, String> {
    let valid = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if valid { Ok(name.to_owned()) } else { Err(format!("{name:?} is not a variable's name")) }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("wanted NAME=VALUE")?;
    Ok((variable_name(name)?, value.to_owned()))
}
