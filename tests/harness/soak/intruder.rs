//! Somebody who wants in and must not get in, again and again and in every way, while everything else goes on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::gate::Worker;
use super::plan::Chance;
use super::site::Member;
use super::workload::Work;
use crate::control_link::{Link, hello, unknown};
use crate::tunnel::dial;
use crate::websocket::{self, WebSocketError};
use crate::world::{Device, DeviceConfig, network_card};

/// How an attempt went.
enum Outcome {
    Refused,
    Unanswered,
    LetIn,
}

/// How long an attempt waits for an answer.
const PATIENCE: Duration = Duration::from_secs(12);
/// Noise in one go.
const NOISE: usize = 4096;
/// A key that no server has made.
const KEY: &str = "7Q2MX-9KD4T-P3WZ8-VN6HB";

/// The ways that are tried, by their names.
const WAYS: [&str; 9] = [
    "a stranger's certificate",
    "a device's name with a stranger's certificate",
    "a ticket a second time",
    "a wrong one-time key",
    "plain RFB at a device",
    "noise at a device",
    "noise at server and gateway",
    "a made-up log-in",
    "a made-up token at the gateway",
];

/// The same ways, shared among those who try them: who has to wait long for an answer keeps no other from trying.
pub(super) const SHARES: [&[usize]; 3] = [&[0, 1, 7, 8], &[2, 3], &[4, 5, 6]];

/// An installed device that has no key.
pub(super) struct Thief<'s>(Device<'s>);

impl<'s> Work<'_, 's> {
    /// Starts the device that the intruder has.
    pub(super) async fn thief(&self) -> anyhow::Result<Thief<'s>> {
        let mut device = Device::new(self.scratch, "thief", DeviceConfig::default())?;
        network_card(device.root(), "00:e0:c5:ff:ff:ff")?;
        device.start()?;
        device.wait_until_up().await?;
        Ok(Thief(device))
    }

    /// Tries some ways, one after another.
    pub(super) async fn intrude(&self, mut worker: Worker<'_>, thief: &Thief<'s>, ways: &[usize]) {
        let mut chance = Chance::new(ways.iter().sum::<usize>() as u64);
        let mut turn = 0;
        while worker.next(Duration::from_millis(400)).await {
            let number = ways[turn % ways.len()];
            let way = WAYS[number];
            turn += 1;
            let Some(member) = self.members.get(chance.below(self.members.len())) else {
                return;
            };
            let attempt = async {
                match number {
                    0 => self.link(unknown()?, "STRANGER").await,
                    1 => self.link(unknown()?, &member.unit).await,
                    2 => self.ticket_twice(member).await,
                    3 => self.wrong_key(thief).await,
                    4 => plain_viewer(member.hands.shadow_address().await?).await,
                    5 => noise(member.hands.shadow_address().await?, &mut chance).await,
                    6 => {
                        noise(self.server, &mut chance).await?;
                        noise(self.gateway_door, &mut chance).await
                    }
                    7 => self.made_up_login().await,
                    _ => self.made_up_token().await,
                }
            };
            let outcome = match timeout(PATIENCE * 4, attempt).await {
                Ok(Ok(outcome)) => outcome,
                // Whoever is not there refuses nobody.
                Ok(Err(_)) | Err(_) => Outcome::Unanswered,
            };
            let mut ledger = self.ledger.borrow_mut();
            let attempts = ledger.attempts.entry(way).or_default();
            match outcome {
                Outcome::Refused => attempts.refused += 1,
                Outcome::Unanswered => attempts.unanswered += 1,
                Outcome::LetIn => attempts.let_in += 1,
            }
        }
    }

    /// The control link under a name, with a certificate that is not on file.
    async fn link(
        &self,
        identity: crate::control_link::Identity,
        unit: &str,
    ) -> anyhow::Result<Outcome> {
        let state = self.scratch.path("server");
        let mut link = Link::dial_at(self.server, &state, Some(identity)).await?;
        link.say(&hello(&[1], unit)).await?;
        let said = timeout(PATIENCE, link.hear()).await??;
        Ok(match said.get("type").and_then(Value::as_str) {
            Some("refusal") => Outcome::Refused,
            _ => Outcome::LetIn,
        })
    }

    /// An operator's ticket, read by somebody who comes after the operator.
    async fn ticket_twice(&self, member: &Member<'_>) -> anyhow::Result<Outcome> {
        let offer = self.console.offer_at(self.server, &member.unit, false);
        let offer = timeout(PATIENCE, offer).await??;
        for (name, secret) in [("ticket", &offer.ticket), ("password", &offer.password)] {
            let name = format!("{name} of session {}", offer.session);
            self.secrets.borrow_mut().push((name, secret.clone()));
        }
        let address = member.hands.shadow_address().await?;
        let mut operator = dial(address, PATIENCE).await?;
        operator.say(offer.preface().as_bytes()).await?;
        // Without an operator who was let in there is no used ticket.
        let first = operator.line(PATIENCE).await?;
        anyhow::ensure!(first == "UMBRA/1 ok", "{first}");
        drop(operator);
        let mut intruder = dial(address, PATIENCE).await?;
        intruder.say(offer.preface().as_bytes()).await?;
        let second = intruder.line(PATIENCE).await?;
        Ok(if second == "UMBRA/1 ok" {
            Outcome::LetIn
        } else {
            Outcome::Refused
        })
    }

    /// A device that is to be taken on with a key that nobody made. It comes by the gateway, so that the server slows down nobody else.
    async fn wrong_key(&self, thief: &Thief<'_>) -> anyhow::Result<Outcome> {
        let address = self.gateway.to_string();
        let words = [
            "enroll",
            "--address",
            &address,
            "--fingerprint",
            &self.fingerprint,
            "--key-file",
            "-",
        ];
        let output = thief.0.output(&words, KEY).await?;
        if output.status.success() {
            return Ok(Outcome::LetIn);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let by_server = ["[key_not_accepted]", "[throttled]"];
        Ok(if by_server.iter().any(|code| said.contains(code)) {
            Outcome::Refused
        } else {
            Outcome::Unanswered
        })
    }

    /// The API with a token that nobody was given, and with a password that nobody has.
    async fn made_up_login(&self) -> anyhow::Result<Outcome> {
        let requests = [
            "GET /api/v1/devices HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef0123456789abcdef\r\n",
            "GET /api/v1/audit HTTP/1.1\r\n",
        ];
        for request in requests {
            let whole = format!(
                "{request}Host: {}\r\nConnection: close\r\n\r\n",
                self.server
            );
            let mut connection = dial(self.server, PATIENCE).await?;
            connection.say(whole.as_bytes()).await?;
            let answer = connection.rest(PATIENCE).await?;
            let answer = String::from_utf8_lossy(&answer).into_owned();
            anyhow::ensure!(!answer.is_empty(), "no answer");
            if answer.starts_with("HTTP/1.1 2") {
                return Ok(Outcome::LetIn);
            }
        }
        Ok(Outcome::Refused)
    }

    /// A rendezvous at the gateway with a token that nobody was given.
    async fn made_up_token(&self) -> anyhow::Result<Outcome> {
        let headers = [
            ("Authorization", "Bearer 0123456789abcdef0123456789abcdef"),
            ("Umbra-Side", "console"),
        ];
        let protocol = "umbra.tunnel.1";
        let path = "/usg/tunnel";
        match websocket::connect(self.gateway_door, path, protocol, &headers, PATIENCE).await {
            Ok(_stream) => Ok(Outcome::LetIn),
            Err(WebSocketError::Refused { .. }) => Ok(Outcome::Refused),
            Err(error) => Err(error.into()),
        }
    }
}

