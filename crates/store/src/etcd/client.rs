//! Calls to an etcd cluster: which member is asked, who we are, how long a call may take, and what is tried again.
//!
//! One member is asked until it fails; then the next one is. A call is tried again when that cannot do it twice: it
//! only reads, it may be done twice, or it certainly did not reach etcd's log. Otherwise a call without an answer is
//! [`CallError::Unknown`].
//!
//! Must not know: keys, entries, and what the calls are for.

use std::error::Error as StdError;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, ConnectError, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::wire;

/// The largest answer; a page of the largest entries fits.
const MAX_ANSWER: usize = 64 << 20;
/// The pause after each member was tried once; it doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Why a call was not answered as wished.
#[derive(Debug)]
pub(super) enum CallError {
    /// etcd said no, and did nothing.
    Refused(Status),
    /// Nothing was changed: no member could be reached, or none had a leader, until the time was up.
    NotDone(io::Error),
    /// It may have been done.
    Unknown(io::Error),
}

/// Whether a call may be sent again when no answer came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It changes nothing that anybody could see.
    Harmless,
    /// Doing it twice comes to the same as doing it once.
    Idempotent,
    /// It changes something that must be changed once.
    Never,
}

/// What one attempt came to, if not to an answer.
enum Failure {
    Refused(Status),
    /// The token is not, or no longer, taken; the call was not done.
    NotKnown(Status),
    NotSent(Status),
    Unknown(Status),
}

pub(super) struct Client {
    members: Vec<Member>,
    /// The member that is asked. Watches move with it.
    preferred: watch::Sender<usize>,
    user: Option<(String, String)>,
    token: Mutex<Option<MetadataValue<Ascii>>>,
    timeout: Duration,
    /// Whether a member that is cut off from the others is to refuse. Not when it is asked how it is.
    needs_leader: bool,
}

struct Member {
    url: String,
    endpoint: Endpoint,
    channel: Channel,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<_> = self.members.iter().map(|member| &member.url).collect();
        f.debug_struct("Client").field("members", &members).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects when it has to, and not now.
    pub(super) fn new(endpoints: Vec<Endpoint>, user: Option<(String, String)>, timeout: Duration) -> Client {
        let members: Vec<_> = endpoints
            .into_iter()
            .map(|endpoint| Member {
                url: endpoint.uri().to_string(),
                channel: endpoint.connect_lazy(),
                endpoint,
            })
            .collect();
        // Several servers spread over the members.
        let first = usize::try_from(random() % members.len().max(1) as u64).unwrap_or(0);
        Client {
            members,
            preferred: watch::Sender::new(first),
            user,
            token: Mutex::new(None),
            timeout,
            needs_leader: true,
        }
    }

    /// Asks members for what they know themselves, whether they have a leader or not.
    pub(super) fn without_leader(self) -> Client {
        Client { needs_leader: false, ..self }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The member that is asked now; changes when it failed.
    pub(super) fn preferred(&self) -> watch::Receiver<usize> {
        self.preferred.subscribe()
    }

    /// One request, one answer.
    pub(super) async fn call<Q, A>(
        &self,
        path: &'static str,
        message: Q,
        repeat: Repeat,
    ) -> Result<A, CallError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        self.attempts(repeat, self.timeout / 3, |channel, token, limit| {
            let request = self.request(message.clone(), token, Some(limit));
            async move {
                let mut grpc = ready(channel).await?;
                let path = PathAndQuery::from_static(path);
                Ok(grpc.unary(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
            }
        })
        .await
    }

    /// One request, and the first answer of a call that could give more. Only for what may be done twice, and is done at once:
    /// a member that does not answer soon is not waited for.
    pub(super) async fn call_stream<Q, A>(&self, path: &'static str, message: Q) -> Result<A, CallError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        self.attempts(Repeat::Harmless, self.timeout / 6, |channel, token, limit| {
            let request = self.request(stream::iter([message.clone()]), token, Some(limit));
            async move {
                let mut answers = stream_on::<_, Q, A>(channel, path, request).await?;
                answers.message().await?.ok_or_else(|| Status::unavailable("the answer is missing"))
            }
        })
        .await
    }

