//! `sealift push`: the commit that is checked out goes to the server, and its way is followed to the end.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Instant;

use sealift_client::Client;
use sealift_client::api::{AppStatus, NewRun, Stored};
use sealift_model::diagnostic::chain;
use sealift_model::{BranchName, CommitId, ProjectName, Run, RunState};
use sealift_pipeline::config;
use tokio::process::Command;
use tokio_util::io::ReaderStream;

use crate::cli::{Global, PushArgs};
use crate::error::{Error, FAILED};
use crate::print::{Printer, Style};
use crate::state_dir::{hex, random};

pub(super) async fn push(args: PushArgs, global: &Global) -> Result<ExitCode, Error> {
    let began = Instant::now();
    let repository = Repository::find(&args.dir).await?;
    let commit = repository.commit().await?;
    let branch = match args.branch {
        Some(branch) => branch,
        None => repository.branch().await?,
    };
    let project = match args.project {
        Some(project) => project,
        None => repository.project_name()?,
    };
    let mut printer = Printer::new(global.output);
    repository.check(&commit, &args.pipeline, &printer).await?;
    let client = super::client(global)?;
    let source = repository.send(&commit, &client).await?;
    let new = NewRun {
        project: project.clone(),
        branch,
        subject: repository.git(&["log", "-1", "--format=%s", commit.as_str()]).await?,
        commit,
        source: source.digest,
        pipeline: args.pipeline,
        request: hex(&random::<16>()?),
    };
    // Sent again with the same key after a broken connection, it is still one run.
    let mut sent = client.post::<_, Run>("/v1/runs", &new).await;
    for _ in 0..3 {
        match &sent {
            Err(error) if error.retryable() => sent = client.post("/v1/runs", &new).await,
            _ => break,
        }
    }
    let run = sent?;
    if !printer.is_json() {
        let text = format!("{} queued: commit {} of {}", run.id, run.commit.short(), run.branch);
        printer.line(&printer.paint(Style::Title, &text))?;
    }
    if args.detach {
        if printer.is_json() {
            printer.json(&run)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    super::runs::stream(&client, &mut printer, &run.id, true).await.map_err(|error| match error {
        Error::Client(_) | Error::NoServer { .. } => Error::with_help(
            format!("the server went away ({})", chain(&error)),
            format!("{0} is kept and goes on with the server; follow it with: sealift logs {0} -f", run.id),
        ),
        other => other,
    })?;
    let run: Run = client.get(&format!("/v1/runs/{}", run.id)).await?;
    if printer.is_json() {
        printer.json(&run)?;
    }
    if run.state != RunState::Passed {
        if !printer.is_json() {
            let why = run.message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
            let text = format!("{} {}{why}; what runs is unchanged", run.id, super::list::state(run.state).1);
            printer.line(&printer.paint(Style::Bad, &text))?;
        }
        return Ok(ExitCode::from(FAILED));
    }
    tell_package(&printer, &run)?;
    match released(&client, &project, &run).await? {
        Some(app) => {
            super::rollback::wait_until_up(&client, &printer, &project, app.app.generation, began).await
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

fn tell_package(printer: &Printer, run: &Run) -> Result<(), Error> {
    if printer.is_json() {
        return Ok(());
    }
    if let Some(package) = &run.package {
        printer.line(&format!("package {package}, signed"))?;
    }
    match &run.message {
        Some(message) => printer.line(message),
        None => Ok(()),
    }
}

/// The app, if this run's package is the release that it is to run now.
async fn released(client: &Client, project: &ProjectName, run: &Run) -> Result<Option<AppStatus>, Error> {
    match client.get::<AppStatus>(&format!("/v1/apps/{project}")).await {
        Ok(app) => {
            let ours = app.release.as_ref().is_some_and(|release| release.package.run == run.id);
            Ok(ours.then_some(app))
        }
        Err(error) if error.code() == Some("not-found") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The project that a push from this directory is of, unless it names another.
pub(super) async fn project_of(dir: &Path) -> Result<ProjectName, Error> {
    let help = "go into the project's git repository, or name the project with --project";
    Repository::around(dir, help).await?.project_name()
}

/// A git repository with a commit to push.
struct Repository {
    root: PathBuf,
}

impl Repository {
    async fn find(dir: &Path) -> Result<Self, Error> {
        let help = "sealift push sends a commit: make one with git init, git add . and git commit";
        Self::around(dir, help).await
    }

    /// The repository that the directory is in; `help` for whom there is none.
    async fn around(dir: &Path, help: &str) -> Result<Self, Error> {
        let unrooted = Self { root: dir.to_owned() };
        match unrooted.git(&["rev-parse", "--show-toplevel"]).await {
            Ok(root) => Ok(Self { root: root.into() }),
            Err(Error::Plain { message, .. }) => Err(Error::with_help(message, help)),
            Err(error) => Err(error),
        }
    }

    async fn git(&self, args: &[&str]) -> Result<String, Error> {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.root)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|source| Error::Io { action: "run", path: "git".into(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it said nothing").trim_start_matches("fatal: ");
        Err(Error::plain(format!("git {}: {said}", args.first().copied().unwrap_or_default())))
    }

    async fn commit(&self) -> Result<CommitId, Error> {
        match self.git(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"]).await {
            Ok(text) => text.parse().map_err(|error| Error::plain(format!("git says {text:?}: {error}"))),
            Err(_) => Err(Error::with_help(
                format!("{} has no commit yet", self.root.display()),
                "make one with: git add . && git commit",
            )),
        }
    }

    async fn branch(&self) -> Result<BranchName, Error> {
        match self.git(&["symbolic-ref", "--quiet", "--short", "HEAD"]).await {
            Ok(text) => text.parse().map_err(|error| Error::plain(format!("the current branch: {error}"))),
            Err(_) => Err(Error::with_help(
                "no branch is checked out, only a commit",
                "name the branch to push as with --branch",
            )),
        }
    }

    fn project_name(&self) -> Result<ProjectName, Error> {
        let name = self.root.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let name: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' })
            .collect();
        name.parse().map_err(|error| Error::with_help(format!("{error}"), "name the project with --project"))
    }

    /// Whether the commit can be run at all, said before anything is sent.
    async fn check(&self, commit: &CommitId, pipeline: &str, printer: &Printer) -> Result<(), Error> {
        let mut found = None;
        for name in config::FILE_NAMES {
            if let Ok(text) = self.git_file(&format!("{commit}:{name}")).await {
                found = Some((name, text));
                break;
            }
        }
        let (name, text) = found.ok_or_else(|| {
            Error::with_help(
                format!("commit {} has no wercker.yml", commit.short()),
                "it says which box and steps to build with; see docs/first-steps.md, and commit it",
            )
        })?;
        let (config, warnings) = config::parse(&text).map_err(|diagnostics| Error::File {
            file: name.into(),
            text: text.clone(),
            diagnostics,
        })?;
        // A workflow goes by its name as well.
        if config.workflow(pipeline).is_none() {
            super::check_pipeline(&config, pipeline, name, &text)?;
        }
        let dirty = self.git(&["status", "--porcelain", "--untracked-files=no"]).await?;
        if !dirty.is_empty() && !printer.is_json() {
            let text = format!(
                "warning: changes that are not committed stay behind; commit {} is sent",
                commit.short()
            );
            printer.line(&printer.paint(Style::Careful, &text))?;
        }
        for warning in warnings.iter().filter(|_| !printer.is_json()) {
            printer.line(&printer.paint(Style::Careful, &warning.render(name, &text)))?;
        }
        Ok(())
    }

    /// A file of a commit as it is, its last newlines too.
    async fn git_file(&self, object: &str) -> Result<String, Error> {
        let output = Command::new("git")
            .arg("-C")
            .arg(&self.root)
            .args(["cat-file", "blob", object])
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(|source| Error::Io { action: "run", path: "git".into(), source })?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(Error::plain(format!("no {object}")))
        }
    }

    /// Streams the commit's tree to the server.
    async fn send(&self, commit: &CommitId, client: &Client) -> Result<Stored, Error> {
        let io = |source| Error::Io { action: "run", path: "git".into(), source };
        let mut child = Command::new("git")
            .arg("-C")
            .arg(&self.root)
            .args(["archive", "--format=tar", commit.as_str()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        let stdout = child.stdout.take().ok_or_else(|| Error::plain("git has no output"))?;
        let stored = client.post_stream("/v1/blobs", ReaderStream::with_capacity(stdout, 256 << 10)).await?;
        // A tree that git could not write to its end is not the commit's.
        let status = child.wait().await.map_err(io)?;
        if status.success() {
            Ok(stored)
        } else {
            Err(Error::plain(format!("git archive ended with {status}")))
        }
    }
}
