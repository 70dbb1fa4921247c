//! From a proven token to the session: a service has one client, so what becomes of a second one?
//!
//! `replace`: it takes the first one's place, at once; if two that are alive do so by turns, it is held back. `refuse`: it is told
//! no while the first one is alive, that is, was authenticated with the present token and its kernel acknowledges a
//! heartbeat that is sent now. The handshake's deadline has been met; everything here has one of its own.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep_until, timeout};

use super::control::{self, Demand};
use super::door::{Acquaintance, Complaint};
use super::pulse;
use super::registry::{Denied, Event, Incumbent, NewSession, Over, Service, SessionId};
use super::session::refuse;
use super::takeovers::Wait;
use super::{Settings, Shared};
use crate::config::{OnDuplicate, Secret};
use crate::counters::Counters;
use crate::tasks::Scope;
use crate::transport::{Stream, liveness, tcp};
use crate::wire::{Ack, ControlCommand, ServiceDigest, SessionKey};

/// How often a newcomer may find, when it wants to take a place, that somebody else has just taken it. (Who only waits for
/// its turn may find that as often as it happens: in five seconds it is its turn whoever is there.)
const ATTEMPTS: usize = 3;

/// A client that has proven that it knows its service's token.
pub struct Newcomer {
    /// Its control channel; no Ack was sent.
    pub stream: Stream,
    /// Its address.
    pub peer: SocketAddr,
    /// The service's digest.
    pub digest: ServiceDigest,
    /// The session's key.
    pub key: SessionKey,
    /// The token that it knows: the service's present one, or one that is still good.
    pub token: Secret,
    /// The service.
    pub service: Service,
}

/// What becomes of a newcomer.
enum Decision {
    /// It has the place of this one, or a free place.
    Admit(Over),
    /// The incumbent at this address is alive.
    Refuse(SocketAddr),
    /// The incumbent's session is over: who is there now?
    LookAgain,
    /// It has gone, or there is no place to wait.
    GiveUp(&'static str),
}

impl Newcomer {
    /// Admits it or not, and says so.
    pub async fn serve(mut self, shared: Arc<Shared>, settings: Arc<Settings>) {
        let mut attempts = 0;
        let mut turn = None;
        while attempts < ATTEMPTS {
            let Some(incumbent) = shared.registry.incumbent(&self.digest) else {
                match self.begin(&shared, &settings, Over::Only(None)) {
                    Ok(()) => return,
                    Err((same, Denied::Taken)) => self = *same,
                    Err((same, denied)) => return same.turn_away(&shared, denied).await,
                }
                attempts += 1;
                continue;
            };
            let turn = match &mut turn {
                Some(turn) => turn,
                none => match Turn::new(&shared, self.digest) {
                    Some(new) => none.insert(new),
                    None => return self.give_up("too many others wait to take the client's place"),
                },
            };
            // Who knows only an old token does not take the place of who knows the present one and is alive.
            let is_outdone = incumbent.is_present && !shared.registry.is_present(&self.digest, &self.token);
            let decision = match settings.config.on_duplicate {
                OnDuplicate::Replace if !is_outdone => self.await_turn(&incumbent, turn).await,
                // Both know only a token that was replaced: as they may both come, they take turns.
                OnDuplicate::Refuse if !incumbent.is_present => self.await_turn(&incumbent, turn).await,
                OnDuplicate::Replace | OnDuplicate::Refuse => {
                    attempts += 1;
                    self.feel_pulse(&incumbent).await
                }
            };
            match decision {
                Decision::GiveUp(why) => return self.give_up(why),
                Decision::Refuse(other) => return self.refuse(&shared, other).await,
                Decision::LookAgain => {}
                Decision::Admit(over) => match self.begin(&shared, &settings, over) {
                    Ok(()) => return,
                    Err((same, Denied::Taken)) => self = *same,
                    Err((same, denied)) => return same.turn_away(&shared, denied).await,
                },
            }
        }
        self.give_up("others were faster");
    }

    /// Holds the newcomer back, if it must wait, and while the incumbent is alive: it is asked.
    async fn await_turn(&mut self, incumbent: &Incumbent, turn: &mut Turn<'_>) -> Decision {
        let Some(mut wait) = turn.wait() else { return Decision::Admit(Over::Anyone) };
        let Newcomer { service, peer, stream, .. } = self;
        turn.tell_once(&service.config.name, *peer, incumbent.client, wait);
        let mut unexpected = [0];
        let mut death = pin!(async {
            if incumbent.demand.pulse.is_felt().await {
                std::future::pending().await
            }
        });
        loop {
            tokio::select! {
                biased;
                () = service.scope.draining() => return Decision::GiveUp("the service is gone"),
                () = incumbent.scope.draining() => return Decision::LookAgain,
                _ = stream.read(&mut unexpected) => return Decision::GiveUp("it has gone"),
                () = &mut death => break,
                () = sleep_until(wait.look.into()) => match turn.wait() {
                    Some(more) => wait = more,
                    None => break,
                }
            }
        }
        // Another may have waited as long: not each has the place for a moment only.
        Decision::Admit(Over::Only(Some(incumbent.session)))
    }

