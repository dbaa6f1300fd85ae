//! The options of `sealift secret`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sealift_model::{ProjectName, SecretName};

pub(super) const EXAMPLES: &str = "\
Examples:
  sealift secret set NPM_TOKEN
  pass show npm | sealift secret set NPM_TOKEN
  sealift secret set DEPLOY_KEY --from-file ~/.ssh/deploy --project hello
  sealift secret list
  sealift secret rm NPM_TOKEN

The runs of the project's commits find a secret as a variable of that name; what they tell shows
*** in its place. With `sealift: 1` in the wercker.yml a pipeline gets those that it names only.";

#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Keep a secret, or change it, for runs that begin from now on
    #[command(
        after_help = "The value is never an argument: others would see it. On a terminal it is asked for and not shown; else\nstandard input is read to its end, without its last newline.\n\nExample: sealift secret set NPM_TOKEN < token.txt"
    )]
    Set(SecretSetArgs),
    /// List a project's secrets: their names, never their values
    #[command(after_help = "Example: sealift secret list --project hello")]
    List(SecretListArgs),
    /// Remove a secret
    #[command(after_help = "Example: sealift secret rm NPM_TOKEN")]
    Rm(SecretRmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct SecretProject {
    /// The project's name [default: this repository's directory]
    #[arg(long)]
    pub(crate) project: Option<ProjectName>,
}

#[derive(Debug, Args)]
pub(crate) struct SecretSetArgs {
    /// The variable that steps find it in
    pub(crate) name: SecretName,
    #[command(flatten)]
    pub(crate) project: SecretProject,
    /// Take the value from this file, as it is to the last byte
    #[arg(long, value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SecretListArgs {
    #[command(flatten)]
    pub(crate) project: SecretProject,
}

#[derive(Debug, Args)]
pub(crate) struct SecretRmArgs {
    pub(crate) name: SecretName,
    #[command(flatten)]
    pub(crate) project: SecretProject,
}
