//! The device that the assistant runs on: its network, its sticks, and the agent, which takes part where it runs. Where none runs this
//! process takes its place for once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use umbra_carrier::address::HostPort;
use umbra_protocol::credentials::shown_host;
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_setup::{
    Address, Again, Code, Endpoint, Found, LogOnStage, Plan, Progress, Reached, Report, Source,
    State, TakenOn, Trust,
};

use super::device::{Device, Findings, StageNote};
use super::{keep, sticks};
use crate::clock::Clock;
use crate::control::client::{ANSWER_DEADLINE, Client};
use crate::control::join::{JoinError, join};
use crate::control::{ErrorCode, Request, Response};
use crate::discovery::{self, Sources};
use crate::enrolment::{self, EnrolRequest, Enrolled, Step};
use crate::files::Files;
use crate::link::Network;
use crate::link::trouble::sentence;
use crate::paths::Paths;
use crate::reach::{self, StageReport, StageState};
use crate::registry::{Registry, Snapshot};
use crate::status::{self, Status};

/// How long looking around may take.
const LOOK_AROUND: Duration = Duration::from_secs(15);
/// How long a domain may take to answer.
const ASK_DOMAIN: Duration = Duration::from_secs(15);
/// How long the link is waited for once the device is taken on.
const LINK: Duration = Duration::from_secs(45);
/// How often the agent is asked how far it is.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// This device.
#[derive(Debug)]
pub struct ThisDevice {
    paths: Paths,
    media: Vec<PathBuf>,
}

impl ThisDevice {
    /// The device whose files are there. `media` stands in for what is mounted, where it names anything.
    pub fn new(paths: Paths, media: Vec<PathBuf>) -> Self {
        Self { paths, media }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        Registry::open(&self.paths, &Files::new()).snapshot()
    }