    /// Opens a stream of answers on a connection of its own, so that a reader who is slow holds up nobody else, and
    /// gives the first answer along with the member's number. No time limit holds for what comes after.
    pub(super) async fn subscribe<Q, A>(
        &self,
        path: &'static str,
        message: Q,
    ) -> Result<(usize, A, Streaming<A>), CallError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        self.attempts(Repeat::Harmless, self.timeout / 3, |_, token, _| {
            let requests = stream::iter([message.clone()]).chain(stream::pending());
            let request = self.request(requests, token, None);
            let number = *self.preferred.borrow();
            async move {
                let channel = self.member(number).endpoint.connect_lazy();
                let mut answers = stream_on::<_, Q, A>(channel, path, request).await?;
                let first = answers
                    .message()
                    .await?
                    .ok_or_else(|| Status::unavailable("the stream ended at once"))?;
                Ok((number, first, answers))
            }
        })
        .await
    }

    /// One request and a stream of answers, which ends; no time limit holds for what comes after the first.
    pub(super) async fn download<Q, A>(
        &self,
        path: &'static str,
        message: Q,
    ) -> Result<(A, Streaming<A>), CallError>
    where
        Q: prost::Message + Clone + 'static,
        A: prost::Message + Default + 'static,
    {
        self.attempts(Repeat::Harmless, self.timeout / 3, |channel, token, _| {
            let request = self.request(message.clone(), token, None);
            async move {
                let mut grpc = ready(channel).await?;
                let path = PathAndQuery::from_static(path);
                let codec = ProstCodec::<Q, A>::default();
                let mut answers = grpc.server_streaming(request, path, codec).await?.into_inner();
                let first =
                    answers.message().await?.ok_or_else(|| Status::unavailable("the answer is missing"))?;
                Ok((first, answers))
            }
        })
        .await
    }

    /// Says that a member does not do; the next one is asked from now on.
    pub(super) fn give_up(&self, number: usize) {
        if self.members.len() > 1 {
            self.preferred.send_if_modified(|preferred| {
                let is_current = *preferred == number;
                if is_current {
                    *preferred = (number + 1) % self.members.len();
                }
                is_current
            });
        }
    }

    /// A member that says nothing for `patience` leaves the rest of the time to the others, if they may be asked at all.
    async fn attempts<A, F>(
        &self,
        repeat: Repeat,
        patience: Duration,
        mut attempt: impl FnMut(Channel, Option<MetadataValue<Ascii>>, Duration) -> F,
    ) -> Result<A, CallError>
    where
        F: Future<Output = Result<A, Status>>,
    {
        let deadline = Instant::now() + self.timeout;
        let mut asked = 0;
        let mut introduced = false;
        let mut may_be_done = false;
        // What says more than that time has run out.
        let mut said = None;
        loop {
            let number = *self.preferred.borrow();
            let member = self.member(number);
            let left = deadline.saturating_duration_since(Instant::now());
            let limit = if repeat != Repeat::Never { left.min(patience) } else { left };
            let answer = async {
                let token = self.token(member, limit).await?;
                match tokio::time::timeout(limit, attempt(member.channel.clone(), token, limit)).await {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(status)) => Err(Failure::of(status)),
                    Err(_) => Err(Failure::Unknown(Status::deadline_exceeded("it did not answer in time"))),
                }
            };
            let failure = match answer.await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            asked += 1;
            let status = match failure {
                Failure::Refused(status) => return Err(CallError::Refused(status)),
                Failure::NotKnown(status) if introduced || self.user.is_none() => {
                    return Err(CallError::Refused(status));
                }
                // The token is good for some minutes, and no longer than the members live.
                Failure::NotKnown(_) => {
                    introduced = true;
                    *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    continue;
                }
                Failure::Unknown(status) if repeat == Repeat::Never => {
                    self.give_up(number);
                    return Err(CallError::Unknown(said_by(member, &status)));
                }
                Failure::Unknown(status) => {
                    may_be_done |= repeat == Repeat::Idempotent;
                    status
                }
                Failure::NotSent(status) => status,
            };
            tracing::debug!(member = member.url, reason = text(&status), "etcd did not answer");
            self.give_up(number);
            let rounds = asked / self.members.len();
            let pause = if asked % self.members.len() == 0 { pause(rounds) } else { Duration::ZERO };
            if said.is_none() || status.code() != Code::DeadlineExceeded {
                said = Some(said_by(member, &status));
            }
            if Instant::now() + pause >= deadline
                && let Some(cause) = said
            {
                return Err(if may_be_done { CallError::Unknown(cause) } else { CallError::NotDone(cause) });
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Who we are, as etcd knows us since we told it our password; none where there is no user.
    async fn token(&self, member: &Member, limit: Duration) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let Some((name, password)) = &self.user else { return Ok(None) };
        let known = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_some() {
            return Ok(known);
        }
        let message = wire::AuthenticateRequest { name: name.clone(), password: password.clone() };
        let request = self.request(message, None, Some(limit));
        let introduce = async {
            let mut grpc = ready(member.channel.clone()).await?;
            let path = PathAndQuery::from_static(wire::AUTHENTICATE);
            let codec = ProstCodec::<_, wire::AuthenticateResponse>::default();
            Ok(grpc.unary(request, path, codec).await?.into_inner().token)
        };
        let token = match tokio::time::timeout(limit, introduce).await {
            Ok(Ok(token)) => token,
            // Whatever became of it: the call that it was for was not sent.
            Ok(Err(status)) => {
                return Err(match Failure::of(status) {
                    Failure::Refused(status) | Failure::NotKnown(status) => Failure::Refused(status),
                    Failure::NotSent(status) | Failure::Unknown(status) => Failure::NotSent(status),
                });
            }
            Err(_) => return Err(Failure::NotSent(Status::deadline_exceeded("it did not answer in time"))),
        };
        let token = MetadataValue::try_from(token)
            .map_err(|_| Failure::Refused(Status::internal("etcd gave a token that cannot be sent")))?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Ok(Some(token))
    }

    fn request<T>(
        &self,
        message: T,
        token: Option<MetadataValue<Ascii>>,
        limit: Option<Duration>,
    ) -> Request<T> {
        let mut request = Request::new(message);
        // A member that is cut off from the others says so at once, and ends its watches.
        if self.needs_leader {
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        }
        if let Some(token) = token {
            request.metadata_mut().insert("token", token);
        }
        if let Some(limit) = limit {
            request.set_timeout(limit);
        }
        request
    }

    fn member(&self, number: usize) -> &Member {
        &self.members[number % self.members.len()]
    }
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    Ok(grpc)
}

