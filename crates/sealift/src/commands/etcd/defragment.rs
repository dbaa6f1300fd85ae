//! Giving free space back: one member after the other, the leader last, and none while another is away.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use sealift_model::diagnostic::chain;
use sealift_server::Defragment;
use sealift_store::etcd::{Alarm, AlarmKind, EtcdOptions, Maintenance};
use serde_json::json;

use super::health::{Health, Seen, size};
use super::{maintenance, plain};
use crate::cli::{EtcdDefrag, Global};
use crate::error::Error;
use crate::print::Printer;

/// Less free space than this is not worth a member's silence, in bytes.
const LEAST: u64 = 1 << 20;

/// A member is done that had so many bytes, and now has so many.
struct Done {
    name: String,
    before: u64,
    after: u64,
}

/// What the leading server does every so often.
pub(in crate::commands) fn on_schedule(options: &EtcdOptions, every: Duration) -> Defragment {
    let options = options.clone();
    let run = move || {
        let options = options.clone();
        let future: futures_util::future::BoxFuture<'static, _> = Box::pin(async move {
            let cluster = Maintenance::new(options).map_err(|error| plain(&error))?;
            defragment(&cluster, false).await.map(drop)
        });
        future
    };
    Defragment { every, run: Arc::new(run) }
}

pub(super) async fn defrag(args: &EtcdDefrag, global: &Global) -> Result<ExitCode, Error> {
    let cluster = maintenance(&args.etcd)?;
    let done = defragment(&cluster, args.all)
        .await
        .map_err(|error| Error::with_help(error, "see how the members are with: sealift etcd status"))?;
    let disarmed = if args.disarm { disarm(&cluster).await.map_err(super::asked)? } else { 0 };
    let printer = Printer::new(global.output);
    if printer.is_json() {
        let done: Vec<_> = done
            .iter()
            .map(|done| json!({ "member": done.name, "before": done.before, "after": done.after }))
            .collect();
        printer.json(&json!({ "defragmented": done, "disarmed": disarmed }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if done.is_empty() {
        printer.line("no member has much free space; --all does it all the same")?;
    }
    for done in &done {
        printer.line(&format!("{}: {} before, {} now", done.name, size(done.before), size(done.after)))?;
    }
    if disarmed > 0 {
        printer.line(&format!("{disarmed} alarms taken back"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn disarm(cluster: &Maintenance) -> Result<usize, sealift_store::Error> {
    let raised = cluster.alarms().await?;
    let space: Vec<Alarm> = raised.into_iter().filter(|alarm| alarm.kind == AlarmKind::NoSpace).collect();
    for alarm in &space {
        cluster.disarm(*alarm).await?;
    }
    Ok(space.len())
}

/// Members of which a quarter or more is free, and no less than [`LEAST`]; or all.
async fn defragment(cluster: &Maintenance, all: bool) -> Result<Vec<Done>, String> {
    let look = || async { Health::look(cluster).await.map_err(|error| chain(&error)) };
    let mut members = fit(look().await?)?.members;
    members.sort_by_key(Seen::is_leader);
    let mut done = Vec::new();
    for seen in members {
        let (Some(url), Ok(status)) = (&seen.url, &seen.status) else { continue };
        let free = status.db_size.saturating_sub(status.db_in_use);
        if !all && free < (status.db_size / 4).max(LEAST) {
            continue;
        }
        // The one before has to be back.
        fit(look().await?)?;
        let failed = |error: &sealift_store::Error| format!("member {}: {}", seen.name(), chain(error));
        cluster.defragment(url).await.map_err(|error| failed(&error))?;
        let after = cluster.status(url).await.map_err(|error| failed(&error))?.db_size;
        done.push(Done { name: seen.name(), before: status.db_size, after });
    }
    Ok(done)
}

/// While a member is done it answers nobody, so all others have to be there. Used-up space is what it helps against.
fn fit(mut health: Health) -> Result<Health, String> {
    health.alarms.retain(|(_, kind)| *kind != AlarmKind::NoSpace);
    match health.problems().first() {
        None => Ok(health),
        Some(problem) => Err(format!("nothing more is defragmented while a member is not well: {problem}")),
    }
}
