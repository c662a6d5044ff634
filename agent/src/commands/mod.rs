//! Commands from the server. Each is noted before it runs and runs at most once; its result is kept until the server has it. No
//! command carries text that is ever run.

mod connectors;
mod inventory;
pub mod journal;
pub(crate) mod program;
mod update;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};
use umbra_protocol::CommandId;
use umbra_protocol::command::{Action, Command, CommandResult, CommandState};
use umbra_protocol::ids::to_hex;
use umbra_protocol::link::{CertificateProposed, possession_message};
use umbra_protocol::refusal::clip;

use crate::clock::Clock;
use crate::files::{FileError, Files};
use crate::identity::{self, DeviceIdentity, IdentityError, Next};
use crate::link::LinkHandle;
use crate::link::trouble::sentence;
use crate::os::{Os, OsError};
use crate::paths::Paths;
use crate::registry::Registry;
use crate::status::Board;
use journal::{Begin, Journal};
use program::{DEAF, Program};

/// A device that was told to restart and still runs after this long does not restart.
const POWER_PATIENCE: Duration = Duration::from_secs(180);
/// How long the server may take to file a certificate.
const FILING_DEADLINE: Duration = Duration::from_secs(30);
/// How long the program that shows a message may take; one that is a window should go on by itself.
const MESSAGE_DEADLINE: Duration = Duration::from_secs(60);

/// What commands are carried out with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The operating system.
    pub os: Arc<dyn Os>,
    /// The parameters.
    pub registry: Registry,
    /// Where messages to the person at the device hang.
    pub board: Board,
    /// The identity in force, now and whenever it changes.
    pub identity: watch::Receiver<DeviceIdentity>,
    /// The wall clock.
    pub clock: Clock,
    /// Where everything lies.
    pub paths: Paths,
    /// The way to change files.
    pub files: Files,
}

/// All commands of the device. Clones are the same commands.
#[derive(Clone)]
pub struct Commands {
    journal: Arc<Mutex<Journal>>,
    tools: Tools,
    /// Why the server did not take the last certificate that was proposed.
    turned_down: Arc<watch::Sender<Option<String>>>,
    /// Held while an update runs: two at once would spoil each other.
    updating: Arc<tokio::sync::Mutex<()>>,
}

impl Commands {
    /// With what is remembered of earlier ones.
    pub fn new(journal: Journal, tools: Tools) -> Self {
        Self {
            journal: Arc::new(Mutex::new(journal)),
            tools,
            turned_down: Arc::new(watch::Sender::new(None)),
            updating: Arc::default(),
        }
    }

    /// The server does not take the certificate that was proposed.
    pub fn certificate_refused(&self, sentence: &str) {
        self.turned_down.send_replace(Some(sentence.to_owned()));
    }

    /// Results that the server has not filed yet.
    pub fn unfiled(&self) -> Vec<CommandResult> {
        self.journal().unfiled()
    }

    /// The server has filed a result.
    pub fn filed(&self, id: CommandId) {
        let filed = self.journal().filed(id);
        self.noted(filed.err().as_ref());
    }

    /// Takes a command that arrived. One that is new is carried out in the background and answers over the link; otherwise the
    /// answer, if there is one, is returned at once. Needs a tokio runtime around it.
    pub fn take(&self, command: Command, link: &LinkHandle) -> Option<CommandResult> {
        let begun = self.journal().begin(&command);
        self.noted(begun.as_ref().err());
        match begun {
            Ok(Begin::Run) => {
                info!(id = %command.id, action = command.action.name(), "command begins");
                let (commands, link) = (self.clone(), link.clone());
                crate::task::start(async move { commands.run(command, link).await });
                None
            }
            Ok(Begin::Ended(result)) => Some(*result),
            Ok(Begin::Nothing) => None,
            Ok(Begin::Full) => Some(failed(
                command.id,
                "The server has not taken the results of so many earlier commands that the device takes no new ones.",
            )),
            Err(error) => Some(failed(
                command.id,
                format!(
                    "The command could not be noted on the disk, so it was not carried out: {error}."
                ),
            )),
        }
    }

    async fn run(self, command: Command, link: LinkHandle) {
        let result = self.carry_out(command, &link).await;
        self.end(result, &link);
    }

    fn end(&self, result: CommandResult, link: &LinkHandle) {
        info!(id = %result.id, state = ?result.state, "command ended");
        let finished = self.journal().finish(result.clone());
        self.noted(finished.err().as_ref());
        link.tell(result);
        // Ways that have changed are taken once the result is on its way.
        link.hasten();
    }

