//! A running instance and its configuration: when it is read again, and what comes of it.
//!
//! What it decides: that a reload is done when a signal or a file asks for it, one after the other, and that a
//! configuration with an error changes nothing. What it never does: make a stop signal wait, or end the process.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rathole::config::{Loaded, Problem, Severity};
use rathole::reload::Outcome;

use crate::instance::Plan;
use crate::process::{Signals, Wish};
use crate::reader::{Reader, Reading};
use crate::running::Running;
use crate::summary::summary;
use crate::watch::{Seen, Watch, in_background};

/// Pause before files are read again that could not be read for want of descriptors or the like.
const HINDERED_PAUSE: Duration = Duration::from_secs(3);

/// What is needed to read the configuration again.
pub struct Live {
    reader: Arc<Reader>,
    /// Of what was read last, whether it was good or not.
    digest: [u8; 32],
    /// If the files are watched.
    watch: Option<Watch>,
    /// What [`Live::early`] was asked for and has not done.
    asked: Option<Cause>,
    /// Errors for which it was refused last.
    errors: usize,
}

/// What happens before everything is up.
pub enum Early {
    /// A stop signal; its name.
    Stop(&'static str),
    /// Another configuration is to be started, instead.
    Other(Box<(Plan, Loaded)>),
}

/// Why the configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Signal,
    Files,
}

impl Live {
    /// Reads again on a signal; when files change, too, if `watched`. `seen`: what was read at the start. Needs a runtime.
    pub async fn new(reader: Reader, seen: Seen, watched: bool) -> Live {
        let reader = Arc::new(reader);
        // What came through a pipe cannot be read again, whatever happens to the rest.
        let watch = if watched && std::fs::metadata(&reader.main).is_ok_and(|main| main.is_file()) {
            let mut watch = Watch::new();
            watch.look_at(seen.stamps, reader.fragments()).await;
            Some(watch)
        } else {
            None
        };
        Live { reader, digest: seen.digest, watch, asked: None, errors: 0 }
    }

    /// While the roles are started: that may last, if a name does not resolve; then only another configuration helps. May
    /// be dropped: what it was asked for is not forgotten.
    pub async fn early(&mut self, signals: &mut Signals) -> Early {
        loop {
            let cause = match self.cause(signals).await {
                Ok(cause) => cause,
                Err(name) => return Early::Stop(name),
            };
            self.asked = Some(cause);
            let before = self.digest;
            let read = tokio::select! {
                read = self.read(cause) => read,
                name = signals.stop() => return Early::Stop(name),
            };
            self.asked = None;
            match read.map(|reading| reading.found) {
                Some(Ok(_)) if self.digest == before => {
                    self.errors = 0;
                    tracing::info!("reloaded: {}", summary(&[]));
                }
                Some(Ok(found)) => {
                    self.errors = 0;
                    found.1.report.problems().iter().for_each(tell);
                    tracing::info!("reloaded before everything was up: beginning anew");
                    return Early::Other(Box::new(found));
                }
                Some(Err(problems)) => self.errors = refuse(&problems),
                // Nothing new was read: what was refused still is.
                None => {}
            }
        }
    }

    /// Reloads whenever it is asked for, until a stop signal, whose name is returned.
    pub async fn run(mut self, signals: &mut Signals, running: &mut Running) -> &'static str {
        let mut next = self.asked.take();
        let mut told = running.status.to_string();
        running.status.on_refusal(self.errors);
        loop {
            let status = running.status.to_string();
            if status != told {
                tracing::info!("status: {status}");
                told = status;
            }
            let cause = match next.take() {
                Some(cause) => cause,
                None => tokio::select! {
                    cause = self.cause(signals) => match cause {
                        Ok(cause) => cause,
                        Err(name) => return name,
                    },
                    () = running.news() => continue,
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

    /// Completes when there is a reason to read again; or with the name of a stop signal.
    async fn cause(&mut self, signals: &mut Signals) -> Result<Cause, &'static str> {
        let changed = async {
            match &mut self.watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            wish = signals.next() => match wish {
                Wish::Stop(name) => Err(name),
                Wish::Reload => Ok(Cause::Signal),
            },
            () = changed => Ok(Cause::Files),
        }
    }

    async fn reload(&mut self, running: &mut Running, cause: Cause) {
        let Some(reading) = self.read(cause).await else { return };
        match reading.found {
            Ok((plan, loaded)) => {
                loaded.report.problems().iter().for_each(tell);
                tell_outcomes(&loaded, &running.reload(plan).await);
            }
            Err(problems) => running.status.on_refusal(refuse(&problems)),
        }
    }

    /// Reads everything again. None: nobody asked for it, and there is nothing new.
    async fn read(&mut self, cause: Cause) -> Option<Reading> {
        let mut reading = self.again().await?;
        if let Some(watch) = &mut self.watch {
            if cause == Cause::Files && reading.found.is_err() && reading.seen.digest != self.digest {
                // Half of a change, perhaps: somebody writes several files, or one slowly.
                tracing::debug!("there are errors in the changed files; is this all of the change?");
                watch.settled().await;
                reading = self.again().await?;
            }
        }
        let Seen { digest, stamps, .. } = std::mem::take(&mut reading.seen);
        if let Some(watch) = &mut self.watch {
            watch.look_at(stamps, self.reader.fragments()).await;
        }
        let is_new = std::mem::replace(&mut self.digest, digest) != digest;
        if !is_new && cause == Cause::Files {
            tracing::debug!("the files of the configuration hold what they held");
            return None;
        }
        Some(reading)
    }

    /// Reads; while that is impossible for a reason that has nothing to do with the configuration, waits.
    async fn again(&self) -> Option<Reading> {
        let mut told = false;
        loop {
            let reader = self.reader.clone();
            let reading = in_background(move || reader.again()).await?;
            let Some(why) = &reading.seen.hindered else { return Some(reading) };
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    "the configuration cannot be read now: {why}; it is tried again every {} s, and the present one stays in force",
                    HINDERED_PAUSE.as_secs()
                );
            }
            tokio::time::sleep(HINDERED_PAUSE).await;
        }
    }
}

fn tell(problem: &Problem) {
    match problem.severity {
        Severity::Error => tracing::error!("{problem}"),
        Severity::Warning => tracing::warn!("{problem}"),
    }
}

/// Says why nothing is changed; how many errors there are.
fn refuse(problems: &[Problem]) -> usize {
    problems.iter().for_each(tell);
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    let plural = if errors == 1 { "" } else { "s" };
    tracing::error!("reload refused: {errors} error{plural}; the old configuration stays in force");
    errors
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
