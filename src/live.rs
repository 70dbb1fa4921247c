//! A running instance and its configuration: when it is read again, and what comes of it.
//!
//! What it decides: that a reload is done when a signal or a file asks for it, one after the other, and that a
//! configuration with an error changes nothing. What it never does: make a stop signal wait, or end the process.

use std::pin::pin;
use std::sync::Arc;

use rathole::config::{Loaded, Problem, Severity};
use rathole::reload::Outcome;

use crate::process::{Signals, Wish};
use crate::reader::{Reader, Reading};
use crate::running::Running;
use crate::summary::summary;
use crate::watch::{Seen, Watch};

/// What is needed to read the configuration again.
pub struct Live {
    reader: Arc<Reader>,
    watching: Option<Watching>,
}

/// The files of the configuration are watched.
struct Watching {
    watch: Watch,
    /// Of what was read last, whether it was good or not.
    digest: [u8; 32],
}

/// Why the configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Signal,
    Files,
}

impl Live {
    /// Reads again on a signal, and when files change, if `watched`: what was read at the start. Needs a runtime.
    pub fn new(reader: Reader, watched: Option<Seen>) -> Live {
        let reader = Arc::new(reader);
        let watching = watched.map(|Seen { digest, stamps }| {
            let mut watch = Watch::new();
            watch.look_at(stamps, &reader.fragments());
            Watching { watch, digest }
        });
        Live { reader, watching }
    }

    /// Reloads whenever it is asked for, until a stop signal, whose name is returned. `again`: at once, too.
    pub async fn run(&mut self, signals: &mut Signals, running: &mut Running, again: bool) -> &'static str {
        let mut next = again.then_some(Cause::Signal);
        loop {
            let cause = match next.take() {
                Some(cause) => cause,
                None => tokio::select! {
                    wish = signals.next() => match wish {
                        Wish::Stop(name) => return name,
                        Wish::Reload => Cause::Signal,
                    },
                    () = self.changed() => Cause::Files,
                },
            };
            let mut reload = pin!(self.reload(running, cause));
            loop {
                tokio::select! {
                    wish = signals.next() => match wish {
                        Wish::Stop(name) => return name,
                        // It may be about something that was read already.
                        Wish::Reload => next = Some(Cause::Signal),
                    },
                    () = &mut reload => break,
                }
            }
        }
    }

    /// Completes when the files may have been changed. May be dropped and called again.
    async fn changed(&mut self) {
        if let Some(watching) = &mut self.watching {
            watching.watch.changed().await;
        } else {
            std::future::pending().await
        }
    }

    async fn reload(&mut self, running: &mut Running, cause: Cause) {
        let Some(reading) = self.read(cause).await else { return };
        match reading.found {
            Ok((plan, loaded)) => {
                loaded.report.problems().iter().for_each(tell);
                tell_outcomes(&loaded, &running.reload(plan).await);
            }
            Err(problems) => refuse(&problems),
        }
    }

    /// Reads everything again. None: nobody asked for it, and there is nothing new.
    async fn read(&mut self, cause: Cause) -> Option<Reading> {
        let reading = again(&self.reader).await?;
        if let Some(watching) = &mut self.watching {
            return watching.read(&self.reader, reading, cause).await;
        }
        Some(reading)
    }
}

impl Watching {
    /// Takes a reading for the newest one, or a newer one instead. None: nobody asked for it, and there is nothing new.
    async fn read(&mut self, reader: &Arc<Reader>, mut reading: Reading, cause: Cause) -> Option<Reading> {
        if cause == Cause::Files && reading.found.is_err() && reading.seen.digest != self.digest {
            // Half of a change, perhaps: somebody writes several files, or one slowly.
            self.watch.settled().await;
            reading = again(reader).await?;
        }
        let Seen { digest, stamps } = std::mem::take(&mut reading.seen);
        self.watch.look_at(stamps, &reader.fragments());
        let is_new = std::mem::replace(&mut self.digest, digest) != digest;
        if !is_new && cause == Cause::Files {
            tracing::debug!("the files of the configuration hold what they held");
            return None;
        }
        Some(reading)
    }
}

/// Reads everything again, where it makes nobody wait. None: that has failed, which was logged.
async fn again(reader: &Arc<Reader>) -> Option<Reading> {
    let reader = reader.clone();
    match tokio::task::spawn_blocking(move || reader.again()).await {
        Ok(reading) => Some(reading),
        Err(error) => {
            tracing::error!(
                "the configuration could not be read again, which is a fault of rathole: {error}"
            );
            None
        }
    }
}

fn tell(problem: &Problem) {
    match problem.severity {
        Severity::Error => tracing::error!("{problem}"),
        Severity::Warning => tracing::warn!("{problem}"),
    }
}

fn refuse(problems: &[Problem]) {
    problems.iter().for_each(tell);
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let plural = if errors == 1 { "" } else { "s" };
    tracing::error!("reload refused: {errors} error{plural}; the old configuration stays in force");
}

fn tell_outcomes(loaded: &Loaded, outcomes: &[(&'static str, Outcome)]) {
    for (_, outcome) in outcomes {
        for key in &outcome.needs_restart {
            let message = "only a restart takes this over; until then the old value is in force";
            tell(&loaded.problem(Severity::Warning, key, message.to_owned()));
        }
        for (key, why) in &outcome.failed {
            tell(&loaded.problem(Severity::Error, key, why.clone()));
        }
    }
    tracing::info!("reloaded: {}", summary(outcomes));
}
