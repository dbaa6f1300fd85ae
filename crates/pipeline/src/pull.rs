//! Having an image: looked for, and pulled where it is not there, with the credentials that go with it.
//!
//! Guarantees: a registry that could not be reached is asked again, at most three times; one that said no is not.
//!
//! It must not know what the image is for.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bollard::models::ImageConfig;

use crate::engine::{self, Engine, is_passing};
use crate::registry::{self, Credentials, Lookup};

/// How often a registry is asked in all.
const TRIES: u32 = 3;
/// The shortest wait before it is asked again; twice as long the next time, and up to half as much more by chance.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Engine(#[from] engine::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("image {image} is not there after it was pulled")]
    Missing { image: String },
}

/// Tells what is done and what is amiss.
pub(crate) trait Tell: Sync {
    fn note(&self, text: String) -> impl Future<Output = ()> + Send;
    fn warn(&self, text: String) -> impl Future<Output = ()> + Send;
}

/// The image's configuration; pulls the image if it is not there.
pub(crate) async fn ensure(
    engine: &Engine,
    image: &str,
    option: Lookup<'_>,
    auth_files: &[PathBuf],
    tell: &impl Tell,
) -> Result<ImageConfig, Error> {
    if let Some(config) = engine.image(image).await? {
        return Ok(config);
    }
    tell.note(format!("pulling {image}")).await;
    let (credentials, hint) = credentials(image, option, auth_files, tell).await?;
    let mut tries = Tries::default();
    while let Err(error) = pull(engine, image, credentials.as_ref(), tell).await {
        if let Err(error) = tries.again(image, error, tell).await {
            if let Some(hint) = hint {
                tell.warn(hint).await;
            }
            return Err(error.into());
        }
    }
    engine.image(image).await?.ok_or_else(|| Error::Missing { image: image.to_owned() })
}

/// The credentials for an image, and what may be the reason if they are not enough.
pub(crate) async fn credentials(
    image: &str,
    option: Lookup<'_>,
    auth_files: &[PathBuf],
    tell: &impl Tell,
) -> Result<(Option<Credentials>, Option<String>), Error> {
    let (files, wrong) = registry::read(auth_files);
    for reason in wrong {
        tell.warn(format!("credentials cannot be read: {reason}")).await;
    }
    let picked = registry::pick(image, option, &files)?;
    Ok((picked.credentials, picked.note))
}

async fn pull(
    engine: &Engine,
    image: &str,
    credentials: Option<&Credentials>,
    tell: &impl Tell,
) -> Result<(), engine::Error> {
    let mut pull = engine.pull(image, credentials).await?;
    while let Some(progress) = pull.next().await {
        tell.note(format!("{image}: {}", progress?)).await;
    }
    Ok(())
}

/// The tries of one thing with a registry.
#[derive(Debug, Default)]
pub(crate) struct Tries(u32);

impl Tries {
    /// Waits where it is worth another try; else it is the error.
    pub(crate) async fn again(
        &mut self,
        what: &str,
        error: engine::Error,
        tell: &impl Tell,
    ) -> Result<(), engine::Error> {
        if self.0 + 1 >= TRIES || !is_passing(&error) {
            return Err(error);
        }
        let pause = PAUSE * 2_u32.pow(self.0);
        let wait = pause + pause.mul_f64(f64::from(chance()) / 512.0);
        self.0 += 1;
        tell.note(format!("{what}: {error}; trying again in {} ms", wait.as_millis())).await;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

/// So that many machines do not come back at the same moment; without chance they do.
fn chance() -> u8 {
    let mut byte = [0_u8];
    rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty()).ok();
    byte[0]
}
