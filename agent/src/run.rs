//! Joins the stages: the only file that knows all of them. Whatever goes wrong and needs a person leaves the agent running and
//! telling so; it ends when it is told to, or when another agent holds the device's socket.

mod service;
mod world;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{error, info, warn};
use umbra_carrier::tls::DatePolicy;
use umbra_protocol::hello::Intent;
use umbra_protocol::{Remedy, SessionId};

use crate::clock::{Clock, Judgement};
use crate::commands::journal::{Journal, JournalError};
use crate::commands::{Commands, Tools};
use crate::control::{self, Action, Context, ControlError, ErrorCode, Failure};
use crate::enrolment::{self, EnrolRequest, Enrolled};
use crate::files::{self, Files};
use crate::identity::{self, DeviceIdentity};
use crate::link::trouble::sentence;
use crate::link::{LinkSettings, Trouble, driver};
use crate::os::Os;
use crate::paths::Paths;
use crate::registry::{Registry, Snapshot};
use crate::session::records::{Records, RecordsError};
use crate::session::{Sessions, listener};
use crate::status::{Board, Stage};
use world::{Agent, Management};

/// How often files are looked at for changes made by hand, and what could not be read is tried again.
const LOOK: Duration = Duration::from_secs(5);
/// How long sessions may take to end when the agent does.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the link may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the agent runs with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything lies.
    pub paths: Paths,
    /// The wall clock.
    pub clock: Clock,
    /// The way to change files.
    pub files: Files,
}

impl Config {
    /// The real clock and disk, below this root.
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            clock: Clock::system(),
            files: Files::new(),
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
    let control = tokio::spawn(control::server::serve(
        listening,
        context,
        until(stopped.clone()),
    ));
    let service = tokio::spawn(service::tell(board.clone(), until(stopped.clone())));
    let looking = tokio::spawn(look(config.clone(), registry.clone(), board.clone()));

