//! `rathole server` and `rathole client`: with a file, or ad hoc.

use std::path::PathBuf;

use rathole::config::RoleChoice;

use super::{Command, Run, Stop, WatchArgs};
use crate::adhoc::{ClientPlan, PlanArgs, ServerPlan};

/// The arguments of either command, as given.
#[derive(Debug, Default)]
pub struct RoleArgs {
    pub config: Option<PathBuf>,
    pub overlays: Vec<PathBuf>,
    pub no_visitor_log: bool,
    pub watch: WatchArgs,
    /// `--token` was used, which does not exist.
    pub token: bool,
    pub plan: PlanArgs,
}

impl RoleArgs {
    /// Decides between a file and ad hoc, and refuses a mixture.
    pub fn command(self, role: RoleChoice) -> Result<Command, Stop> {
        if self.token {
            return Err(Stop::usage(NO_TOKEN_ARGUMENT));
        }
        let visitor_log = !self.no_visitor_log;
        let Some(config) = self.config else {
            if !self.overlays.is_empty() {
                return Err(Stop::usage("'--overlay' is merged over a CONFIG, and none is given"));
            }
            if let Some(option) = self.watch.first_given() {
                return Err(Stop::usage(format!("'{option}' is about a CONFIG, and none is given")));
            }
            let command = match role {
                RoleChoice::Client => ClientPlan::new(self.plan, visitor_log).map(Command::AdHocClient),
                _ => ServerPlan::new(self.plan, visitor_log).map(Command::AdHocServer),
            };
            return command.map_err(Stop::usage);
        };
        if let Some(option) = self.plan.first_given() {
            return Err(Stop::usage(format!(
                "'{option}' is for use without a file; with CONFIG, write it there"
            )));
        }
        let watch = self.watch.choice()?;
        Ok(Command::Run(Run { config, overlays: self.overlays, role, visitor_log, watch }))
    }
}

const NO_TOKEN_ARGUMENT: &str = "'--token' does not exist: every user of a machine can read the arguments of every \
     process; give the token in the environment variable RATHOLE_TOKEN, or with '--token-file PATH' ('-' is stdin) \
     or '--token-env NAME'";