    async fn feel_pulse(&self, incumbent: &Incumbent) -> Decision {
        let is_alive = incumbent.demand.pulse.is_felt();
        tokio::select! {
            biased;
            () = self.service.scope.draining() => Decision::GiveUp("the service is gone"),
            () = incumbent.scope.draining() => Decision::Admit(Over::Only(Some(incumbent.session))),
            alive = is_alive => match alive {
                true => Decision::Refuse(incumbent.client),
                false => Decision::Admit(Over::Dead(incumbent.session)),
            },
        }
    }

    fn give_up(self, why: &str) {
        tracing::debug!(service = %self.service.config.name, peer = %self.peer, "newcomer not admitted: {why}");
    }

    /// A reload was faster.
    async fn turn_away(self, shared: &Shared, denied: Denied) {
        if let Denied::Outdone(incumbent) = denied {
            return self.refuse(shared, incumbent).await;
        }
        tracing::debug!(service = %self.service.config.name, peer = %self.peer, "newcomer refused: its token is good no more");
        // Whether it hears that is its own affair.
        let _ = timeout(control::WRITE_TIMEOUT, refuse(self.stream)).await;
    }

    async fn refuse(self, shared: &Shared, incumbent: SocketAddr) {
        Counters::add(&shared.counters.duplicates, 1);
        let service = &self.service.config.name;
        if let Some(times) = shared.door.complain(Complaint::Duplicate, service) {
            tracing::warn!(%service, peer = %self.peer, %incumbent, times, "client refused: another one is alive");
        }
        // Whether it hears that is its own affair.
        let _ = timeout(control::WRITE_TIMEOUT, refuse(self.stream)).await;
    }

    /// Begins the session, in a task of its own. Err: it may not.
    fn begin(
        self,
        shared: &Arc<Shared>,
        settings: &Arc<Settings>,
        over: Over,
    ) -> Result<(), (Box<Newcomer>, Denied)> {
        let scope = self.service.scope.child();
        let demand = Arc::new(Demand::default());
        let new = NewSession {
            digest: self.digest,
            key: self.key,
            token: self.token.clone(),
            service: self.service.clone(),
            client: self.peer,
            scope: scope.clone(),
            demand: demand.clone(),
        };
        let begun = shared.registry.begin(new, over, now());
        let (session, replaced) = match begun {
            Ok(begun) => begun,
            Err(denied) => return Err((Box::new(self), denied)),
        };
        let Newcomer { stream, peer, digest, key, token, service } = self;
        match replaced {
            Some(old) => {
                tell_replaced(shared, &service, peer, old.client);
                // In this order: its task asks whether it was replaced.
                shared.takeovers().on_takeover(digest, old.session, now());
                old.cut();
            }
            None => tell_connected(shared, &service, peer),
        }
        tcp::set_nodelay(stream.tcp(), true);
        let config = &settings.config;
        liveness::watch_heartbeats(stream.tcp(), &config.tcp, config.heartbeat_interval);
        let acquaintance = shared.door.acquaint(peer);
        let (shared, settings) = (shared.clone(), settings.clone());
        let begun =
            Begun { shared, settings, digest, key, token, session, service, peer, demand, acquaintance };
        // A task of its own: the handshake's future is large.
        let owner = scope.clone();
        scope.spawn(async move { begun.serve(stream, owner).await });
        Ok(())
    }
}

/// A newcomer's place among those who want an incumbent's; given up on drop.
struct Turn<'a> {
    shared: &'a Shared,
    digest: ServiceDigest,
    came: Instant,
    told: bool,
}

impl<'a> Turn<'a> {
    fn new(shared: &'a Shared, digest: ServiceDigest) -> Option<Self> {
        let came = now();
        // The lock is given up first: a turn that ends takes it.
        let may_wait = shared.takeovers().on_newcomer(digest, came);
        may_wait.then(|| Turn { shared, digest, came, told: false })
    }

    /// None: now it is its turn.
    fn wait(&self) -> Option<Wait> {
        self.shared.takeovers().wait(&self.digest, self.came, now())
    }

