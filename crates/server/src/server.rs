//! Putting the server together: options, listeners, shutdown.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sealift_model::diagnostic::chain;
use sealift_model::{ProjectName, Timestamp};
use sealift_package::blobs::{self, Blobs};
use sealift_package::signing::{self, PublicKey, SigningKey};
use sealift_store::Store;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Door};
use crate::audit::{self, AuditLog};
use crate::cache::{Cache, Follower};
use crate::controller::Problems;
use crate::copies::Copies;
use crate::housekeeping::Housekeeping;
use crate::leading;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::secrets::{self, Secrets};
use crate::tls;
use crate::transfer;

/// How long requests under way may take once the server is to stop.
const GRACE: Duration = Duration::from_secs(2);

/// What a server is made of.
pub struct Options {
    pub store: Arc<dyn Store>,
    /// Blobs, logs, keys and secrets are kept below this folder.
    pub state_dir: PathBuf,
    /// How long a machine counts as present after a keep-alive.
    pub machine_ttl: Duration,
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// Where several servers share a store, one leads; none: this server is the only one.
    pub election: Option<Election>,
    /// What the leader does for a store that does not do it by itself.
    pub housekeeping: Housekeeping,
    /// Where machines reach this very server, if there are others: `https://HOST:PORT`.
    pub advertise: Option<String>,
    /// Guarded by the file mode of its socket.
    pub unix: Option<UnixListener>,
    /// Guarded by the token.
    pub tcp: Option<(TcpListener, Arc<str>)>,
    /// For machines and users anywhere: guarded by certificates and users' tokens.
    pub tls: Option<tls::Options>,
    /// Whether `/metrics` is told to anybody who asks.
    pub open_metrics: bool,
}

/// How this server takes part in the choice of a leader.
#[derive(Debug, Clone)]
pub struct Election {
    /// Told to people, and unlike the other servers'.
    pub name: String,
    /// A leader that vanishes is followed after this.
    pub ttl: Duration,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

/// Why a server cannot be made or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the store")]
    Store(#[source] sealift_store::Error),
    /// The store holds half a copy, or what was carried on elsewhere.
    #[error(transparent)]
    Transfer(#[from] transfer::Unusable),
    #[error("cannot open the folder of blobs")]
    Blobs(#[source] blobs::Error),
    #[error("cannot load the signing key")]
    Signing(#[source] signing::Error),
    #[error("cannot open the folder of secrets")]
    Secrets(#[source] secrets::Error),
    #[error("cannot open the folder of the audit log")]
    Audit(#[source] audit::Error),
    #[error("cannot speak TLS")]
    Tls(#[source] tls::Error),
    #[error("cannot serve the API")]
    Serve(#[source] io::Error),
}

/// What handlers and controllers share.
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) cache: Cache,
    pub(crate) blobs: Blobs,
    pub(crate) logs: Logs,
    pub(crate) secrets: Secrets,
    pub(crate) signing: SigningKey,
    pub(crate) clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    pub(crate) machine_ttl: Duration,
    pub(crate) problems: Problems,
    pub(crate) copies: Copies,
    pub(crate) election: Option<Election>,
    pub(crate) housekeeping: Housekeeping,
    pub(crate) questions: api::Questions,
    /// Where other machines reach this server over TLS.
    pub(crate) advertise: Option<String>,
    /// Held while a project's next run gets its number: those who come meanwhile wait instead of losing a race.
    pub(crate) numbering: Mutex<BTreeMap<ProjectName, Arc<tokio::sync::Mutex<()>>>>,
    pub(crate) audit: AuditLog,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: CancellationToken,
}

/// A server that is ready to run.
pub struct Server {
    inner: Arc<Inner>,
    follower: Follower,
    unix: Option<UnixListener>,
    tcp: Option<(TcpListener, Arc<str>)>,
    tls: Option<tls::Door>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("blobs", &self.inner.blobs).finish_non_exhaustive()
    }
}

impl Server {
    /// Reads the state and loads the keys.
    ///
    /// # Errors
    /// When the store or the state folder cannot be read.
    pub async fn build(options: Options, shutdown: CancellationToken) -> Result<Self, Error> {
        transfer::check(options.store.as_ref()).await?;
        let (cache, follower) = Cache::open(options.store.clone()).await.map_err(Error::Store)?;
        let inner = Inner {
            store: options.store,
            cache,
            blobs: Blobs::open(options.state_dir.join("blobs")).map_err(Error::Blobs)?,
            logs: Logs::new(options.state_dir.join("logs")),
            secrets: Secrets::open(options.state_dir.join("secrets")).map_err(Error::Secrets)?,
            signing: SigningKey::load_or_create(&options.state_dir.join("keys")).map_err(Error::Signing)?,
            clock: options.clock,
            machine_ttl: options.machine_ttl,
            problems: Problems::default(),
            copies: Copies::default(),
            election: options.election,
            housekeeping: options.housekeeping,
            questions: api::Questions::default(),
            advertise: options.advertise,
            numbering: Mutex::default(),
            audit: AuditLog::open(options.state_dir.join("audit")).map_err(Error::Audit)?,
            metrics: Metrics::new(options.open_metrics),
            shutdown,
        };
        let tls = match options.tls {
            Some(options) => Some(tls::Door::build(&inner, options).await.map_err(Error::Tls)?),
            None => None,
        };
        Ok(Self { inner: Arc::new(inner), follower, unix: options.unix, tcp: options.tcp, tls })
    }

    /// The key that this server signs packages with.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        self.inner.signing.public()
    }

    /// Serves until shutdown. Requests under way get a short grace; streams end.
    ///
    /// # Errors
    /// When a listener or the store fails for good.
    pub async fn run(self) -> Result<(), Error> {
        let Server { inner, follower, unix, tcp, tls } = self;
        let stop = inner.shutdown.clone();
        let unix = async {
            let Some(listener) = unix else { return stopped(&stop).await };
            let router = api::router(inner.clone(), Door::Unix);
            axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned()).await
        };
        let tcp = async {
            let Some((listener, token)) = tcp else { return stopped(&stop).await };
            let router = api::router(inner.clone(), Door::Plain(token));
            let router = router.into_make_service_with_connect_info::<SocketAddr>();
            axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned()).await
        };
        let tls = async {
            let Some(door) = tls else { return stopped(&stop).await };
            door.serve(&inner, api::router(inner.clone(), Door::Tls), &stop).await
        };
        let serving = async {
            // What this server wrote while it was put together, its authority for one, is to be seen by the first request.
            if let Err(error) = inner.look_again().await {
                tracing::warn!(error = chain(&error), "what is served may be old until the store answers");
            }
            tokio::try_join!(unix, tcp, tls).map(drop)
        };
        let grace = async {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let work = async {
            tokio::select! {
                outcome = serving => outcome.map_err(Error::Serve),
                outcome = follower.run() => outcome.map_err(Error::Store),
            }
        };
        let end = inner.shutdown.child_token();
        let leading = {
            let (inner, end) = (inner.clone(), end.clone());
            tokio::spawn(async move { leading::run(&inner, &end).await })
        };
        let outcome = tokio::select! {
            outcome = work => outcome,
            () = grace => Ok(()),
        };
        end.cancel();
        tokio::time::timeout(GRACE, leading).await.ok();
        outcome
    }
}

/// What a server does where it does not listen.
async fn stopped(stop: &CancellationToken) -> io::Result<()> {
    stop.cancelled().await;
    Ok(())
}
