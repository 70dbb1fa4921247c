//! A service's control channel: connect, authenticate; when it ends, wait a little and begin anew.
//!
//! After a reload that changes the way to the server, or the token, the new control channel is authenticated before the
//! old one is closed; while it is refused the old one goes on. So either end may learn of a new token first.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::session::{End, Session};
use super::{Settings, Shared, Wanted};
use crate::backoff::Backoff;
use crate::config::{Secret, diff};
use crate::tasks::Scope;
use crate::transport::Stream;
use crate::wire::handshake::{ExpectAck, ExpectChallenge, Refusal};
use crate::wire::{Ack, Hello};

/// How long the server may take to say yes: it may hold a newcomer back while it asks the incumbent.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps the service's control channel up until the scope drains (the caller drops this future then).
pub async fn run(shared: Arc<Shared>, wanted: watch::Receiver<Wanted>, scope: Scope) {
    let now = wanted.borrow().clone();
    let keeper = Keeper {
        backoff: Backoff::new(now.service.retry_interval),
        shared,
        wanted,
        scope,
        now,
        current: None,
        earlier: None,
        told: false,
    };
    keeper.run().await;
}

/// A control channel that is obeyed.
struct Current {
    ended: Pin<Box<dyn Future<Output = End> + Send>>,
    since: Instant,
    /// What it was authenticated with.
    token: Secret,
    /// Whether all is as it is wanted: otherwise another is to take its place.
    settled: bool,
}

/// A token that was replaced, and until when the server may still want it.
struct Earlier {
    token: Secret,
    until: Instant,
}

struct Keeper {
    shared: Arc<Shared>,
    wanted: watch::Receiver<Wanted>,
    scope: Scope,
    /// What was wanted last.
    now: Wanted,
    current: Option<Current>,
    earlier: Option<Earlier>,
    backoff: Backoff,
    /// Whether it was logged that the present control channel cannot be replaced yet.
    told: bool,
}