async fn stream_on<S, Q, A>(
    channel: Channel,
    path: &'static str,
    request: Request<S>,
) -> Result<Streaming<A>, Status>
where
    S: Stream<Item = Q> + Send + 'static,
    Q: prost::Message + Clone + 'static,
    A: prost::Message + Default + 'static,
{
    let mut grpc = ready(channel).await?;
    let path = PathAndQuery::from_static(path);
    Ok(grpc.streaming(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
}

impl Failure {
    fn of(status: Status) -> Failure {
        if is_connect_error(&status) {
            return Failure::NotSent(status);
        }
        // What does not begin so was not said by etcd but on the way, which tells nothing of what etcd did.
        let Some(said) = status.message().strip_prefix("etcdserver: ") else {
            return Failure::Unknown(status);
        };
        match (status.code(), said) {
            // The last one of a change of members, for some seconds after one of them came or went.
            (_, "no leader" | "too many requests" | "unhealthy cluster") => Failure::NotSent(status),
            (Code::Unauthenticated, _)
            | (Code::InvalidArgument, "user name is empty" | "revision of auth store is old") => {
                Failure::NotKnown(status)
            }
            (
                Code::InvalidArgument
                | Code::NotFound
                | Code::OutOfRange
                | Code::FailedPrecondition
                | Code::PermissionDenied
                | Code::ResourceExhausted
                | Code::AlreadyExists
                | Code::Unimplemented,
                _,
            ) => Failure::Refused(status),
            _ => Failure::Unknown(status),
        }
    }
}

fn is_connect_error(status: &Status) -> bool {
    let mut error: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(cause) = error {
        if cause.is::<ConnectError>() {
            return true;
        }
        error = cause.source();
    }
    false
}

/// What happened, in words, with the member that it happened with.
fn said_by(member: &Member, status: &Status) -> io::Error {
    let kind = match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::NotConnected,
    };
    io::Error::new(kind, format!("{}: {}", member.url, text(status)))
}

/// The status' own words, and those of its deepest cause, which name the reason.
pub(super) fn text(status: &Status) -> String {
    let mut deepest: Option<&(dyn StdError + 'static)> = status.source();
    while let Some(next) = deepest.and_then(StdError::source) {
        deepest = Some(next);
    }
    match deepest {
        Some(cause) => format!("{}: {cause}", status.message()),
        None => status.message().to_owned(),
    }
}

/// How long to wait after so many rounds: doubling, and a random half of it off, so that many do not come at once.
pub(super) fn pause(rounds: usize) -> Duration {
    let doubled = FIRST_PAUSE * 2_u32.pow(u32::try_from(rounds).unwrap_or(u32::MAX).clamp(1, 10) - 1);
    let longest = doubled.min(LONGEST_PAUSE);
    longest / 2 + longest.mul_f64((random() % 1024) as f64 / 2048.0)
}

/// A number that others do not have; nothing secret hangs on it.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
