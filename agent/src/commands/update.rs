//! Updates: asked of root's program, followed while it works, and beyond the restart that begins the new system, until that has
//! proven itself or the device has gone back. What becomes of an update is noted by root (`hands::outcome`), so that it is known in
//! another life of the agent as well.

use std::time::{Duration, Instant};

use umbra_protocol::CommandId;
use umbra_protocol::command::{CommandProgress, CommandResult, CommandState};

use super::program::{self, DEAF, Program};
use super::{Commands, done, failed, result};
use crate::hands::outcome::{Outcome, Word};
use crate::hands::{self, HandsError, Progress};
use crate::link::LinkHandle;
use crate::link::trouble::sentence;

/// How long an update may take.
const DEADLINE: Duration = Duration::from_secs(60 * 60);
/// How often is looked how far it is; the server hears no more of it than that.
const LOOK: Duration = Duration::from_secs(1);

impl Commands {
    pub(super) async fn update(&self, id: CommandId, link: &LinkHandle) -> CommandResult {
        let Ok(_alone) = self.updating.try_lock() else {
            return failed(id, "Another update is still running on this device.");
        };
        let result = self.carried_out(id, link).await;
        self.show(progress(result.sentence.clone()));
        result
    }

    async fn carried_out(&self, id: CommandId, link: &LinkHandle) -> CommandResult {
        let snapshot = self.tools.registry.snapshot();
        let updated = if snapshot.update_command.is_empty() {
            self.by_root(id, link)
                .await
                .map_err(|error| sentence(&error))
        } else {
            let program = Program {
                command: &snapshot.update_command,
                environment: &[],
                input: "",
                deadline: DEADLINE,
                takes: DEAF,
            };
            program::run(program)
                .await
                .map_err(|error| sentence(&error))
        };
        // A program that ended in the middle of it has noted that it began, and no more.
        let noted = Outcome::of(&self.tools.paths, id);
        if noted.is_some_and(|noted| updated.is_ok() || noted.word != Word::Installing) {
            return self.follow(id, link).await;
        }
        match updated {
            Ok(said) if said.is_empty() => done(id, "The update program has done its work."),
            Ok(said) => done(
                id,
                format!("The update program has done its work; it said: {said}"),
            ),
            Err(problem) => failed(id, problem),
        }
    }

    /// Goes on with updates that were begun in an earlier life of the agent.
    pub(crate) fn resume(&self, link: &LinkHandle) {
        for id in self.journal().open() {
            let (commands, link) = (self.clone(), link.clone());
            crate::task::start(async move {
                if let Ok(_alone) = commands.updating.try_lock() {
                    let result = commands.follow(id, &link).await;
                    commands.show(progress(result.sentence.clone()));
                    commands.end(result, &link);
                }
            });
        }
    }

    async fn by_root(&self, id: CommandId, link: &LinkHandle) -> Result<String, HandsError> {
        let waiting = hands::ask_update(&self.tools.paths, id, DEADLINE)?;
        let (mut told, mut due) = (None, Instant::now());
        loop {
            if let Some(outcome) = waiting.look() {
                return outcome;
            }
            if due <= Instant::now() {
                due = Instant::now() + LOOK;
                if let Some(progress) = waiting.progress() {
                    self.tell(id, link, progress, &mut told);
                }
            }
            tokio::time::sleep(hands::GLANCE).await;
        }
    }

    /// Waits until what was installed has proven itself or was given up, through the restart in between.
    async fn follow(&self, id: CommandId, link: &LinkHandle) -> CommandResult {
        let boot = self.tools.os.boot_id();
        let until = Instant::now() + DEADLINE;
        let mut told = None;
        loop {
            let Some(outcome) = Outcome::of(&self.tools.paths, id) else {
                return failed(id, "What became of the update is not known.");
            };
            let sentence = match (outcome.word, outcome.boot == boot) {
                (Word::Good, _) => return done(id, outcome.sentence),
                (Word::Failed, _) => return failed(id, outcome.sentence),
                (Word::Cut, _) => return result(id, CommandState::Interrupted, outcome.sentence),
                (Word::Restart, true) => {
                    self.tell(id, link, progress(outcome.sentence), &mut told);
                    let program = self.tools.registry.snapshot().reboot_command.clone();
                    return self
                        .power(id, move |os| os.reboot(&program), "restart")
                        .await;
                }
                (Word::Restart | Word::Installing, false) => {
                    "The device has restarted and checks the new system.".to_owned()
                }
                (Word::Installing | Word::GivenUp, _) => outcome.sentence,
            };
            self.tell(id, link, progress(sentence), &mut told);
            if until <= Instant::now() {
                return failed(
                    id,
                    "Nobody on the device says what became of the update. Its maker has to switch “umbra-update-check.service” on.",
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Tells people at the device and the server how far it is, if that is news.
    fn tell(
        &self,
        id: CommandId,
        link: &LinkHandle,
        progress: Progress,
        told: &mut Option<Progress>,
    ) {
        if told.as_ref() == Some(&progress) {
            return;
        }
        link.tell(CommandProgress {
            id,
            percent: progress.percent,
            sentence: progress.sentence.clone(),
        });
        self.show(progress.clone());
        *told = Some(progress);
    }

    fn show(&self, progress: Progress) {
        self.tools
            .board
            .update(|status| status.update = Some(progress));
    }
}

fn progress(sentence: String) -> Progress {
    Progress {
        percent: None,
        sentence,
    }
}