    async fn carry_out(&self, command: Command, link: &LinkHandle) -> CommandResult {
        let id = command.id;
        match command.action {
            Action::Reboot => {
                let program = self.tools.registry.snapshot().reboot_command.clone();
                self.power(id, move |os| os.reboot(&program), "restart")
                    .await
            }
            Action::Shutdown => {
                let program = self.tools.registry.snapshot().shutdown_command.clone();
                self.power(id, move |os| os.shutdown(&program), "switch off")
                    .await
            }
            Action::Update => self.update(id, link).await,
            Action::Message { text } => self.message(id, text).await,
            Action::Inventory => {
                let tools = self.tools.clone();
                match tokio::task::spawn_blocking(move || inventory::facts(&tools)).await {
                    Ok(facts) => CommandResult {
                        facts,
                        ..done(id, "These are the device's facts.")
                    },
                    Err(_) => failed(id, "The device's facts could not be collected."),
                }
            }
            Action::Renew => self.renew(id, Next::Renew, link).await,
            Action::Rekey => self.renew(id, Next::Rekey, link).await,
            Action::Connectors { connectors } => {
                let manager = self.tools.registry.snapshot().manager.clone();
                match connectors::change(&manager, connectors, link).await {
                    Ok(sentence) => done(id, sentence),
                    Err(sentence) => failed(id, sentence),
                }
            }
        }
    }

    /// The text hangs on the status board in any case; a program that shows it is an addition.
    async fn message(&self, id: CommandId, text: String) -> CommandResult {
        self.tools.board.update(|status| status.tell(text.clone()));
        let snapshot = self.tools.registry.snapshot();
        if snapshot.message_program.is_empty() {
            return done(
                id,
                "The text is in the device's status; no program shows it (umbra.message.program).",
            );
        }
        let program = Program {
            command: &snapshot.message_program,
            // It draws on the screen that the VNC server shows.
            environment: &snapshot.vnc.environment,
            input: &plain(&text),
            deadline: MESSAGE_DEADLINE,
            takes: DEAF,
        };
        match program::run(program).await {
            Ok(_) => done(id, "The text is shown to the person at the device."),
            Err(error) => failed(
                id,
                format!(
                    "The text is in the device's status, but it was not shown: {}",
                    sentence(&error)
                ),
            ),
        }
    }

    async fn power(
        &self,
        id: CommandId,
        act: impl FnOnce(&dyn Os) -> Result<(), OsError> + Send + 'static,
        what: &str,
    ) -> CommandResult {
        let os = Arc::clone(&self.tools.os);
        match tokio::task::spawn_blocking(move || act(os.as_ref())).await {
            // The journal says how it went once the device has come up again.
            Ok(Ok(())) => {
                tokio::time::sleep(POWER_PATIENCE).await;
                failed(
                    id,
                    format!("The device was told to {what}, but it is still running."),
                )
            }
            Ok(Err(error)) => failed(id, sentence(&error)),
            Err(_) => failed(id, format!("The device could not be told to {what}.")),
        }
    }

    async fn renew(&self, id: CommandId, kind: Next, link: &LinkHandle) -> CommandResult {
        let tools = self.tools.clone();
        let made = tokio::task::spawn_blocking(move || {
            let present = tools.identity.borrow().clone();
            let next =
                identity::propose_next(&tools.paths, &tools.files, &present, kind, &tools.clock)?;
            let proposal = proposal(&present, &next)?;
            Ok::<_, IdentityError>((next, proposal))
        })
        .await;
        let (next, proposal) = match made {
            Ok(Ok(made)) => made,
            Ok(Err(error)) => return failed(id, sentence(&error)),
            Err(_) => return failed(id, "The certificate could not be made."),
        };
        self.turned_down.send_replace(None);
        let mut turned_down = self.turned_down.subscribe();
        let mut identity = self.tools.identity.clone();
        link.tell(proposal);
        tokio::select! {
            Ok(_) = identity.wait_for(|identity| identity.fingerprint() == next.fingerprint()) => {
                done(id, format!("The device uses the certificate {}.", next.fingerprint()))
            }
            Ok(refused) = turned_down.wait_for(Option::is_some) => {
                failed(id, refused.clone().unwrap_or_default())
            }
            () = tokio::time::sleep(FILING_DEADLINE) => failed(
                id,
                "The server did not file the new certificate in time; the device proposes it again at its next link.",
            ),
        }
    }

    fn noted(&self, problem: Option<&FileError>) {
        let problem = problem.map(|error| {
            warn!(%error, "the list of commands could not be written");
            format!("The list of commands could not be written: {error}.")
        });
        self.tools
            .board
            .update(|status| status.warn("commands", problem));
    }

    fn journal(&self) -> MutexGuard<'_, Journal> {
        // The journal changes in single steps: a panic in between leaves nothing half-made.
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next certificate with the proof that the device has its key.
pub(crate) fn proposal(
    present: &DeviceIdentity,
    next: &DeviceIdentity,
) -> Result<CertificateProposed, IdentityError> {
    let message = possession_message(present.certificate_der(), next.certificate_der());
    Ok(CertificateProposed {
        certificate: next.certificate_pem().to_owned(),
        proof: to_hex(&next.sign(&message)?),
    })
}

/// The text for a program that shows it: its lines, and nothing that moves a cursor or turns text round.
fn plain(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| clip(line.to_owned())).collect();
    lines.join("\n")
}

fn done(id: CommandId, sentence: impl Into<String>) -> CommandResult {
    result(id, CommandState::Done, sentence)
}

fn failed(id: CommandId, sentence: impl Into<String>) -> CommandResult {
    result(id, CommandState::Failed, sentence)
}

fn result(id: CommandId, state: CommandState, sentence: impl Into<String>) -> CommandResult {
    CommandResult {
        id,
        state,
        sentence: clip(sentence.into()),
        facts: BTreeMap::new(),
    }
}
