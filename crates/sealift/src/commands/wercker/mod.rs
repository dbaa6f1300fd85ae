//! The command line of the wercker CLI, for scripts and fingers that know it: `wercker ARGS` by the program's name, or
//! `sealift wercker ARGS`.
//!
//! Guarantees: the same commands, flags, lines on standard error and exit codes (0 or 1); what cannot be done any more
//! is said, never left out in silence.
//!
//! It must not know how a pipeline is run: that is `sealift run`'s own way.

mod detect;
mod flags;
mod pipelines;
mod publish;

use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};
use sealift_model::diagnostic::{Severity, chain};
use sealift_pipeline::config;

use crate::error::Error;
use crate::print::{Mood, Voice};

/// As that CLI ended when something was wrong.
const FAILED: u8 = 1;
/// Commands that were nothing without the service, and what to do instead.
const GONE: &[(&str, Option<&str>, &str)] = &[
    ("login", None, "no login is needed: everything runs on this machine"),
    ("logout", None, "no login is needed: everything runs on this machine"),
    (
        "pull",
        Some("p"),
        "builds are not kept there any more; `sealift packages` lists what `sealift push` has made",
    ),
    ("doc", None, "read docs/wercker-cli.md, or ask `wercker COMMAND --help`"),
    ("docker", None, "call docker or podman itself"),
    ("runner", None, "a machine that runs pipelines is started with `sealift dev`"),
];

/// What the program was called as, if that means this command line: the words behind it.
pub(crate) fn asked(args: &[std::ffi::OsString]) -> Option<Vec<String>> {
    let name = args.first().map(Path::new).and_then(Path::file_name);
    let skip = match (name, args.get(1)) {
        (Some(name), _) if name == "wercker" => 1,
        (_, Some(first)) if first == "wercker" => 2,
        _ => return None,
    };
    Some(args.iter().skip(skip).map(|word| word.to_string_lossy().into_owned()).collect())
}

/// Does what is asked for.
pub(crate) fn main(given: Vec<String>) -> ExitCode {
    let words = std::iter::once("wercker".to_owned()).chain(flags::words(given));
    let matches = match command().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            // Where nobody can be told there is nothing else to do.
            error.print().ok();
            return if error.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS };
        }
    };
    let (name, matches) = match matches.subcommand() {
        Some((name, matches)) => (name.to_owned(), matches.clone()),
        None => return ExitCode::from(FAILED),
    };
    let voice = Voice {
        colours: !matches.get_flag("no-colors"),
        verbose: matches.get_flag("verbose"),
        json: matches.get_flag("log-json"),
        quiet: false,
    };
    let level = if matches.get_flag("debug") { "debug" } else { "warn" };
    crate::start_log(level);
    let done = flags::judge(flags::GLOBAL, &matches).map_err(Error::plain).and_then(|warnings| {
        warnings.iter().for_each(|warning| voice.warn(warning));
        perform(&name, &matches, &voice)
    });
    done.unwrap_or_else(|error| {
        if let Error::File { file, text, diagnostics } = &error {
            for diagnostic in diagnostics {
                diagnostic.render(file, text).lines().for_each(|line| voice.raw(line));
            }
        }
        voice.fatal(&chain(&error));
        ExitCode::from(FAILED)
    })
}

fn perform(name: &str, matches: &ArgMatches, voice: &Voice) -> Result<ExitCode, Error> {
    match name {
        "build" | "deploy" | "dev" | "workflow" => {
            let warnings = flags::judge(flags::PIPELINE, matches).map_err(Error::plain)?;
            warnings.iter().for_each(|warning| voice.warn(warning));
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            let runtime = runtime.map_err(Error::Runtime)?;
            runtime.block_on(Box::pin(pipelines::run(name, matches, voice)))
        }
        "check-config" => check_config(matches, voice),
        "detect" => detect::detect(Path::new("."), voice),
        "step" => match matches.subcommand() {
            Some((_, matches)) => publish::publish(matches, voice),
            None => Ok(ExitCode::from(FAILED)),
        },
        "version" => version(matches, voice),
        _ => {
            let instead = GONE.iter().find(|(gone, _, _)| *gone == name).map(|(_, _, instead)| *instead);
            Err(Error::plain(format!(
                "the wercker service is gone, and {name} with it: {}",
                instead.unwrap_or_default()
            )))
        }
    }
}