    let identity = tokio::select! {
        () = &mut shutdown => None,
        identity = come_by_identity(&config, os.as_ref(), &board, &mut actions) => Some(identity),
    };
    if let Some(identity) = identity {
        board.update(|status| status.identity = Some(identity.facts()));
        let mut agent = Agent::new(config, os, board.clone(), registry, identity);
        let port = tokio::spawn(listener::run(agent.sessions.clone()));
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

fn directories(paths: &Paths, board: &Board) {
    for (path, mode) in [(paths.kept(), 0o700), (paths.state(), 0o700)] {
        if let Err(problem) = files::make_directory(&path, mode) {
            warn!(
                error = sentence(&problem),
                "the agent's directory can't be made"
            );
            board.update(|status| status.warn("disk", Some(sentence(&problem))));
        }
    }
}

/// Looks at files that people change by hand, and at the clock.
async fn look(config: Config, registry: Registry, board: Board) {
    loop {
        registry.reload();
        let problems = registry.problems();
        let clock = match config.clock.judge() {
            Judgement::Plausible => None,
            Judgement::BeforeBuild | Judgement::FarFuture => Some(
                "This device's clock can't be right, so dates in certificates are not checked until it is.".to_owned(),
            ),
        };
        board.update(|status| {
            let problems = (!problems.is_empty()).then(|| problems.join(" "));
            status.warn("registry", problems);
            status.warn("clock", clock);
        });
        tokio::time::sleep(LOOK).await;
    }
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

fn link_settings(snapshot: &Snapshot) -> LinkSettings {
    LinkSettings {
        connect_timeout: snapshot.manager.connect_timeout,
        reconnect_interval: snapshot.manager.reconnect_interval,
        allowed: snapshot.manager.allowed,
    }
}

/// What the agent lives in: the three things that a server, or its absence, makes of a device.
enum Life {
    Unenrolled,
    Enrolled(Box<Enrolled>),
    /// The enrolment can't be read.
    Stuck(String),
    Ended,
}

type Shutdown<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

impl Agent {
    fn new(
        config: Config,
        os: Arc<dyn Os>,
        board: Board,
        registry: Registry,
        identity: DeviceIdentity,
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
        };
        agent.trust(Vec::new());
        agent
    }

    async fn live(&mut self, actions: &mut mpsc::Receiver<Action>, mut shutdown: Shutdown<'_>) {
        let mut life = self.enrolment();
        loop {
            life = match life {
                Life::Unenrolled => {
                    self.board.update(|status| status.go(Stage::NotEnrolled));
                    self.unenrolled(actions, shutdown.as_mut()).await
                }
                Life::Enrolled(enrolled) => {
                    self.linked(*enrolled, actions, shutdown.as_mut()).await
                }
                Life::Stuck(problem) => self.stuck(problem, actions, shutdown.as_mut()).await,
                Life::Ended => return,
            };
        }
    }

    async fn end(&self) {
        if timeout(DRAIN, self.sessions.stop()).await.is_err() {
            warn!("sessions did not end in time");
        }
    }

    fn enrolment(&self) -> Life {
        match Enrolled::load(&self.config.paths) {
            Ok(None) => Life::Unenrolled,
            Ok(Some(enrolled)) => Life::Enrolled(Box::new(enrolled)),
            Err(error) => Life::Stuck(sentence(&error)),
        }
    }

    /// The enrolment can't be read: nothing is guessed, and nothing is lost by waiting.
    async fn stuck(
        &self,
        problem: String,
        actions: &mut mpsc::Receiver<Action>,
        mut shutdown: Shutdown<'_>,
    ) -> Life {
        error!(problem, "the enrolment can't be used");
        self.board
            .update(|status| status.go_because(Stage::Refused, problem.as_str()));
        loop {
            let action = tokio::select! {
                () = shutdown.as_mut() => return Life::Ended,
                Some(action) = actions.recv() => Some(action),
                () = tokio::time::sleep(LOOK) => None,
            };
            match action {
                None => match self.enrolment() {
                    Life::Stuck(same) if same == problem => {}
                    other @ (Life::Unenrolled
                    | Life::Enrolled(_)
                    | Life::Stuck(_)
                    | Life::Ended) => return other,
                },
                Some(Action::Leave { reply }) => {
                    let (outcome, left) = self.forget(
                        "The damaged enrolment was removed; this device can be enrolled again.",
                    );
                    let _ = reply.send(outcome);
                    if left {
                        return Life::Unenrolled;
                    }
                }
                Some(Action::Enrol { reply, .. }) => {
                    let _ = reply.send(Err(Failure::new(ErrorCode::Refused, problem.as_str())));
                }
                Some(other @ (Action::Consent { .. } | Action::EndSession { .. })) => {
                    self.local(other)
                }
            }
        }
    }

    async fn unenrolled(
        &self,
        actions: &mut mpsc::Receiver<Action>,
        mut shutdown: Shutdown<'_>,
    ) -> Life {
        loop {
            let action = tokio::select! {
                () = shutdown.as_mut() => return Life::Ended,
                Some(action) = actions.recv() => action,
            };
            match action {
                Action::Enrol {
                    address,
                    fingerprint,
                    key,
                    reply,
                } => {
                    let request = EnrolRequest {
                        address,
                        fingerprint,
                        key,
                    };
                    let enrolled = tokio::select! {
                        () = shutdown.as_mut() => return Life::Ended,
                        enrolled = self.enrol(&request) => enrolled,
                        () = self.meanwhile(actions) => return Life::Ended,
                    };
                    match enrolled {
                        Ok(enrolled) => {
                            let name = umbra_protocol::refusal::clip(enrolled.device_name.clone());
                            let _ = reply.send(Ok(format!(
                                "{} has taken this device on as “{name}”.",
                                request.address
                            )));
                            return Life::Enrolled(Box::new(enrolled));
                        }
                        Err(failure) => drop(reply.send(Err(failure))),
                    }
                }
                Action::Leave { reply } => {
                    let failure =
                        Failure::new(ErrorCode::NotThere, "No server has taken this device on.");
                    let _ = reply.send(Err(failure));
                }
                other @ (Action::Consent { .. } | Action::EndSession { .. }) => self.local(other),
            }
        }
    }

    async fn enrol(&self, request: &EnrolRequest) -> Result<Enrolled, Failure> {
        self.board.update(|status| status.go(Stage::Enrolling));
        info!(server = %request.address, "enrolling");
        let identity = self.identity.borrow().clone();
        let mut hello = self.hello();
        hello.intent = Intent::Enrol;
        let tls = identity.tls_identity();
        let applicant = enrolment::driver::Applicant {
            identity: &tls,
            device_id: identity.device_id(),
            hello,
            connect_timeout: self.registry.snapshot().manager.connect_timeout,
            dates: dates(&self.config.clock),
        };
        // What another server decided must not hold under this one.
        if let Err(error) = self.registry.forget_server() {
            warn!(
                error = sentence(&error),
                "earlier settings could not be removed"
            );
        }
        let enrolled = enrolment::enroll(
            request,
            applicant,
            &self.config.paths,
            &self.config.files,
            |_| {},
        )
        .await;
        match enrolled {
            Ok(enrolled) => {
                info!(server = %request.address, name = enrolled.device_name, "enrolled");
                Ok(enrolled)
            }
            Err(error) => {
                let told = error.for_person();
                warn!(server = %request.address, code = error.code(), error = sentence(&error), "not enrolled");
                self.board.update(|status| {
                    status.go_because(Stage::NotEnrolled, told.as_str());
                    status.code = Some(error.code().to_owned());
                });
                let code = match (&error, error.remedy()) {
                    (enrolment::EnrolError::Store(_), _) => ErrorCode::Disk,
                    (enrolment::EnrolError::Connect { .. }, _) => ErrorCode::Unavailable,
                    (_, Remedy::Retry) => ErrorCode::TryAgain,
                    (_, Remedy::AskPerson | Remedy::Stop) => ErrorCode::Refused,
                };
                Err(Failure::new(code, format!("{told} [{}]", error.code())))
            }
        }
    }

    /// Answers actions while something else is awaited; resolves when there can't be any more.
    async fn meanwhile(&self, actions: &mut mpsc::Receiver<Action>) {
        while let Some(action) = actions.recv().await {
            match action {
                Action::Enrol { reply, .. } | Action::Leave { reply } => {
                    let failure = Failure::new(
                        ErrorCode::TryAgain,
                        "The agent is busy enrolling; try again shortly.",
                    );
                    let _ = reply.send(Err(failure));
                }
                other @ (Action::Consent { .. } | Action::EndSession { .. }) => self.local(other),
            }
        }
    }

    /// Actions that only concern this device.
    fn local(&self, action: Action) {
        let there = |there: bool, done: &str, session: SessionId| {
            if there {
                Ok(done.to_owned())
            } else {
                Err(Failure::new(
                    ErrorCode::NotThere,
                    format!("There is no such session or question: {session}."),
                ))
            }
        };
        match action {
            Action::Consent {
                session,
                accept,
                reply,
            } => {
                let done = if accept {
                    "The session is allowed."
                } else {
                    "The session is refused."
                };
                let _ = reply.send(there(self.sessions.answer(session, accept), done, session));
            }
            Action::EndSession { session, reply } => {
                let ended = self.sessions.end_by_user(session);
                let _ = reply.send(there(ended, "The session is ended.", session));
            }
            other @ (Action::Enrol { .. } | Action::Leave { .. }) => answer(
                other,
                Failure::new(
                    ErrorCode::TryAgain,
                    "The agent can't do that at the moment; try again shortly.",
                ),
            ),
        }
    }

    async fn linked(
        &self,
        enrolled: Enrolled,
        actions: &mut mpsc::Receiver<Action>,
        mut shutdown: Shutdown<'_>,
    ) -> Life {
        self.trust(enrolled.anchors.ticket_keys.clone());
        let mut registry = self.registry.subscribe();
        let settings = link_settings(&registry.borrow_and_update());
        let (management, set_link) = Management::new(self.clone(), enrolled);
        let (link, handle) = driver::link(management, settings, seed());
        set_link.send_replace(Some(handle.clone()));
        self.sessions.link(Some(handle.clone()));
        let mut running = tokio::spawn(link.run());
        let mut leaving: Option<Leaving> = None;
        let life = loop {
            tokio::select! {
                () = shutdown.as_mut() => break Life::Ended,
                ended = &mut running => {
                    // The link's task only ends when it is told to: this is a bug, and the link is begun anew.
                    error!(failed = ended.is_err(), "the link has ended by itself");
                    self.sessions.link(None);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    return self.enrolment();
                }
                Ok(()) = registry.changed() => {
                    let settings = link_settings(&registry.borrow_and_update());
                    handle.settings(settings);
                    handle.hasten();
                }
                left = finished(&mut leaving) => {
                    let (reply, told) = left;
                    let (outcome, gone) = self.forget(&told);
                    let _ = reply.send(outcome);
                    if gone {
                        break Life::Unenrolled;
                    }
                }
                Some(action) = actions.recv() => match action {
                    Action::Leave { reply } if leaving.is_none() => {
                        leaving = Some(Box::pin(leave(handle.clone(), reply)));
                    }
                    Action::Enrol { reply, .. } => {
                        let failure = Failure::new(
                            ErrorCode::Refused,
                            "A server has taken this device on already. To change the server, run “umbra-agent leave” first.",
                        );
                        let _ = reply.send(Err(failure));
                    }
                    other @ (Action::Leave { .. } | Action::Consent { .. } | Action::EndSession { .. }) => self.local(other),
                },
            }
        };
        if matches!(life, Life::Ended) {
            self.board.update(|status| status.go(Stage::Stopping));
            // While the link stands, so that the server learns how they ended.
            self.end().await;
        }
        handle.shutdown().await;
        let _ = timeout(FAREWELL, &mut running).await;
        self.sessions.link(None);
        self.trust(Vec::new());
        life
    }

    /// Forgets the server.
    fn forget(&self, told: &str) -> (control::Outcome, bool) {
        if let Err(error) = Enrolled::remove(&self.config.paths, &self.config.files) {
            return (Err(Failure::new(ErrorCode::Disk, sentence(&error))), false);
        }
        if let Err(error) = self.registry.forget_server() {
            warn!(
                error = sentence(&error),
                "the server's settings could not be removed"
            );
        }
        info!("the device has left its server");
        self.board.update(|status| status.server = None);
        (Ok(told.to_owned()), true)
    }
}

type Reply = tokio::sync::oneshot::Sender<control::Outcome>;
type Leaving = Pin<Box<dyn Future<Output = (Reply, String)> + Send>>;

async fn leave(link: driver::LinkHandle, reply: Reply) -> (Reply, String) {
    let told = match link.leave().await {
        Ok(()) => "The server has removed this device from its file.".to_owned(),
        Err(trouble) => format!(
            "This device has forgotten its server, which could not be told ({trouble}): ask an administrator to remove the device there."
        ),
    };
    (reply, told)
}

async fn finished(leaving: &mut Option<Leaving>) -> (Reply, String) {
    match leaving {
        Some(running) => {
            let output = running.await;
            *leaving = None;
            output
        }
        None => std::future::pending().await,
    }
}

fn damaged(board: &Board, topic: &str, error: &dyn std::error::Error) {
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

/// Spreads devices over time; good for nothing secret.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    // Without random bytes there is at least the clock.
    filled.map_or_else(|_| crate::clock::uptime(), |()| u64::from_le_bytes(bytes))
}

/// The trouble of a server's root that can't be pinned.
fn unusable(error: &dyn std::error::Error) -> Trouble {
    Trouble::lasting("bad_roots", sentence(error))
}