/// Everything that is heard until the connection ends; whoever is kept waiting hears nothing.
async fn heard(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let reading = async {
        let mut chunk = [0; 1024];
        while let Ok(count) = stream.read(&mut chunk).await
            && count > 0
            && heard.len() < 1 << 16
        {
            heard.extend_from_slice(&chunk[..count]);
        }
    };
    // Who stays silent has said nothing, which is what counts.
    let _ = timeout(PATIENCE, reading).await;
    heard
}

/// A viewer that waits to be greeted.
async fn plain_viewer(address: SocketAddr) -> anyhow::Result<Outcome> {
    let mut viewer = timeout(PATIENCE, TcpStream::connect(address)).await??;
    viewer.write_all(b"RFB 003.008\n\x01\x01").await?;
    let heard = heard(&mut viewer).await;
    Ok(if heard.windows(3).any(|words| words == b"RFB") {
        Outcome::LetIn
    } else {
        Outcome::Refused
    })
}

/// Noise, once as it comes and once as something that begins like TLS.
async fn noise(address: SocketAddr, chance: &mut Chance) -> anyhow::Result<Outcome> {
    let mut noise: Vec<u8> = (0..NOISE / 8)
        .flat_map(|_| chance.number().to_be_bytes())
        .collect();
    if chance.below(2) == 0 {
        noise[..6].copy_from_slice(&[22, 3, 1, 0x40, 0, 1]);
    }
    let mut stranger = timeout(PATIENCE, TcpStream::connect(address))
        .await?
        .context("nobody is there")?;
    // Whoever is shown the door in the middle of it cannot finish.
    let said = stranger.write_all(&noise).await;
    drop(said);
    let heard = heard(&mut stranger).await;
    // An alert at most.
    Ok(if heard.len() > 64 || heard.starts_with(b"RFB") {
        Outcome::LetIn
    } else {
        Outcome::Refused
    })
}
