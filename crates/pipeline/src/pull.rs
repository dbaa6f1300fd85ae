//! Having an image: looked for, and pulled where it is not there, with the credentials that go with it.
//!
//! Guarantees: a registry that could not be reached is asked again, at most three times; one that said no is not.
//!
//! It must not know what the image is for.

use std::future::Future;
use std::time::Duration;

use bollard::models::ImageConfig;

use crate::ecr;
use crate::engine::{self, Engine, is_passing};
use crate::http::jitter;
use crate::registry::{self, Credentials, Lookup};
use crate::spec::Logins;

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
    #[error("image {image}: there is no password for its registry")]
    Ecr {
        image: String,
        #[source]
        source: ecr::Error,
    },
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
    logins: Logins<'_>,
    tell: &impl Tell,
) -> Result<ImageConfig, Error> {
    if let Some(config) = engine.image(image).await? {
        return Ok(config);
    }
    tell.note(format!("pulling {image}")).await;
    let (credentials, hint) = credentials(image, option, logins, tell).await?;
    let mut tries = Tries::default();
    while let Err(error) = pull(engine, image, credentials.as_ref(), tell).await {
        if let Err(error) = tries.again(image, error, is_passing, tell).await {
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
    logins: Logins<'_>,
    tell: &impl Tell,
) -> Result<(Option<Credentials>, Option<String>), Error> {
    let (files, wrong) = registry::read(logins.auth_files);
    for reason in wrong {
        tell.warn(format!("credentials cannot be read: {reason}")).await;
    }
    let picked = registry::pick(image, option, &files)?;
    let Some(keys) = picked.aws else { return Ok((picked.credentials, picked.note)) };
    let mut tries = Tries::default();
    let password = loop {
        match logins.ecr.password(&keys).await {
            Ok(password) => break password,
            Err(error) => tries
                .again("the password for Amazon's registry", error, ecr::Error::is_passing, tell)
                .await
                .map_err(|source| Error::Ecr { image: image.to_owned(), source })?,
        }
    };
    let credentials = Credentials::new(registry::host_of(image), password.username, password.password);
    Ok((Some(credentials), None))
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
    pub(crate) async fn again<E: std::error::Error>(
        &mut self,
        what: &str,
        error: E,
        is_passing: fn(&E) -> bool,
        tell: &impl Tell,
    ) -> Result<(), E> {
        if self.0 + 1 >= TRIES || !is_passing(&error) {
            return Err(error);
        }
        let pause = PAUSE * 2_u32.pow(self.0);
        let wait = pause + jitter(pause);
        self.0 += 1;
        tell.note(format!("{what}: {error}; trying again in {} ms", wait.as_millis())).await;
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
