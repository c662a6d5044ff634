//! Having this device taken on, from outside the agent: through the agent where one runs, and in its place where none does. For the
//! command line and for the assistant alike.

use umbra_carrier::dial::DialError;
use umbra_carrier::tls::DatePolicy;
use umbra_protocol::Remedy;
use umbra_protocol::hello::Intent;
use umbra_setup::Code;

use super::client::{ACTION_DEADLINE, Client, ClientError};
use super::wire::{ErrorCode, Failure, Request, Response};
use crate::clock::Clock;
use crate::enrolment::driver::Applicant;
use crate::enrolment::{self, EnrolError, EnrolRequest, Enrolled, EnrolmentError, Step};
use crate::facts;
use crate::files::Files;
use crate::identity::{self, IdentityError};
use crate::link::Network;
use crate::link::approach::ApproachError;
use crate::os::linux::Linux;
use crate::paths::Paths;
use crate::reach::failure;
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
    progress: &mut (dyn FnMut(Step) + Send),
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
    progress: &mut (dyn FnMut(Step) + Send),
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
            let failure = Failure::new(ErrorCode::Usage, trouble.to_string());
            JoinError::Failed(failure.because(&trouble.code))
        })?,
        dates: if clock.believable().is_some() {
            DatePolicy::Enforce
        } else {
            DatePolicy::Ignore
        },
        require_fingerprint: snapshot.require_fingerprint,
    };
    let enrolled = enrolment::enroll(request, applicant, paths, &files, progress).await;
    let enrolled = enrolled.map_err(|error| JoinError::Failed(self::failure(&error)))?;
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
    Failure::new(code, format!("{} [{}]", error.for_person(), error.code())).because(reason(error))
}

/// What it means, as [`umbra_setup::Code`] knows it.
fn reason(error: &EnrolError) -> &str {
    match error {
        // A gateway's word is its own: it must not pass for the server's.
        EnrolError::Gateway {
            source: ApproachError::Dial(DialError::WebSocket(source)),
            ..
        } => failure::of_web_socket(source).id(),
        // The server's word of the same spelling is about what it heard.
        EnrolError::Unreadable(_) => Code::Protocol.id(),
        EnrolError::Connect { .. }
        | EnrolError::Network(_)
        | EnrolError::Gateway { .. }
        | EnrolError::Tls { .. }
        | EnrolError::NotPublic { .. }
        | EnrolError::FingerprintRequired
        | EnrolError::OtherRoots(_)
        | EnrolError::TimedOut
        | EnrolError::Lost(_)
        | EnrolError::Closed
        | EnrolError::Conversation(_)
        | EnrolError::Anchors(_)
        | EnrolError::AnchorsUnreadable
        | EnrolError::Store(_) => error.code(),
    }
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
            ErrorCode::Refused => CODES.contains(&self.reason.as_str()),
            ErrorCode::Usage
            | ErrorCode::NotThere
            | ErrorCode::Permission
            | ErrorCode::Disk
            | ErrorCode::Internal => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use umbra_carrier::address::HostPort;
    use umbra_carrier::tls::TlsError;
    use umbra_carrier::ws::WsError;
    use umbra_protocol::{Refusal, RefusalCode};

    use super::*;
    use crate::enrolment::machine::ConversationError;
    use crate::link::trouble::Trouble;

    fn address() -> HostPort {
        HostPort::parse("gw.example.com", 8_443).expect("an address")
    }

    fn of_gateway(word: Option<&str>) -> EnrolError {
        EnrolError::Gateway {
            address: address(),
            source: ApproachError::Dial(DialError::WebSocket(WsError::Refused {
                status: 503,
                code: word.map(str::to_owned),
                sentence: None,
                retry_after: None,
            })),
        }
    }

    fn of_tls(source: TlsError) -> EnrolError {
        let address = address();
        EnrolError::Tls { address, source }
    }

    #[test]
    fn what_enrolment_fails_with_is_told_with_a_meaning_that_the_assistant_knows() {
        let mut errors = vec![
            EnrolError::Network(Trouble::lasting("proxy_settings", "x")),
            EnrolError::Network(Trouble::lasting("ca_file", "x")),
            EnrolError::Connect {
                address: address(),
                source: DialError::Tls(TlsError::TimedOut),
            },
            EnrolError::Gateway {
                address: address(),
                source: ApproachError::Dial(DialError::Tls(TlsError::UnknownRoot)),
            },
            EnrolError::Gateway {
                address: address(),
                source: ApproachError::Dial(DialError::Tls(TlsError::NotTls)),
            },
            EnrolError::Gateway {
                address: address(),
                source: ApproachError::Server(TlsError::TimedOut),
            },
            of_tls(TlsError::RootNotPresented),
            of_tls(TlsError::NotTls),
            of_tls(TlsError::WrongName {
                wanted: "a".into(),
                names: Vec::new(),
            }),
            EnrolError::NotPublic {
                address: address(),
                source: TlsError::UnknownRoot,
            },
            EnrolError::FingerprintRequired,
            EnrolError::OtherRoots(TlsError::UnknownRoot),
            EnrolError::TimedOut,
            EnrolError::Closed,
            EnrolError::Conversation(ConversationError::ServerNotProven),
            EnrolError::Conversation(ConversationError::Protocol("x".into())),
            EnrolError::AnchorsUnreadable,
            EnrolError::Store(EnrolmentError::Root),
        ];
        let refusals = RefusalCode::ALL
            .iter()
            .map(|code| ConversationError::Refused(Refusal::new(*code, "x")));
        errors.extend(refusals.map(EnrolError::Conversation));
        for error in errors {
            let failure = failure(&error);
            let known = Code::parse(&failure.reason);
            assert!(known.is_some(), "{error:?}: {}", failure.reason);
        }
    }

    #[test]
    fn a_gateway_can_not_speak_for_the_server_or_for_the_device() {
        for (word, meaning) in [
            (Some("connection_limit"), "connection_limit"),
            (Some("no_server"), "no_server"),
            (Some("key_used"), "refused_by_gateway"),
            (Some("not_stored"), "refused_by_gateway"),
            (Some("wrong_fingerprint"), "refused_by_gateway"),
            (None, "refused_by_gateway"),
        ] {
            assert_eq!(failure(&of_gateway(word)).reason, meaning, "{word:?}");
        }
    }
}
