//! Joins the stages: the only file that knows all of them. Whatever goes wrong and needs a person leaves the agent running and
//! telling so; it ends when it is told to, or when another agent holds the device's socket.

mod life;
mod look;
mod pulse;
mod service;
mod world;

use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{error, info, warn};
use umbra_carrier::tls::DatePolicy;

use crate::clock::{Clock, Judgement};
use crate::commands::journal::{Journal, JournalError};
use crate::commands::{Commands, Tools};
use crate::confine::Plan;
use crate::control::{self, Action, Context, ControlError, ErrorCode, Failure};
use crate::files::{self, Files};
use crate::identity::{self, DeviceIdentity};
use crate::link::Trouble;
use crate::link::trouble::sentence;
use crate::logging::Logging;
use crate::os::Os;
use crate::paths::Paths;
use crate::registry::Registry;
use crate::session::records::{Records, RecordsError};
use crate::session::{Sessions, listener};
use crate::status::{Board, Stage};
use pulse::Pulse;
use umbra_protocol::RunId;
use world::Agent;

/// How often what could not be read is tried again.
const LOOK: Duration = Duration::from_secs(5);
/// How long sessions may take to end when the agent does.
const DRAIN: Duration = Duration::from_secs(2);

/// What the agent runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything lies.
    pub paths: Paths,
    /// The wall clock.
    pub clock: Clock,
    /// The way to change files.
    pub files: Files,
    /// By what the agent gave up what it doesn't need; nothing if it hasn't.
    pub confined_to: Option<Plan>,
    /// The journal, if the parameter `umbra.log.level` decides how much goes into it.
    pub logging: Option<Logging>,
}

impl Config {
    /// The real clock and disk, below this root.
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            clock: Clock::system(),
            files: Files::new(),
            confined_to: None,
            logging: None,
        }
    }
}

/// Why the agent can't run at all.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No local control.
    #[error("the agent can't run")]
    Control(#[source] ControlError),
}

/// Runs the agent until `shutdown` resolves.
///
/// # Errors
/// [`RunError`] if it can't begin.
pub async fn run(
    config: Config,
    os: Arc<dyn Os>,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let board = Board::new();
    run_with(config, os, board, shutdown).await
}