/// What happened first.
enum Step<T> {
    Done(T),
    /// Something else is wanted.
    Changed,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            if self.current.as_ref().is_some_and(|current| current.settled) {
                self.until_end_or_change().await;
                continue;
            }
            let token = self.now.service.token.clone();
            let Step::Done(result) = self.attempt(&token).await else { continue };
            let result = match result {
                Err(End::Refused(_)) if self.current.is_none() && self.may_use_earlier() => {
                    self.use_earlier().await
                }
                result => result,
            };
            // In one process with its server, the channel may end before this task is dropped.
            if self.scope.is_draining() {
                return;
            }
            match result {
                Ok(()) => {}
                Err(end) => self.pause_after(Duration::ZERO, &end).await,
            }
        }
    }

    /// The way to the server, or the token, is another one now.
    fn take_change(&mut self) {
        let next = self.wanted.borrow_and_update().clone();
        let before = std::mem::replace(&mut self.now, next);
        self.backoff = Backoff::new(self.now.service.retry_interval);
        self.told = false;
        let grace = self.now.settings.config.token_grace;
        if before.service.token != self.now.service.token {
            self.earlier =
                Some(Earlier { token: before.service.token.clone(), until: Instant::now() + grace });
        }
        if grace.is_zero() {
            self.earlier = None;
        }
        if let Some(current) = &mut self.current {
            current.settled = false;
        }
    }

    /// Waits for a change that needs another control channel. What does not is seen by who needs it.
    async fn changed(wanted: &mut watch::Receiver<Wanted>, now: &Wanted) {
        loop {
            if wanted.changed().await.is_err() {
                // The service is about to be ended.
                return std::future::pending().await;
            }
            let next = wanted.borrow_and_update();
            let other_way = !Arc::ptr_eq(&next.settings, &now.settings)
                && diff::other_way(&next.settings.config, &now.settings.config);
            if other_way || next.service.token != now.service.token {
                return;
            }
        }
    }

    /// Does something while the present control channel, if there is one, is obeyed.
    async fn beside<T>(&mut self, task: impl Future<Output = T>) -> Step<T> {
        let mut task = pin!(task);
        loop {
            let ended = async {
                match &mut self.current {
                    Some(current) => (&mut current.ended).await,
                    None => std::future::pending().await,
                }
            };
            let end = tokio::select! {
                biased;
                () = Self::changed(&mut self.wanted, &self.now) => {
                    self.take_change();
                    return Step::Changed;
                }
                done = &mut task => return Step::Done(done),
                end = ended => end,
            };
            self.current = None;
            let (name, server) = (&self.now.service.name, &self.now.settings.config.remote_addr);
            tracing::warn!(service = %name, %server, reason = %end, "the earlier control channel has ended");
        }
    }

    async fn until_end_or_change(&mut self) {
        let Some(current) = &mut self.current else { return };
        let end = tokio::select! {
            biased;
            () = Self::changed(&mut self.wanted, &self.now) => return self.take_change(),
            end = &mut current.ended => end,
        };
        let lasted = current.since.elapsed();
        self.current = None;
        if !self.scope.is_draining() {
            self.pause_after(lasted, &end).await;
        }
    }

    /// Connects with a token; what it gives takes the place of the present control channel.
    async fn attempt(&mut self, token: &Secret) -> Step<Result<(), End>> {
        let wanted = self.now.clone();
        match self.beside(connect(&wanted, token)).await {
            Step::Changed => Step::Changed,
            Step::Done(Err(end)) => Step::Done(Err(self.refused(end))),
            Step::Done(Ok(session)) => {
                let (name, server, peer) =
                    (&wanted.service.name, &wanted.settings.config.remote_addr, session.server);
                tracing::info!(service = %name, %server, %peer, "connected to the server");
                let settled = *token == self.now.service.token;
                if settled {
                    self.earlier = None;
                    self.told = false;
                }
                let obeyed = session.obey(self.shared.clone(), self.wanted.clone(), self.scope.clone());
                // The earlier one ends here, and not before.
                self.current = Some(Current {
                    ended: Box::pin(obeyed),
                    since: Instant::now(),
                    token: token.clone(),
                    settled,
                });
                Step::Done(Ok(()))
            }
        }
    }

    /// A server that refuses who knows the token has a client already, and that may be this one: then the earlier control
    /// channel has to go first.
    fn refused(&mut self, end: End) -> End {
        let same_token = self.current.as_ref().is_some_and(|current| current.token == self.now.service.token);
        if same_token && matches!(end, End::Refused(Refusal::AuthFailed)) {
            self.current = None;
        }
        end
    }

    fn may_use_earlier(&self) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| Instant::now() < earlier.until)
    }

    /// The server does not know the new token yet, and there is no control channel: the old token makes one.
    async fn use_earlier(&mut self) -> Result<(), End> {
        let Some(earlier) = &self.earlier else { return Err(End::Refused(Refusal::AuthFailed)) };
        let token = earlier.token.clone();
        match self.attempt(&token).await {
            Step::Done(result) => result,
            Step::Changed => Ok(()),
        }
    }

    async fn pause_after(&mut self, lasted: Duration, end: &End) {
        let pause = self.backoff.pause(lasted, fastrand::f64());
        let (name, server) = (&self.now.service.name, &self.now.settings.config.remote_addr);
        if self.current.is_none() {
            tracing::warn!(service = %name, %server, reason = %end, "no control channel, next attempt in {pause:.1?}");
        } else if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                service = %name, %server, reason = %end,
                "no control channel by the new settings yet: the earlier one stays, and it is tried on"
            );
        }
        self.beside(sleep(pause)).await;
    }
}

async fn connect(wanted: &Wanted, token: &Secret) -> Result<Session, End> {
    let Wanted { settings, service } = wanted;
    let patience = settings.config.handshake_timeout;
    let addresses = timeout(patience, settings.connector.resolve())
        .await
        .map_err(|_| End::TimedOut("resolving the server's name"))?
        .map_err(End::Unreachable)?;
    let (mut stream, expect_ack) =
        timeout(patience, authenticate(settings, &service.name, token, &addresses))
            .await
            .map_err(|_| End::TimedOut("connecting to the server, or the handshake with it,"))??;
    let mut ack = [0; Ack::LEN];
    timeout(ACK_TIMEOUT, stream.read_exact(&mut ack))
        .await
        .map_err(|_| End::TimedOut("the server's answer"))??;
    let key = expect_ack.on_ack(&ack)?.map_err(End::Refused)?;
    let server = stream.tcp().peer_addr()?;
    Ok(Session { stream, key, server, settings: settings.clone() })
}

async fn authenticate(
    settings: &Settings,
    name: &str,
    token: &Secret,
    addresses: &[SocketAddr],
) -> Result<(Stream, ExpectAck), End> {
    let mut stream = settings.connector.connect(addresses, true).await.map_err(End::Unreachable)?;
    let (hello, expect_challenge) = ExpectChallenge::new(name, token);
    stream.write_all(&hello).await?;
    stream.flush().await?;
    let mut challenge = [0; Hello::LEN];
    let (head, rest) = challenge.split_at_mut(Hello::HEAD);
    stream.read_exact(head).await?;
    // Whoever speaks first and something else (SSH, a mail server) is not waited for.
    Hello::decode_head(head)?;
    stream.read_exact(rest).await?;
    let (auth, expect_ack) = expect_challenge.on_challenge(&challenge)?;
    stream.write_all(&auth).await?;
    stream.flush().await?;
    Ok((stream, expect_ack))
}
