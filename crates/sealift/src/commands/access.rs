//! Users, machines that join, the authority and the audit log.
//!
//! A token is printed once, alone on standard output, so that it can be sent to a file; what is said about it goes to
//! standard error.

use std::io::Write as _;
use std::process::ExitCode;

use sealift_client::api::{
    AuditEntry, AuthorityInfo, AuthorityStep, JoinTokenInfo, List, Made, NewJoinToken, NewToken, TokenInfo,
};
use sealift_model::{Projects, Timestamp};
use serde_json::json;

use crate::cli::{AuditArgs, AuthorityCommand, Global, JoinTokenArgs, TokenCommand, TokenCreateArgs};
use crate::clock::now;
use crate::error::Error;
use crate::print::{Printer, visible};

pub(super) async fn token(command: TokenCommand, global: &Global) -> Result<ExitCode, Error> {
    match command {
        TokenCommand::Create(args) => create(args, global).await,
        TokenCommand::List => list(global).await,
        TokenCommand::Revoke(args) => {
            super::client(global)?.delete(&format!("/v1/tokens/{}", id(&args.id)?)).await?;
            removed(&args.id, "the token counts no more", global)
        }
    }
}

async fn create(args: TokenCreateArgs, global: &Global) -> Result<ExitCode, Error> {
    let projects = match (args.all_projects, args.projects.is_empty()) {
        (true, _) => Projects::All,
        (false, true) => Projects::None,
        (false, false) => Projects::Some(args.projects.into_iter().collect()),
    };
    let seconds = args.span.map(|span| span.as_secs());
    let new = NewToken { name: args.name, role: args.role, projects, seconds };
    let made: Made<TokenInfo> = super::client(global)?.post("/v1/tokens", &new).await?;
    let until = made.info.expires_at.map_or_else(String::new, |end| format!(" until {end}"));
    let said = format!(
        "token {} of {}, {}{until}; it is shown this once",
        made.info.id, made.info.name, made.info.role
    );
    show(&made, &made.token, &said, global)
}

/// The token for whoever reads our output, and a word on it for whoever looks on.
fn show<T: serde::Serialize>(made: &T, token: &str, said: &str, global: &Global) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(made)?;
    } else {
        printer.line(token)?;
        // Where standard error is closed there is nobody to tell.
        writeln!(std::io::stderr().lock(), "{said}").ok();
    }
    Ok(ExitCode::SUCCESS)
}

async fn list(global: &Global) -> Result<ExitCode, Error> {
    let tokens: List<TokenInfo> = super::client(global)?.get("/v1/tokens").await?;
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&tokens)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows = tokens.items.iter().map(|token| {
        let projects = match &token.projects {
            Projects::All => "all".to_owned(),
            Projects::Some(projects) => {
                projects.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
            }
            Projects::None => "-".to_owned(),
        };
        let until = token.expires_at.map_or_else(|| "-".into(), |end| end.to_string());
        vec![token.id.clone(), visible(&token.name), token.role.to_string(), projects, until]
    });
    printer.table(&["TOKEN", "USER", "ROLE", "PROJECTS", "UNTIL"], &rows.collect::<Vec<_>>())?;
    Ok(ExitCode::SUCCESS)
}

/// What can stand in a path. It may be a token in full that was pasted by mistake, so it is not quoted.
fn id(text: &str) -> Result<&str, Error> {
    if text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        Ok(text)
    } else {
        Err(Error::with_help("a token's id has 16 hex digits", "`sealift token list` shows it"))
    }
}

pub(super) fn removed(id: &str, said: &str, global: &Global) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(&json!({ "id": id, "removed": true }))?;
    } else {
        printer.line(said)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn join_token(args: JoinTokenArgs, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    if let Some(revoked) = &args.revoke {
        client.delete(&format!("/v1/join-tokens/{}", id(revoked)?)).await?;
        return removed(revoked, "the join token lets nobody in any more", global);
    }
    if args.list {
        let tokens: List<JoinTokenInfo> = client.get("/v1/join-tokens").await?;
        let printer = Printer::new(global.output);
        if printer.is_json() {
            printer.json(&tokens)?;
            return Ok(ExitCode::SUCCESS);
        }
        let rows = tokens.items.iter().map(|token| {
            let only = token.machine.as_ref().map_or("any", |machine| machine.short()).to_owned();
            let class = token.class.as_deref().map_or_else(|| "-".into(), visible);
            vec![token.id.clone(), token.expires_at.to_string(), token.uses_left.to_string(), only, class]
        });
        printer.table(&["TOKEN", "UNTIL", "USES", "MACHINE", "CLASS"], &rows.collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    let new = NewJoinToken {
        seconds: args.span.as_secs(),
        uses: args.uses,
        machine: args.machine,
        class: args.class,
    };
    let made: Made<JoinTokenInfo> = client.post("/v1/join-tokens", &new).await?;
    let said = format!(
        "join token {} is good until {}; put it into a file on the machine, and there:\n  sealift agent --server https://SERVER:PORT --join FILE",
        made.info.id, made.info.expires_at
    );
    show(&made, &made.token, &said, global)
}

pub(super) async fn authority(command: AuthorityCommand, global: &Global) -> Result<ExitCode, Error> {
    let client = super::client(global)?;
    let (step, force) = match command {
        AuthorityCommand::Show(args) => {
            let info: AuthorityInfo = client.get("/v1/authority").await?;
            if args.roots {
                Printer::new(global.output).line(info.roots.trim_end())?;
                return Ok(ExitCode::SUCCESS);
            }
            return show_authority(&info, global);
        }
        AuthorityCommand::Prepare => ("prepare", false),
        AuthorityCommand::Activate(args) => ("activate", args.force),
        AuthorityCommand::Retire(args) => ("retire", args.force),
    };
    let info: AuthorityInfo = client.post(&format!("/v1/authority/{step}"), &AuthorityStep { force }).await?;
    show_authority(&info, global)
}

fn show_authority(info: &AuthorityInfo, global: &Global) -> Result<ExitCode, Error> {
    let printer = Printer::new(global.output);
    if printer.is_json() {
        printer.json(info)?;
        return Ok(ExitCode::SUCCESS);
    }
    printer.line(&format!("pin    sha256:{}", info.pin))?;
    printer.line(&format!("until  {}", info.expires_at))?;
    for other in info.pins.iter().filter(|pin| **pin != info.pin) {
        printer.line(&format!("also   sha256:{other}"))?;
    }
    if info.change != "no" {
        printer.line(&format!(
            "change {}; {} machines do not know the new root yet",
            info.change,
            info.unaware.len()
        ))?;
        for machine in &info.unaware {
            printer.line(&format!("       {machine}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn audit(args: AuditArgs, global: &Global) -> Result<ExitCode, Error> {
    let since = args
        .since
        .map_or(0, |span| now().0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)));
    let user = match &args.user {
        Some(user) if user.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@:".contains(c)) => {
            format!("&user={}", user.replace('@', "%40"))
        }
        Some(_) => return Err(Error::plain("a user's name has letters, digits and '-_.@'")),
        None => String::new(),
    };
    let path = format!("/v1/audit?since={since}&follow={}{user}", args.follow);
    let mut lines = super::client(global)?.lines::<AuditEntry>(&path).await?;
    let printer = Printer::new(global.output);
    while let Some(entry) = lines.next().await? {
        if printer.is_json() {
            printer.json(&entry)?;
            continue;
        }
        let AuditEntry { at: Timestamp(_), who, from, method, object, status, .. } = &entry;
        let (at, object) = (entry.at, visible(object));
        printer.line(&format!("{at}  {status}  {who}  {from}  {method} {object}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