/// [`run`] with a board that the caller can look at.
///
/// # Errors
/// As [`run`].
pub async fn run_with(
    config: Config,
    os: Arc<dyn Os>,
    board: Board,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), RunError> {
    let mut shutdown = pin!(shutdown);
    directories(&config.paths, &board);
    let registry = Registry::open(&config.paths, &config.files);
    let listening = control::bind(&config.paths).map_err(RunError::Control)?;
    let (sender, mut actions) = control::actions();
    let context = Context {
        board: board.clone(),
        registry: registry.clone(),
        actions: sender,
    };
    let (stopping, stopped) = watch::channel(false);
    let control = crate::task::start(control::server::serve(
        listening,
        context,
        until(stopped.clone()),
    ));
    let pulse = Pulse::default();
    let service = crate::task::start(service::tell(
        board.clone(),
        pulse.clone(),
        until(stopped.clone()),
    ));
    let looking = crate::task::start(look::look(
        config.clone(),
        registry.clone(),
        board.clone(),
        pulse.clone(),
    ));

    let identity = tokio::select! {
        () = &mut shutdown => None,
        identity = come_by_identity(&config, os.as_ref(), &board, &mut actions) => Some(identity),
    };
    if let Some(identity) = identity {
        // The disk may have come after the agent.
        directories(&config.paths, &board);
        registry.reload();
        board.update(|status| status.identity = Some(identity.facts()));
        let mut agent = Agent::new(config, os, board.clone(), registry, identity, pulse);
        let port = crate::task::start(listener::run(agent.sessions.clone()));
        agent.live(&mut actions, shutdown.as_mut()).await;
        board.update(|status| status.go(Stage::Stopping));
        agent.end().await;
        // It ends with the sessions.
        let _ = timeout(DRAIN, port).await;
    }
    info!("the agent ends");
    board.update(|status| status.go(Stage::Stopping));
    stopping.send_replace(true);
    looking.abort();
    for task in [control, service] {
        let _ = timeout(DRAIN, task).await;
    }
    Ok(())
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// The agent's own directories, with their modes.
pub(crate) fn own_directories(paths: &Paths) -> [(PathBuf, u32); 2] {
    [(paths.kept(), 0o700), (paths.state(), 0o700)]
}

fn directories(paths: &Paths, board: &Board) {
    let mut made = own_directories(paths).into_iter();
    let problem = made.find_map(|(path, mode)| files::make_directory(&path, mode).err());
    let problem = problem.map(|problem| sentence(&problem));
    if let Some(problem) = &problem {
        warn!(problem, "the agent's directory can't be made");
    }
    board.update(|status| status.warn("disk", problem));
}

/// Without an identity nothing works: the agent says so and looks again, for as long as it takes.
async fn come_by_identity(
    config: &Config,
    os: &dyn Os,
    board: &Board,
    actions: &mut mpsc::Receiver<Action>,
) -> DeviceIdentity {
    let mut told = String::new();
    loop {
        let problem = match identity::ensure_with(&config.paths, &config.files, os, &config.clock) {
            Ok((identity, done)) => {
                let device = identity.device_id();
                info!(unit = %identity.unit_id(), %device, ?done, "the device's identity");
                if let identity::Done::Replaced(reason) = done
                    && reason.server_will_ask()
                {
                    board.update(|status| {
                        status.warn(
                            "identity",
                            Some(format!("The identity was mended: {}.", reason.clause())),
                        );
                    });
                }
                return identity;
            }
            Err(error) => sentence(&error),
        };
        if problem != told {
            error!(problem, "there is no usable identity");
            board.update(|status| status.go_because(Stage::NoIdentity, problem.as_str()));
            told = problem;
        }
        let waiting = tokio::time::sleep(LOOK);
        let refusing = async {
            while let Some(action) = actions.recv().await {
                let failure = Failure::new(
                    ErrorCode::Unavailable,
                    format!("This device has no usable identity: {told}"),
                );
                answer(action, failure);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = waiting => {}
            () = refusing => {}
        }
    }
}

/// Answers an action that nobody else will.
fn answer(action: Action, failure: Failure) {
    let (Action::Enrol { reply, .. }
    | Action::Leave { reply }
    | Action::Consent { reply, .. }
    | Action::EndSession { reply, .. }) = action;
    // Who asked may have gone.
    let _ = reply.send(Err(failure));
}

impl Agent {
    fn new(
        config: Config,
        os: Arc<dyn Os>,
        board: Board,
        registry: Registry,
        identity: DeviceIdentity,
        pulse: Pulse,
    ) -> Self {
        let records = Records::load(&config.paths, config.files.clone())
            .or_else(|error| {
                damaged(&board, "records", &error);
                match error {
                    RecordsError::Damaged { .. } => {
                        Records::replace_damaged(&config.paths, config.files.clone())
                    }
                    RecordsError::File(_) => Err(error),
                }
            })
            .unwrap_or_else(|_| Records::in_memory(&config.paths, config.files.clone()));
        let journal = Journal::load(&config.paths, config.files.clone(), os.boot_id())
            .or_else(|error| {
                damaged(&board, "commands", &error);
                match error {
                    JournalError::Damaged { .. } => {
                        Journal::replace_damaged(&config.paths, config.files.clone(), os.boot_id())
                    }
                    JournalError::File(_) => Err(error),
                }
            })
            .unwrap_or_else(|_| {
                Journal::in_memory(&config.paths, config.files.clone(), os.boot_id())
            });
        let sessions = Sessions::new(registry.clone(), board.clone(), records);
        let identity = watch::Sender::new(identity);
        let tools = Tools {
            os: Arc::clone(&os),
            registry: registry.clone(),
            board: board.clone(),
            identity: identity.subscribe(),
            clock: config.clock.clone(),
            paths: config.paths.clone(),
            files: config.files.clone(),
        };
        let commands = Commands::new(journal, tools);
        let agent = Self {
            config,
            os,
            board,
            registry,
            identity: Arc::new(identity),
            sessions,
            commands,
            pulse,
            this_run: this_run(),
        };
        agent.trust(Vec::new());
        agent
    }
}

/// Without random bytes the server is told nothing, rather than the same by two devices.
fn this_run() -> Option<RunId> {
    let mut bytes = [0; 16];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    filled.is_ok().then(|| RunId::from_bytes(bytes))
}

fn damaged(board: &Board, topic: &str, error: &(dyn std::error::Error + 'static)) {
    let told = sentence(error);
    error!(problem = told, "a journal can't be used");
    board.update(|status| {
        status.warn(
            &format!("{topic}_journal"),
            Some(format!(
                "{told} It was put aside; the agent goes on with an empty one."
            )),
        );
    });
}

/// Dates in certificates are only believed where the clock can be.
fn dates(clock: &Clock) -> DatePolicy {
    match clock.judge() {
        Judgement::Plausible => DatePolicy::Enforce,
        Judgement::BeforeBuild | Judgement::FarFuture => DatePolicy::Ignore,
    }
}

/// The trouble of a server's root that can't be pinned.
fn unusable(error: &(dyn std::error::Error + 'static)) -> Trouble {
    Trouble::lasting("bad_roots", sentence(error))
}
