//! What an installation has to do on an ordinary day, without end: operators look at screens and type, administrators send messages and
//! change settings. What was confirmed is noted; what a fault took away is not.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::gate::Worker;
use super::guests::Guest;
use super::ledger::{Given, Ledger, Look, Stage};
use super::site::{Member, ask, text};
use crate::eventually::eventually_is;
use crate::rfb_client::{Options, RfbClient};
use crate::scratch::Scratch;
use crate::world::{Console, Shadow};

/// The parameter that is changed again and again; it has no effect on anything else here.
pub(super) const PARAMETER: &str = "umbra.consent.timeout";
/// How long an operator waits for one thing before giving up.
const PATIENCE: Duration = Duration::from_secs(12);
/// The longest session, whatever happens in it.
const SESSION: Duration = Duration::from_secs(60);

/// What all who work share.
pub(super) struct Work<'w, 's> {
    pub(super) scratch: &'s Scratch,
    pub(super) console: &'w Console<'s>,
    pub(super) members: &'w [Member<'s>],
    /// Where the server is, for operators.
    pub(super) server: SocketAddr,
    /// Where it is for devices.
    pub(super) for_devices: SocketAddr,
    /// Where the gateway is for devices.
    pub(super) gateway: SocketAddr,
    /// Where it really is.
    pub(super) gateway_door: SocketAddr,
    pub(super) fingerprint: String,
    pub(super) ledger: RefCell<Ledger>,
    /// Counts pieces of work, so that each has a name of its own.
    pub(super) number: Cell<usize>,
    pub(super) guests: RefCell<Vec<Guest<'s>>>,
    /// What must be in no log: name and secret.
    pub(super) secrets: RefCell<Vec<(String, String)>>,
}

impl Work<'_, '_> {
    /// The next piece of work.
    pub(super) fn number(&self) -> usize {
        self.number.set(self.number.get() + 1);
        self.number.get()
    }

    /// Asks the server something as an administrator.
    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        body: Option<&serde_json::Value>,
    ) -> Option<(u16, serde_json::Value)> {
        ask(self.console, self.server, method, path, body).await
    }

    /// An operator who looks at those devices that are behind the gateway, or at the others.
    pub(super) async fn operate(&self, mut worker: Worker<'_>, behind: bool) {
        let mine: Vec<&Member<'_>> = self
            .members
            .iter()
            .filter(|member| member.behind == behind)
            .collect();
        let mut turn = 0;
        while worker.next(Duration::from_millis(300)).await {
            let Some(member) = mine.get(turn % mine.len().max(1)) else {
                return;
            };
            turn += 1;
            self.look(member).await;
        }
    }

    /// One session, with a note of how far it came.
    pub(super) async fn look(&self, member: &Member<'_>) -> Stage {
        let number = self.number();
        let look = Look {
            reason: format!("look {number}"),
            unit: member.unit.clone(),
            stage: Stage::Asked,
        };
        let stage = Cell::new(Stage::Asked);
        let looking = self.look_within(member, &look.reason, number, &stage);
        // Whatever kept it from going on: how far it came is what counts.
        let _ = timeout(SESSION, looking).await;
        // It may have been given up while the picture stood still.
        member.desktop.freeze(false);
        let stage = stage.get();
        self.ledger.borrow_mut().looks.push(Look { stage, ..look });
        stage
    }

    async fn look_within(
        &self,
        member: &Member<'_>,
        reason: &str,
        number: usize,
        stage: &Cell<Stage>,
    ) -> anyhow::Result<()> {
        let words = ["--reason", reason];
        let mut shadow = self.console.begin_shadow(&member.unit, &words)?;
        timeout(PATIENCE, shadow.wait_until_open()).await??;
        stage.set(Stage::Opened);
        let mut viewer = connect(&shadow).await?;
        viewer.refresh().await?;
        stage.set(Stage::Viewed);
        let seen = viewer.greeting().name.clone();
        if seen != member.name {
            let wrong = format!("who asked for {} saw {seen}", member.name);
            self.ledger.borrow_mut().wrong_screens.push(wrong);
        }
        let typed = format!("{number:06}");
        viewer.type_text(&typed).await?;
        eventually_is("the keys to arrive", PATIENCE, || {
            match member.desktop.typed() {
                text if text.ends_with(&typed) => Ok(()),
                other => Err(other),
            }
        })
        .await?;
        member.desktop.freeze(true);
        let there = member.desktop.framebuffer();
        let same = viewer
            .follow_until(PATIENCE, |image| *image == there)
            .await?;
        member.desktop.freeze(false);
        if same {
            stage.set(Stage::Compared);
        }
        viewer.leave().await?;
        timeout(PATIENCE, shadow.ended()).await??;
        timeout(PATIENCE, shadow.finished()).await??;
        Ok(())
    }

    /// An administrator who sends messages, and now and then asks for an inventory.
    pub(super) async fn send(&self, mut worker: Worker<'_>) {
        while worker.next(Duration::from_millis(400)).await {
            let number = self.number();
            let Some(member) = self.members.get(number % self.members.len().max(1)) else {
                return;
            };
            let message = (!number.is_multiple_of(5)).then(|| format!("message {number}."));
            let body = match &message {
                Some(text) => json!({"action": "message", "text": text}),
                None => json!({"action": "inventory"}),
            };
            let path = format!("/api/v1/devices/{}/commands", member.unit);
            if let Some((201, given)) = self.ask("POST", &path, Some(&body)).await {
                self.ledger.borrow_mut().commands.push(Given {
                    id: text(&given, "id"),
                    unit: member.unit.clone(),
                    text: message,
                });
            }
        }
    }

    /// An administrator who changes settings.
    pub(super) async fn set(&self, mut worker: Worker<'_>) {
        while worker.next(Duration::from_millis(900)).await {
            let number = self.number();
            let Some(member) = self.members.get(number % self.members.len().max(1)) else {
                return;
            };
            let value = 5 + i64::try_from(number % 500).unwrap_or_default();
            let mut values = serde_json::Map::new();
            values.insert(PARAMETER.to_owned(), json!(value));
            let body = json!({"values": values});
            let path = format!("/api/v1/devices/{}/settings", member.unit);
            let answer = self.ask("PUT", &path, Some(&body)).await;
            let mut ledger = self.ledger.borrow_mut();
            let settings = ledger.settings.entry(member.unit.clone()).or_default();
            match answer {
                Some((200, _)) => {
                    settings.acknowledged += 1;
                    settings.possible = vec![value];
                }
                // It was said that nothing was changed.
                Some((507 | 400..=499, _)) => {}
                Some(_) | None => {
                    settings.unsure += 1;
                    settings.possible.push(value);
                }
            }
        }
    }
}

async fn connect(shadow: &Shadow) -> anyhow::Result<RfbClient> {
    let options = Options {
        limit: PATIENCE,
        ..Options::default()
    };
    let address = shadow
        .address()
        .ok_or_else(|| anyhow::anyhow!("no address"))?;
    Ok(RfbClient::connect(address, &options).await?)
}