    fn tell_once(&mut self, service: &Arc<str>, peer: SocketAddr, incumbent: SocketAddr, wait: Wait) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let wait = wait.until - self.came;
        match self.shared.door.complain(Complaint::HeldBack, service) {
            Some(times) => tracing::info!(
                %service,
                %peer,
                %incumbent,
                times = several(times),
                "client held back for {wait:?}: two clients of this service replace each other"
            ),
            None => tracing::debug!(%service, %peer, %incumbent, "client held back for {wait:?}"),
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.shared.takeovers().on_done(&self.digest);
    }
}

/// A session from Ack to the end of its control channel.
struct Begun {
    shared: Arc<Shared>,
    settings: Arc<Settings>,
    digest: ServiceDigest,
    key: SessionKey,
    token: Secret,
    session: SessionId,
    service: Service,
    peer: SocketAddr,
    demand: Arc<Demand>,
    acquaintance: Acquaintance,
}

impl Begun {
    async fn serve(self, mut stream: Stream, scope: Scope) {
        let (name, peer) = (&self.service.config.name, self.peer);
        let connected = self.shared.counters.connected();
        let mut is_acknowledged = false;
        tokio::select! {
            end = self.until_end(&mut stream, &mut is_acknowledged) => {
                match self.shared.door.complain(Complaint::Lost, name) {
                    Some(times) => {
                        tracing::info!(service = %name, %peer, reason = %end, times = several(times), "client lost");
                    }
                    None => tracing::debug!(service = %name, %peer, reason = %end, "client lost"),
                }
            }
            () = scope.draining() => tracing::debug!(service = %name, %peer, "control channel closed by this server"),
        }
        drop(connected);
        let registry = &self.shared.registry;
        let is_last = registry.end(&self.digest, &self.key, self.session);
        // For newcomers who wait for the place.
        scope.drain();
        drop(self.acquaintance);
        if self.shared.takeovers().is_replaced(&self.digest, self.session) {
            // Who is replaced so soon was admitted all the same: a heartbeat in the place of Ack would be a refusal.
            let last_word = match is_acknowledged {
                true => ControlCommand::HeartBeat.encode(),
                false => Ack::Ok.encode(),
            };
            let was_live = tokio::select! {
                biased;
                was_live = pulse::of_replaced(stream, &last_word) => was_live,
                // A stop waits for nobody's answer. The word was sent at once, and no newcomer comes any more.
                () = self.service.scope.draining() => false,
            };
            self.shared.takeovers().on_heard(&self.digest, self.session, was_live);
        } else {
            drop(stream);
        }
        // Where another has its place, the service hears of that one only: its visitors need not know.
        if is_last {
            let revoked = !registry.is_good(&self.digest, &self.token, now());
            // A service that is gone needs not to know.
            let _ = self.service.events.send(Event::ClientWent { session: self.session, revoked }).await;
        }
    }

    async fn until_end(&self, stream: &mut Stream, is_acknowledged: &mut bool) -> control::End {
        // The service learns of the session before any of its data channels can come.
        let came = Event::ClientCame { session: self.session, demand: self.demand.clone() };
        if self.service.events.send(came).await.is_err() {
            return control::End::Failed(io::Error::other("the service is gone"));
        }
        let acknowledged = timeout(self.settings.config.handshake_timeout, async {
            stream.write_all(&Ack::Ok.encode()).await?;
            stream.flush().await
        });
        match acknowledged.await {
            Ok(Ok(())) => {
                *is_acknowledged = true;
                control::serve(stream, &self.demand, self.settings.config.heartbeat_interval).await
            }
            Ok(Err(error)) => control::End::Failed(error),
            Err(_) => control::End::Failed(io::ErrorKind::TimedOut.into()),
        }
    }
}

fn tell_replaced(shared: &Shared, service: &Service, peer: SocketAddr, replaced: SocketAddr) {
    let service = &service.config.name;
    match shared.door.complain(Complaint::Replaced, service) {
        Some(times) => {
            tracing::warn!(%service, %peer, %replaced, times = several(times), "client replaced another");
        }
        None => tracing::debug!(%service, %peer, %replaced, "client replaced another"),
    }
}

fn tell_connected(shared: &Shared, service: &Service, peer: SocketAddr) {
    let service = &service.config.name;
    match shared.door.complain(Complaint::Connected, service) {
        Some(times) => tracing::info!(%service, %peer, times = several(times), "client connected"),
        None => tracing::debug!(%service, %peer, "client connected"),
    }
}

/// For a line that is for one event as a rule.
fn several(times: u64) -> Option<u64> {
    (times > 1).then_some(times)
}

/// The clock of tokio, which a test can turn.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
