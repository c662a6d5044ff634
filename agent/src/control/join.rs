//! Having this device taken on, from outside the agent: through the agent where one runs, and in its place where none does. For the
//! command line and for the assistant alike.

use umbra_carrier::tls::DatePolicy;
use umbra_protocol::Remedy;
use umbra_protocol::hello::Intent;

use super::client::{ACTION_DEADLINE, Client, ClientError};
use super::wire::{ErrorCode, Failure, Request, Response};
use crate::clock::Clock;
use crate::enrolment::driver::Applicant;
use crate::enrolment::{self, EnrolError, EnrolRequest, Enrolled, EnrolmentError, Step};
use crate::facts;
use crate::files::Files;
use crate::identity::{self, IdentityError};
use crate::link::Network;
use crate::os::linux::Linux;
use crate::paths::Paths;
use crate::registry::{Registry, RegistryError};

/// The device was taken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// For people.
    pub sentence: String,
    /// Whether the agent runs, so that the device goes online by itself.
    pub running: bool,
}

/// Why the device was not taken on.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The server, the agent or the device itself said no.
    #[error(transparent)]
    Failed(Failure),
    /// The agent can't be spoken to.
    #[error(transparent)]
    Agent(ClientError),
    /// There is no identity.
    #[error(transparent)]
    Identity(IdentityError),
    /// The parameters can't be changed.
    #[error(transparent)]
    Registry(RegistryError),
    /// The enrolment can't be read.
    #[error(transparent)]
    Enrolment(EnrolmentError),
}

/// Has this device taken on. `progress` hears each step as it begins where this process does it itself; a running agent tells its
/// steps through its status.
///
/// # Errors
/// [`JoinError`]
pub async fn join(
    request: &EnrolRequest,
    paths: &Paths,
    mut progress: impl FnMut(Step),
) -> Result<Joined, JoinError> {
    match Client::connect(paths).await {
        Ok(mut client) => {
            progress(Step::Connecting);
            let asked = Request::Enrol {
                address: request.address.to_string(),
                trust: request.trust.given(),
                key: request.key.for_person(),
            };
            let answer = client.ask(&asked, ACTION_DEADLINE).await;
            match answer.map_err(JoinError::Agent)? {
                Response::Done { sentence } => Ok(Joined {
                    sentence,
                    running: true,
                }),
                Response::Failed(failure) => Err(JoinError::Failed(failure)),
                Response::Status(_) | Response::Registry { .. } => {
                    Err(JoinError::Agent(ClientError::Answer))
                }
            }
        }
        Err(ClientError::NotRunning { .. }) => here(request, paths, progress).await,
        Err(error) => Err(JoinError::Agent(error)),
    }
}

/// Without an agent that runs: this process takes its place for once.
async fn here(
    request: &EnrolRequest,
    paths: &Paths,
    progress: impl FnMut(Step),
) -> Result<Joined, JoinError> {
    if let Some(enrolled) = Enrolled::load(paths).map_err(JoinError::Enrolment)? {
        let sentence = format!(
            "this device already belongs to the server {}:{}; run “umbra-agent leave” first",
            enrolled.host, enrolled.port
        );
        return Err(JoinError::Failed(Failure::new(
            ErrorCode::Refused,
            sentence,
        )));
    }
    let (clock, files, os) = (Clock::system(), Files::new(), Linux::new(paths.clone()));
    let (identity, _) = identity::ensure(paths, &os, &clock).map_err(JoinError::Identity)?;
    let registry = Registry::open(paths, &files);
    registry.forget_server().map_err(JoinError::Registry)?;
    let snapshot = registry.snapshot();
    let facts = facts::of_device(&identity, &os, &snapshot, None);
    let tls = identity.tls_identity();
    let applicant = Applicant {
        identity: &tls,
        device_id: identity.device_id(),
        hello: facts::hello(facts, Intent::Enrol, 0),
        connect_timeout: snapshot.manager.connect_timeout,
        network: Network::new(&snapshot.network).map_err(|trouble| {
            JoinError::Failed(Failure::new(ErrorCode::Usage, trouble.to_string()))
        })?,
        dates: if clock.believable().is_some() {
            DatePolicy::Enforce
        } else {
            DatePolicy::Ignore
        },
        require_fingerprint: snapshot.require_fingerprint,
    };
    let enrolled = enrolment::enroll(request, applicant, paths, &files, progress).await;
    let enrolled = enrolled.map_err(|error| JoinError::Failed(failure(&error)))?;
    let name = umbra_protocol::refusal::clip(enrolled.device_name);
    Ok(Joined {
        sentence: format!("{} has taken this device on as “{name}”.", request.address),
        running: false,
    })
}

/// What an enrolment that came to nothing is told as: its sentence, with its code at the end.
pub fn failure(error: &EnrolError) -> Failure {
    let code = match (error, error.remedy()) {
        (EnrolError::Store(_), _) => ErrorCode::Disk,
        (EnrolError::Connect { .. } | EnrolError::Gateway { .. }, _) => ErrorCode::Unavailable,
        (_, Remedy::Retry) => ErrorCode::TryAgain,
        (_, Remedy::AskPerson | Remedy::Stop) => ErrorCode::Refused,
    };
    Failure::new(code, format!("{} [{}]", error.for_person(), error.code()))
}

impl Failure {
    /// Whether another address of the same server may still work: it failed before the server had a say.
    pub fn is_of_address(&self) -> bool {
        const CODES: [&str; 7] = [
            "wrong_fingerprint",
            "wrong_name",
            "certificate_dates",
            "not_public",
            "tls",
            "bad_roots",
            "server_not_proven",
        ];
        match self.code {
            ErrorCode::Unavailable | ErrorCode::TryAgain => true,
            ErrorCode::Refused => CODES
                .iter()
                .any(|code| self.sentence.ends_with(&format!("[{code}]"))),
            ErrorCode::Usage
            | ErrorCode::NotThere
            | ErrorCode::Permission
            | ErrorCode::Disk
            | ErrorCode::Internal => false,
        }
    }
}