fn command() -> Command {
    let dir = |help: &'static str| Arg::new("dir").value_name("DIR").help(help);
    let pipeline = |name: &'static str, about: &'static str| {
        Command::new(name)
            .about(about)
            .after_help(format!("Example: wercker {name}"))
            .args(flags::arguments(flags::PIPELINE, false))
    };
    let wercker_yml = || flags::arguments(flags::PIPELINE, false).filter(|arg| arg.get_id() == "wercker-yml");
    let mut command = Command::new("wercker")
        .about("The commands of the wercker CLI, done by Sealift")
        .after_help("Example: wercker build --artifacts\n\nWhich flags work is told in docs/wercker-cli.md; `sealift --help` shows what else there is.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(flags::arguments(flags::GLOBAL, true))
        .subcommand(pipeline("build", "Run the pipeline build").alias("b").arg(dir("The project's directory")))
        .subcommand(pipeline("dev", "Run the pipeline dev on the directory itself").arg(dir("The project's directory")))
        .subcommand(
            pipeline("deploy", "Run the pipeline deploy on what a build made")
                .alias("d")
                .arg(dir("The source [default: .wercker/latest/output]")),
        )
        .subcommand(
            pipeline("workflow", "Run a workflow of the file")
                .alias("w")
                .arg(Arg::new("name").value_name("NAME").required(true).help("The workflow")),
        )
        .subcommand(
            Command::new("check-config")
                .about("Read the file and list what is in it")
                .after_help("Example: wercker check-config")
                .arg(dir("The project's directory"))
                .args(wercker_yml()),
        )
        .subcommand(
            Command::new("detect")
                .alias("de")
                .about("Tell what kind of project this is, and write a wercker.yml for it")
                .after_help("Example: wercker detect"),
        )
        .subcommand(
            Command::new("step")
                .about("Pack a step")
                .after_help("Example: wercker step publish ./my-step")
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommand(
                    Command::new("publish")
                        .about("Check a step's manifest and pack it into a file")
                        .after_help("Example: wercker step publish ./my-step")
                        .arg(dir("The step's directory"))
                        .args(flags::arguments(flags::PUBLISH, false)),
                ),
        )
        .subcommand(
            Command::new("version")
                .alias("v")
                .about("Print the version")
                .after_help("Example: wercker version --json")
                .args(flags::arguments(flags::VERSION, false)),
        );
    for (name, alias, _) in GONE {
        let rest = Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true).hide(true);
        let gone = Command::new(*name).about("Gone with the service").arg(rest);
        command = command.subcommand(match alias {
            Some(alias) => gone.alias(*alias),
            None => gone,
        });
    }
    command
}

/// Reads the file and says what is in it and what is wrong with it.
fn check_config(matches: &ArgMatches, voice: &Voice) -> Result<ExitCode, Error> {
    let path = match matches.get_one::<String>("wercker-yml") {
        Some(path) => path.into(),
        None => config::find_config(Path::new(text(matches, "dir").unwrap_or(".")))?,
    };
    let loaded = config::load(&path)?;
    // In the words of that CLI, and then what it did not say.
    let config = &loaded.config;
    for pipeline in &config.pipelines {
        voice.raw(&format!("Found pipeline section: {}", pipeline.name));
        if let Some(the_box) = config.box_of(pipeline) {
            voice.raw(&format!("  with box: {}", the_box.image(&|_| None)));
        }
    }
    for workflow in &config.workflows {
        voice.raw(&format!("Found workflow: {}", workflow.name));
        if let Some(problem) = &workflow.problem {
            voice.raw(&format!("ERROR {}", problem.message));
        }
    }
    let file = path.display().to_string();
    for diagnostic in &loaded.diagnostics {
        diagnostic.render(&file, &loaded.text).lines().for_each(|line| voice.raw(line));
    }
    let wrong = loaded.diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error);
    Ok(if wrong { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

#[expect(clippy::print_stdout, reason = "programs read the version there, as they did")]
fn version(matches: &ArgMatches, voice: &Voice) -> Result<ExitCode, Error> {
    let version = env!("CARGO_PKG_VERSION");
    if matches.get_flag("json") {
        println!("{}", serde_json::json!({ "version": version, "program": "sealift" }));
    } else {
        voice.say(Mood::Plain, &format!("Version: {version} (Sealift)"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A flag's or an argument's value.
fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    // Not every command has every flag.
    matches.try_get_one::<String>(name).ok().flatten().map(String::as_str).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound_and_every_command_has_an_example() {
        let command = command();
        command.clone().debug_assert();
        for sub in
            command.get_subcommands().filter(|sub| !GONE.iter().any(|(name, ..)| *name == sub.get_name()))
        {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains(&format!("wercker {}", sub.get_name())),
                "{} has no example",
                sub.get_name()
            );
        }
    }

    #[test]
    fn is_asked_by_name_or_by_the_first_word() {
        let asked = |words: &[&str]| super::asked(&words.iter().map(Into::into).collect::<Vec<_>>());
        assert_eq!(asked(&["/usr/bin/wercker", "build"]), Some(vec!["build".into()]));
        assert_eq!(asked(&["sealift", "wercker", "build"]), Some(vec!["build".into()]));
        assert_eq!(asked(&["sealift", "run", "wercker"]), None);
        assert_eq!(asked(&[]), None);
    }
}