    /// The agent's status once the link is up, or the last one when that takes too long.
    async fn wait_for_link(&self, client: &mut Client) -> Option<Status> {
        let end = tokio::time::Instant::now() + LINK;
        let mut last = None;
        while tokio::time::Instant::now() < end {
            match client.ask(&Request::Status {}, ANSWER_DEADLINE).await {
                Ok(Response::Status(status)) => {
                    let is_online = status.stage == status::Stage::Online;
                    last = Some(*status);
                    if is_online {
                        break;
                    }
                }
                Ok(Response::Done { .. } | Response::Failed(_) | Response::Registry { .. })
                | Err(_) => break,
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        last
    }
}

impl Device for ThisDevice {
    async fn discover(&self) -> Findings {
        let sources = Sources::new(&self.paths, &self.snapshot());
        findings(discovery::find(&sources, LOOK_AROUND).await)
    }

    async fn resolve_mail(&self, domain: String) -> Findings {
        let sources = Sources::new(&self.paths, &self.snapshot());
        findings(discovery::of_mail(&domain, &sources, ASK_DOMAIN).await)
    }

    fn sticks(&self) -> Findings {
        sticks::look(&self.media)
    }

    async fn check(
        &self,
        endpoint: Endpoint,
        stages: mpsc::Sender<StageNote>,
    ) -> Result<Reached, Report> {
        let address = place(&endpoint.address)?;
        let network = Network::new(&self.snapshot().network)
            .map_err(|trouble| Report::new(Code::Settings, &[], trouble.to_string()))?;
        let clock = Clock::system();
        let (sender, mut reports) = mpsc::unbounded_channel();
        let check = async {
            let result = reach::check(&address, &network, &clock, &sender).await;
            drop(sender);
            result
        };
        let pass_on = async {
            while let Some(report) = reports.recv().await {
                let _ = stages.send(note(report)).await;
            }
        };
        let (result, ()) = tokio::join!(check, pass_on);
        match result {
            Ok(reached) => Ok(Reached {
                address: endpoint.address,
                root: reached.root_fingerprint,
                public_ca: reached.public_ca,
            }),
            Err(error) => Err(error.report),
        }
    }

    async fn log_on(
        &self,
        plan: Plan,
        stages: mpsc::Sender<LogOnStage>,
    ) -> Result<TakenOn, (Report, Again)> {
        let address = place(&plan.address).map_err(|report| (report, Again::Address))?;
        let key = FirstAuthKey::parse(plan.key.reveal()).map_err(|error| {
            (
                Report::new(Code::KeyForm, &[], error.to_string()),
                Again::Key,
            )
        })?;
        let request = EnrolRequest {
            address,
            trust: match plan.trust {
                Trust::Fingerprint(root) => enrolment::Trust::Fingerprint(root),
                Trust::PublicCa => enrolment::Trust::PublicCa,
            },
            key,
        };
        let mut progress = |step| {
            let stage = match step {
                Step::Connecting => LogOnStage::Connect,
                Step::Proving => LogOnStage::Prove,
                Step::Storing => LogOnStage::Store,
            };
            // There is room for every stage; and if nobody looks, nobody misses it.
            let _ = stages.try_send(stage);
        };
        let joined = join(&request, &self.paths, &mut progress)
            .await
            .map_err(|error| why_not(&error, &plan.address))?;
        let mut taken = TakenOn {
            address: plan.address,
            device_name: String::new(),
            online: None,
        };
        if joined.running {
            let _ = stages.send(LogOnStage::Online).await;
            let status = match Client::connect(&self.paths).await {
                Ok(mut client) => self.wait_for_link(&mut client).await,
                Err(_) => None,
            };
            taken.online = Some(
                status
                    .as_ref()
                    .is_some_and(|status| status.stage == status::Stage::Online),
            );
            if let Some(server) = status.and_then(|status| status.server) {
                taken.device_name = server.device_name;
            }
        } else if let Ok(Some(enrolled)) = Enrolled::load(&self.paths) {
            taken.device_name = enrolled.device_name;
        }
        Ok(taken)
    }

    fn store(&self, progress: &Progress) -> Result<(), Report> {
        keep::store(&self.paths, &Files::new(), progress)
            .map_err(|error| Report::new(Code::Disk, &[], sentence(&error)))
    }

    fn forget(&self) -> Result<(), Report> {
        keep::forget(&self.paths, &Files::new())
            .map_err(|error| Report::new(Code::Disk, &[], sentence(&error)))
    }

    fn belongs(&self) -> Option<Address> {
        // What can't be read was told at the start.
        let enrolled = Enrolled::load(&self.paths).ok()??;
        Some(Address {
            host: enrolled.host,
            port: enrolled.port,
        })
    }
}

fn place(address: &Address) -> Result<HostPort, Report> {
    HostPort::new(&address.host, address.port).map_err(|error| {
        let place = shown_host(&address.host);
        Report::new(Code::BadAddress, &[("place", &place)], error.to_string())
    })
}

/// Why the device was not taken on, for the person, and what helps.
fn why_not(error: &JoinError, address: &Address) -> (Report, Again) {
    let (again, meaning) = match error {
        JoinError::Failed(failure) => {
            let again = match failure.code {
                ErrorCode::Refused | ErrorCode::Usage => Again::Key,
                ErrorCode::Unavailable
                | ErrorCode::TryAgain
                | ErrorCode::NotThere
                | ErrorCode::Permission
                | ErrorCode::Disk
                | ErrorCode::Internal => Again::Later,
            };
            (again, Code::parse(&failure.reason))
        }
        JoinError::Agent(_) => (Again::Later, Some(Code::Agent)),
        JoinError::Identity(_) | JoinError::Registry(_) | JoinError::Enrolment(_) => {
            (Again::Later, Some(Code::DeviceFiles))
        }
    };
    let said = sentence(error);
    let report = match meaning {
        Some(code) => {
            let place = address.to_string();
            // Whatever a text of logging on speaks of is there.
            let values: Vec<(&'static str, &str)> = code
                .places()
                .iter()
                .map(|name| (*name, place.as_str()))
                .collect();
            Report::new(code, &values, said)
        }
        None => Report::from(said),
    };
    (report, again)
}

fn findings(discovery: discovery::Discovery) -> Findings {
    let found = discovery
        .found
        .into_iter()
        .map(|found| Found {
            source: match found.source {
                discovery::Source::Configured => Source::Configured,
                discovery::Source::Txt { domain } => Source::Record { domain },
                discovery::Source::Name { name } => Source::Name { name },
                discovery::Source::Dhcp { file } => Source::Dhcp { interface: file },
            },
            endpoints: vec![Endpoint {
                address: Address {
                    host: found.address.host().to_owned(),
                    port: found.address.port(),
                },
                root: None,
            }],
            key: None,
        })
        .collect();
    (found, discovery.problems)
}

fn note(report: StageReport) -> StageNote {
    let state = match report.state {
        StageState::Running => State::Running,
        StageState::Good => State::Good,
        StageState::Skipped => State::Skipped,
        StageState::Warning => State::Warning,
        StageState::Failed => State::Failed,
    };
    (report.stage, state, report.report)
}
