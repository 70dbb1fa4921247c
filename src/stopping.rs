//! How an instance ends: relays get a grace, then all is cut.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rathole::counters::Counters;
use rathole::tasks::Scope;

use crate::cli::Exit;
use crate::process::Signals;

/// After a cut, tasks are given this long to end; then the process ends with them.
const AFTER_CUT: Duration = Duration::from_secs(2);

/// The end that the signal `name` asks for; another one hurries it.
pub async fn stop_on(
    name: &str,
    scope: &Scope,
    counters: &[Arc<Counters>],
    grace: Duration,
    mut signals: Signals,
) -> Exit {
    tracing::info!("stopping on {name}: no new visitors, relays have {} s", grace.as_secs());
    match stop(scope, counters, grace, signals.stop()).await {
        Cut { relays: 0, .. } => tracing::info!("stopped: nothing was cut"),
        Cut { relays, hurried: false } => {
            tracing::info!("stopped: {} cut after {} s", were(relays), grace.as_secs());
        }
        Cut { relays, hurried: true } => tracing::info!("stopped: {} cut by a second signal", were(relays)),
    }
    Exit::Ok
}

/// How an end went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Relays that were still running.
    pub relays: u64,
    /// Whether the grace was cut short.
    pub hurried: bool,
}

/// Ends a scope in two steps: relays get `grace`, or until `hurry`; then all is cut.
pub async fn stop<T>(
    scope: &Scope,
    counters: &[Arc<Counters>],
    grace: Duration,
    hurry: impl Future<Output = T>,
) -> Cut {
    scope.drain();
    let mut hurry = pin!(hurry);
    let hurried = tokio::select! {
        biased;
        () = scope.ended() => return Cut { relays: 0, hurried: false },
        _ = &mut hurry => true,
        () = tokio::time::sleep(grace) => false,
    };
    let relays = counters.iter().map(|counters| counters.relays.load(Relaxed)).sum();
    scope.cut();
    if hurried {
        // "At once": tasks get one chance to end, no more.
        let _ = tokio::time::timeout(Duration::from_millis(100), scope.ended()).await;
    } else {
        tokio::select! {
            () = scope.ended() => (),
            _ = &mut hurry => (),
            () = tokio::time::sleep(AFTER_CUT) => (),
        }
    }
    Cut { relays, hurried }
}

/// `1 relay was`, `2 relays were`.
pub fn were(relays: u64) -> String {
    if relays == 1 { "1 relay was".to_owned() } else { format!("{relays} relays were") }
}
