//! `sealift unit journal`: a unit's journal as its machine has it.

use std::io::Write as _;
use std::process::ExitCode;

use futures_util::StreamExt as _;

use crate::cli::{Global, JournalArgs, Output};
use crate::commands::machine;
use crate::error::Error;

pub(super) async fn journal(args: &JournalArgs, global: &Global) -> Result<ExitCode, Error> {
    let client = crate::commands::client(global)?;
    let machine = match &args.machine {
        Some(word) => format!("&machine={}", machine::find(&client, word).await?.machine.id),
        None => String::new(),
    };
    let format = if global.output == Output::Json { "json" } else { args.format.as_str() };
    let path = format!(
        "/v1/units/{}/journal?lines={}&follow={}&format={format}{machine}",
        args.unit, args.lines, args.follow
    );
    let mut chunks = client.open_bytes(&path).await?;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| Error::Client(sealift_client::Error::Read(error)))?;
        let mut out = std::io::stdout().lock();
        out.write_all(&chunk).and_then(|()| out.flush()).map_err(Error::Print)?;
    }
    Ok(ExitCode::SUCCESS)
}
