//! A service's control channel: connect, authenticate; when it ends, wait a little and begin anew.
//!
//! After a reload that changes the way to the server, or the token, the new control channel is authenticated before the
//! old one is closed; while it is refused the old one goes on. So either end may learn of a new token first.

use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::session::{End, Session};
use super::troubles::Before;
use super::{Settings, Shared, Wanted};
use crate::backoff::{Backoff, STABLE};
use crate::config::{Secret, diff};
use crate::latest::Latest;
use crate::relay::Millis;
use crate::tasks::Scope;
use crate::transport::{Stream, liveness};
use crate::wire::handshake::{ExpectAck, ExpectChallenge, Refusal};
use crate::wire::{Ack, Hello};

/// How long the server may take to say yes: it may hold a newcomer back while it asks the incumbent.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// After a refusal, a heartbeat that the server sent to the present control channel is here within this time.
const PULSE_TIME: Duration = Duration::from_millis(50);

/// Keeps the service's control channel up until the scope drains (the caller drops this future then).
pub async fn run(shared: Arc<Shared>, wanted: Latest<Wanted>, scope: Scope) {
    let now = wanted.get();
    let backoff = Backoff::new(now.service.retry_interval);
    let keeper = Keeper {
        shared,
        wanted,
        scope,
        now,
        current: None,
        earlier: None,
        backoff,
        told: false,
        refused: false,
        brief: 0,
        asked: false,
    };
    keeper.run().await;
}

/// A control channel that is obeyed.
struct Current {
    ended: Pin<Box<dyn Future<Output = End> + Send>>,
    since: Instant,
    /// Where it is connected: it may be a proxy on the way.
    peer: SocketAddr,
    /// What it was authenticated with.
    token: Secret,
    /// How it reached the server.
    settings: Arc<Settings>,
    beats: Arc<AtomicUsize>,
}

/// A token that was replaced, and until when the server may still want it.
struct Earlier {
    token: Secret,
    until: Instant,
}

struct Keeper {
    shared: Arc<Shared>,
    wanted: Latest<Wanted>,
    scope: Scope,
    /// What was wanted last.
    now: Wanted,
    current: Option<Current>,
    earlier: Option<Earlier>,
    backoff: Backoff,
    /// Whether it was logged that the present control channel cannot be replaced yet.
    told: bool,
    /// Whether it was logged that the server refuses this service.
    refused: bool,
    /// Control channels in a row that did not last: of more than one, single lines tell no more.
    brief: u8,
    /// Whether it was found out that the server refuses for the present control channel's sake, or does not.
    asked: bool,
}

/// What happened first.
enum Step<T> {
    Done(T),
    /// Something else is wanted.
    Changed,
    /// The present control channel has ended, after this time.
    Ended(Duration, End),
}

impl Keeper {
    async fn run(mut self) {
        loop {
            if self.is_settled() {
                self.until_end_or_change().await;
                continue;
            }
            let beats = self.beats();
            let token = self.now.service.token.clone();
            let Step::Done(mut result) = self.attempt(&token).await else { continue };
            if Latest::<Wanted>::CHANGES && matches!(result, Err(End::Refused(Refusal::AuthFailed))) {
                if self.is_in_its_own_way(beats).await {
                    self.current = None;
                    continue;
                }
                let earlier = if self.current.is_none() { self.earlier() } else { None };
                if let Some(earlier) = earlier {
                    let Step::Done(other) = self.attempt(&earlier).await else { continue };
                    result = other;
                }
            }
            // In one process with its server, the channel may end before this task is dropped.
            if self.scope.is_draining() {
                return;
            }
            if let Err(end) = result {
                self.pause_after(Duration::ZERO, &end).await;
            }
        }
    }

    /// Whether the control channel is what is wanted: otherwise another is to take its place.
    fn is_settled(&self) -> bool {
        self.current.as_ref().is_some_and(|current| {
            !Latest::<Wanted>::CHANGES
                || (current.token == self.now.service.token
                    && !must_connect_anew(&current.settings, &self.now.settings))
        })
    }

