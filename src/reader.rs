//! Reads a configuration: at the start, and again at each reload.

use std::path::PathBuf;

use rathole::config::{self, Files, Loaded, Problem, RoleChoice};

use crate::instance::Plan;
#[cfg(feature = "hot-reload")]
use crate::watch::{Recorder, Seen};

/// Where a configuration is.
#[derive(Debug)]
pub struct Reader {
    /// Its main file.
    pub main: PathBuf,
    /// Laid over it.
    pub overlays: Vec<PathBuf>,
    /// What of it is run.
    pub role: RoleChoice,
}

/// What one reading has found.
pub struct Reading {
    /// What is to run, and where all of it was said; or what is wrong.
    pub found: Result<(Plan, Loaded), Vec<Problem>>,
    /// By which a change is seen.
    #[cfg(feature = "hot-reload")]
    pub seen: Seen,
}

impl Reader {
    /// Reads everything for the first time: from a pipe, too.
    pub fn first(&self) -> Reading {
        self.read(&config::SystemFiles)
    }

    /// Reads everything again.
    #[cfg(feature = "hot-reload")]
    pub fn again(&self) -> Reading {
        self.read(&config::RegularFiles)
    }

    /// Where its fragments are.
    #[cfg(feature = "hot-reload")]
    pub fn fragments(&self) -> PathBuf {
        config::fragments::directory(&self.main)
    }

    fn read(&self, files: &dyn Files) -> Reading {
        #[cfg(feature = "hot-reload")]
        let recorder = Recorder::new(files);
        #[cfg(feature = "hot-reload")]
        let files: &dyn Files = &recorder;
        let request = config::Request {
            main: &self.main,
            overlays: &self.overlays,
            role: self.role,
            files,
            static_only: false,
        };
        let found = match config::load(&request) {
            Ok(mut loaded) => Plan::prepare(&mut loaded).map(|plan| (plan, loaded)),
            Err(report) => Err(report.problems().to_vec()),
        };
        Reading {
            found,
            #[cfg(feature = "hot-reload")]
            seen: recorder.seen(),
        }
    }
}
