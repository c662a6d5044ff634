//! What the assistant needs of the device. The real one looks around in the network and speaks with servers; a scripted one stands
//! in for it in tests.

use std::future::Future;

use tokio::sync::mpsc;
use umbra_setup::{
    Address, Again, Endpoint, Found, LogOnStage, Plan, Progress, Reached, Report, Stage, State,
    TakenOn,
};

/// What was found, and what was wrong on the way.
pub type Findings = (Vec<Found>, Vec<Report>);

/// A stage of the check, how far it is, and what came of it.
pub type StageNote = (Stage, State, Report);

/// The device as the assistant knows it. Whatever waits has a deadline of its own; the assistant may drop it at any time.
pub trait Device: Send + Sync + 'static {
    /// Looks for servers around the device.
    fn discover(&self) -> impl Future<Output = Findings> + Send;
    /// Asks a domain for its gateway.
    fn resolve_mail(&self, domain: String) -> impl Future<Output = Findings> + Send;
    /// Looks for credentials on removable media. It may take as long as a slow stick does.
    fn sticks(&self) -> Findings;
    /// Tries a way in, telling each stage.
    ///
    /// The error: what happened, and what helps.
    fn check(
        &self,
        endpoint: Endpoint,
        stages: mpsc::Sender<StageNote>,
    ) -> impl Future<Output = Result<Reached, Report>> + Send;
    /// Has the device taken on, telling each stage.
    ///
    /// The error: what happened, and where to go on.
    fn log_on(
        &self,
        plan: Plan,
        stages: mpsc::Sender<LogOnStage>,
    ) -> impl Future<Output = Result<TakenOn, (Report, Again)>> + Send;
    /// Keeps the progress.
    fn store(&self, progress: &Progress) -> Result<(), Report>;
    /// Forgets the progress.
    fn forget(&self) -> Result<(), Report>;
    /// The server that the device belongs to, if it does.
    fn belongs(&self) -> Option<Address>;
}

#[cfg(test)]
pub(crate) mod scripted;