    /// Takes over what is wanted now; says whether an attempt by what was wanted before is of no use any more.
    fn take_change(&mut self) -> bool {
        let next = self.wanted.take();
        let before = std::mem::replace(&mut self.now, next);
        let Wanted { settings, service } = &self.now;
        let other_pace = before.service.retry_interval != service.retry_interval;
        let other_token = before.service.token != service.token;
        let connects_anew = must_connect_anew(&before.settings, settings);
        let until = Instant::now() + settings.config.token_grace;
        if other_token {
            // What the server knew last; of tokens that it never took none is of use.
            match (&self.current, &mut self.earlier) {
                (Some(current), _) => self.earlier = Some(Earlier { token: current.token.clone(), until }),
                (None, None) => self.earlier = Some(Earlier { token: before.service.token.clone(), until }),
                (None, Some(_)) => {}
            }
        }
        if let Some(earlier) = &mut self.earlier {
            earlier.until = earlier.until.min(until);
        }
        if other_token || connects_anew {
            (self.told, self.refused, self.asked, self.brief) = (false, false, false, 0);
        } else if !other_pace {
            return false;
        }
        self.backoff = Backoff::new(service.retry_interval);
        true
    }

    /// What happens first, while the present control channel, if there is one, is obeyed.
    async fn first<T>(&mut self, mut task: Pin<&mut impl Future<Output = T>>) -> Step<T> {
        loop {
            let ended = async {
                match &mut self.current {
                    Some(current) => (&mut current.ended).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                is_there = self.wanted.changed() => {
                    if !is_there {
                        // The service is about to be ended.
                        return pending().await;
                    }
                    if Latest::<Wanted>::CHANGES && self.take_change() {
                        return Step::Changed;
                    }
                }
                done = &mut task => return Step::Done(done),
                end = ended => {
                    let lasted = self.current.take().map_or(Duration::ZERO, |current| current.since.elapsed());
                    return Step::Ended(lasted, end);
                }
            }
        }
    }

    async fn until_end_or_change(&mut self) {
        let doubt = if self.brief > 1 { STABLE } else { Duration::MAX };
        match self.first(pin!(sleep(doubt))).await {
            Step::Done(()) => {
                self.brief = 0;
                self.tell_connected();
            }
            Step::Ended(lasted, end) if !self.scope.is_draining() => self.pause_after(lasted, &end).await,
            Step::Ended(..) | Step::Changed => {}
        }
    }

    /// A control channel that may soon be lost, as those before it were, is told when it has lasted.
    fn tell_connected(&self) {
        let Some(Current { peer, .. }) = &self.current else { return };
        let (name, server) = (&self.now.service.name, &self.now.settings.config.remote_addr);
        if self.brief > 1 {
            tracing::debug!(service = %name, %server, %peer, "connected to the server");
        } else {
            tracing::info!(service = %name, %server, %peer, "connected to the server");
        }
    }

    /// Connects with a token; what it gives takes the place of the present control channel.
    async fn attempt(&mut self, token: &Secret) -> Step<Result<(), End>> {
        let wanted = self.now.clone();
        let mut connecting = pin!(connect(&wanted, token));
        let session = loop {
            match self.first(connecting.as_mut()).await {
                Step::Done(Ok(session)) => break session,
                Step::Done(Err(end)) => return Step::Done(Err(end)),
                // Often because the server has just taken the new one in its place. (In a build that cannot reload there is
                // never an earlier one.)
                Step::Ended(..) if !Latest::<Wanted>::CHANGES => {}
                Step::Ended(_, end) => {
                    let (name, server) = (&wanted.service.name, &wanted.settings.config.remote_addr);
                    tracing::info!(service = %name, %server, reason = %end, "the earlier control channel has ended");
                }
                Step::Changed => return Step::Changed,
            }
        };
        let (peer, settings, beats) = (session.server, session.settings.clone(), session.beats.clone());
        let obeyed = session.obey(self.shared.clone(), self.wanted.clone(), self.scope.clone());
        let (ended, since, token) = (Box::pin(obeyed), Instant::now(), token.clone());
        // The earlier one ends here, and not before.
        self.current = Some(Current { ended, since, peer, token, settings, beats });
        self.tell_connected();
        if self.is_settled() {
            self.earlier = None;
        }
        Step::Done(Ok(()))
    }

    fn beats(&self) -> usize {
        self.current.as_ref().map_or(0, |current| current.beats.load(Relaxed))
    }

    /// Whether a server that has refused who knows the token did so because this client's present control channel is alive
    /// (`on_duplicate = "refuse"`): then that one has to go first. Such a server asks it for a sign of life. It is looked at
    /// once after a change: what comes later may be nothing but a heartbeat.
    async fn is_in_its_own_way(&mut self, beats: usize) -> bool {
        let knows = self.current.as_ref().is_some_and(|current| current.token == self.now.service.token);
        if !knows || std::mem::replace(&mut self.asked, true) {
            return false;
        }
        let waited = self.first(pin!(sleep(PULSE_TIME))).await;
        matches!(waited, Step::Done(())) && self.beats() != beats
    }

    /// The server may not know the new token yet: the old one may make a control channel.
    fn earlier(&self) -> Option<Secret> {
        let is_good =
            |earlier: &&Earlier| Instant::now() < earlier.until && earlier.token != self.now.service.token;
        self.earlier.as_ref().filter(is_good).map(|earlier| earlier.token.clone())
    }

    /// After a control channel that lasted so long, or an attempt that failed, which lasts no time.
    async fn pause_after(&mut self, lasted: Duration, end: &End) {
        let (pause, now) = (self.backoff.pause(lasted, fastrand::f64()), std::time::Instant::now());
        let (name, server) = (&self.now.service.name, &self.now.settings.config.remote_addr);
        if self.current.is_none() {
            // Not one of many attempts: each loss is told, unless channels do not last, and whom the server refuses.
            let is_news = if lasted >= STABLE {
                (self.brief, self.refused) = (0, false);
                true
            } else if lasted.is_zero() {
                matches!(end, End::Refused(_)) && !std::mem::replace(&mut self.refused, true)
            } else {
                self.brief = self.brief.saturating_add(1);
                self.brief == 1
            };
            let lines = self.shared.troubles().add(end, name, is_news, now);
            if let Some(Before { attempts, services, mixed }) = lines.before {
                let mixed = if mixed { ", for other reasons, too" } else { "" };
                tracing::warn!(
                    %server, reason = %end, services,
                    "no control channel: {attempts} attempts since the last line{mixed}"
                );
            }
            if lines.this {
                tracing::warn!(service = %name, %server, reason = %end, "no control channel, next attempt in {}", Millis(pause));
            } else {
                tracing::debug!(service = %name, reason = %end, "no control channel, next attempt in {}", Millis(pause));
            }
        } else if Latest::<Wanted>::CHANGES && !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                service = %name, %server, reason = %end,
                "no control channel by the new settings yet: the earlier one stays, and it is tried on"
            );
        }
        let mut until = Instant::now() + pause;
        while let Step::Ended(lasted, end) = self.first(pin!(sleep_until(until))).await {
            if !Latest::<Wanted>::CHANGES {
                // There was none that could end.
                continue;
            }
            // There is none now: that is more urgent.
            let pause = self.backoff.pause(lasted, fastrand::f64());
            until = until.min(Instant::now() + pause);
            let (name, server) = (&self.now.service.name, &self.now.settings.config.remote_addr);
            tracing::warn!(service = %name, %server, reason = %end, "no control channel: the earlier one has ended");
        }
    }
}

/// Whether a control channel that was made by the one is none that the other would make.
fn must_connect_anew(old: &Settings, new: &Settings) -> bool {
    diff::other_way(&old.config, &new.config) || diff::revokes(&old.config, &new.config)
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
    Ok(Session { stream, key, server, settings: settings.clone(), beats: Arc::default() })
}

async fn authenticate(
    settings: &Settings,
    name: &str,
    token: &Secret,
    addresses: &[SocketAddr],
) -> Result<(Stream, ExpectAck), End> {
    let mut stream = settings.connector.connect(addresses, true).await.map_err(End::Unreachable)?;
    liveness::ask_soon(stream.tcp(), &settings.config.tcp);
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
