//! A device's life with and without a server: it waits to be taken on, keeps its link, or waits for a person to mend what it can't
//! read. None of these ends by itself except into another.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::{error, info, warn};
use umbra_protocol::hello::Intent;
use umbra_protocol::refusal::clip;
use umbra_protocol::{RefusalCode, SessionId};

use super::world::{Agent, Management};
use super::{DRAIN, LOOK, answer, dates};
use crate::control::join::failure;
use crate::control::{self, Action, ErrorCode, Failure};
use crate::enrolment::{self, EnrolRequest, Enrolled, Step};
use crate::link::trouble::sentence;
use crate::link::{LinkSettings, Network, driver};
use crate::registry::Snapshot;
use crate::status::Stage;

/// How long the link may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(3);

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
    /// A person wants the device to be taken on.
    Enrolling(Box<EnrolRequest>, Reply),
    /// The enrolment can't be read.
    Stuck(String),
    Ended,
}

/// A server that says one of these does not want the device back as it is: another enrolment may take its place.
const DISMISSED: [RefusalCode; 3] = [
    RefusalCode::DeviceRemoved,
    RefusalCode::UnknownDevice,
    RefusalCode::CertificateMismatch,
];

pub(super) type Shutdown<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

impl Agent {
    pub(super) async fn live(
        &mut self,
        actions: &mut mpsc::Receiver<Action>,
        mut shutdown: Shutdown<'_>,
    ) {
        let mut life = self.enrolment();
        loop {
            life = match life {
                Life::Unenrolled => {
                    self.board.update(|status| {
                        // Why the last attempt failed stays to be read.
                        if status.stage != Stage::NotEnrolled {
                            status.go(Stage::NotEnrolled);
                        }
                    });
                    self.unenrolled(actions, shutdown.as_mut()).await
                }
                Life::Enrolled(enrolled) => {
                    self.linked(*enrolled, actions, shutdown.as_mut()).await
                }
                Life::Enrolling(request, reply) => {
                    self.enrolling(&request, reply, actions, shutdown.as_mut())
                        .await
                }
                Life::Stuck(problem) => self.stuck(problem, actions, shutdown.as_mut()).await,
                Life::Ended => return,
            };
        }
    }

    pub(super) async fn end(&self) {
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
                    | Life::Enrolling(..)
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
                    trust,
                    key,
                    reply,
                } => {
                    let request = EnrolRequest {
                        address,
                        trust,
                        key,
                    };
                    return Life::Enrolling(Box::new(request), reply);
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

    async fn enrolling(
        &self,
        request: &EnrolRequest,
        reply: Reply,
        actions: &mut mpsc::Receiver<Action>,
        mut shutdown: Shutdown<'_>,
    ) -> Life {
        let enrolled = tokio::select! {
            () = shutdown.as_mut() => return Life::Ended,
            enrolled = self.enrol(request) => enrolled,
            () = self.meanwhile(actions) => return Life::Ended,
        };
        match enrolled {
            Ok(enrolled) => {
                let name = clip(enrolled.device_name.clone());
                let _ = reply.send(Ok(format!(
                    "{} has taken this device on as “{name}”.",
                    request.address
                )));
                Life::Enrolled(Box::new(enrolled))
            }
            Err(failure) => {
                let _ = reply.send(Err(failure));
                // As before: without a server, or with the one that had taken it on.
                self.enrolment()
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
        let snapshot = self.registry.snapshot();
        let network = match Network::new(&snapshot.network) {
            Ok(network) => network,
            Err(trouble) => {
                self.board.update(|status| {
                    status.go_because(Stage::NotEnrolled, trouble.sentence.as_str())
                });
                return Err(Failure::new(ErrorCode::Refused, trouble.to_string()));
            }
        };
        let applicant = enrolment::driver::Applicant {
            identity: &tls,
            device_id: identity.device_id(),
            hello,
            connect_timeout: snapshot.manager.connect_timeout,
            network,
            dates: dates(&self.config.clock),
            require_fingerprint: snapshot.require_fingerprint,
        };
        let enrolled = enrolment::enroll(
            request,
            applicant,
            &self.config.paths,
            &self.config.files,
            &mut |step| {
                // What another server decided must not hold under this one, not even after a power cut between the two.
                if step == Step::Storing
                    && let Err(error) = self.registry.forget_server()
                {
                    warn!(
                        error = sentence(&error),
                        "earlier settings could not be removed"
                    );
                }
            },
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
                Err(failure(&error))
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
        self.commands.resume(&handle);
        let mut running = crate::task::start(link.run());
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
                    Action::Enrol { address, trust, key, reply } if self.is_dismissed() => {
                        break Life::Enrolling(Box::new(EnrolRequest { address, trust, key }), reply);
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

    /// Whether the server does not want this device back as it is.
    fn is_dismissed(&self) -> bool {
        let code = self.board.now().code;
        DISMISSED
            .iter()
            .any(|dismissed| code.as_deref() == Some(dismissed.as_str()))
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

/// Spreads devices over time; good for nothing secret.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    // Without random bytes there is at least the clock.
    filled.map_or_else(|_| crate::clock::uptime(), |()| u64::from_le_bytes(bytes))
}
