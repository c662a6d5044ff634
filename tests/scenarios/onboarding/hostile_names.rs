//! A device that was taken on and is hostile: it puts terminal codes, line breaks, reversed text, NUL and HTML into everything that
//! it may name, and sends far too much of it. It speaks by hand, because the agent would never.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use umbra_protocol::command::{CommandResult, CommandState};
use umbra_protocol::enrolment::Enrol;
use umbra_protocol::first_auth::{EXPORTER_LABEL, FirstAuthKey, Transcript};
use umbra_protocol::ids::from_hex;
use umbra_protocol::link::Beat;
use umbra_protocol::session::{
    CallerRefused, Presented, SessionRecord, SessionStarted, SessionVerify,
};
use umbra_protocol::settings::SettingsApplied;
use umbra_protocol::{CommandId, FromDevice, Refusal, RefusalCode, Secret, UnitId, encode};
use umbra_tests::control_link::{Identity, Link, unknown};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Console, Server};

use crate::enrolment::{devices, printed, site, text};
use crate::strangers::{bounded, resident};

const UNIT: &str = "BAD-1";
/// The end of every hostile text: a title and a cleared screen, a forged line, what turns and hides text, NUL, markup, a formula.
const SPITE: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\r\nFORGED\u{202e}fdp\u{2066}\u{61c}\u{feff}\u{e0041}\u{9b}2J\u{0}\u{2028}<b>&\"'";
/// What a person must never get to see unescaped in it.
const HIDDEN: &str =
    "\u{1b}\u{7}\r\u{202e}\u{2066}\u{61c}\u{feff}\u{e0041}\u{9b}\u{0}\u{2028}\u{2029}";
/// The largest frame on a link that was welcomed.
const FRAME: usize = 256 * 1024;

fn spite(what: &str) -> String {
    format!("={what}{SPITE}")
}

fn facts() -> Value {
    json!({
        "unit_id": UNIT, "name": spite("name"), "os": spite("os"), "agent_version": spite("agent"),
        "architecture": spite("architecture"), "addresses": [spite("address"), "192.0.2.7"], "shadow_port": 5900,
        "secure_mode": true,
    })
}

fn hello(intent: &str) -> Vec<u8> {
    let hello = json!({"type": "hello", "versions": [1], "features": [spite("feature")], "intent": intent, "device": facts()});
    hello.to_string().into_bytes()
}

/// Has the hostile device taken on.
async fn taken_on(server: &Server<'_>, identity: &Identity, key: &str) -> anyhow::Result<()> {
    let mut link = dial(server, identity).await?;
    link.say(&hello("enrol")).await?;
    let challenge = link.hear().await?;
    let salt = from_hex(&text(&challenge, "/salt")).context("no salt")?;
    let rounds = challenge["rounds"].as_u64().context("no rounds")?;
    let stretched = FirstAuthKey::parse(key)?.stretch(&salt, u32::try_from(rounds)?);
    let nonce = "5a".repeat(32);
    let unit: UnitId = UNIT.parse()?;
    let transcript = Transcript::new(
        &link.exporter(EXPORTER_LABEL)?,
        &identity.0,
        stretched.key_id(),
        &unit,
        &text(&challenge, "/nonce"),
        &nonce,
    );
    let enrol = Enrol {
        key_id: stretched.key_id(),
        nonce,
        proof: stretched.client_proof(&transcript),
    };
    link.say(&encode(&FromDevice::from(enrol))).await?;
    let enrolled = link.hear().await?;
    ensure!(text(&enrolled, "/type") == "enrolled", "{enrolled}");
    Ok(())
}

async fn dial(server: &Server<'_>, identity: &Identity) -> anyhow::Result<Link> {
    Link::dial(server, Some((identity.0.clone(), identity.1.clone_key()))).await
}

async fn welcomed(server: &Server<'_>, identity: &Identity) -> anyhow::Result<Link> {
    let mut link = dial(server, identity).await?;
    link.say(&hello("link")).await?;
    heard(&mut link, "welcome").await?;
    Ok(link)
}

/// Listens until the server says something of this kind.
async fn heard(link: &mut Link, kind: &str) -> anyhow::Result<Value> {
    loop {
        let said = link.hear().await?;
        if text(&said, "/type") == kind {
            return Ok(said);
        }
        ensure!(
            text(&said, "/type") != "refusal",
            "instead of {kind}: {said}"
        );
    }
}

async fn say(link: &mut Link, message: impl Into<FromDevice>) -> anyhow::Result<()> {
    link.say(&encode(&message.into())).await
}

/// Waits until everything that was said before is filed.
async fn filed(link: &mut Link) -> anyhow::Result<()> {
    say(link, Beat { number: 7 }).await?;
    heard(link, "pong").await.map(drop)
}

fn inventory(id: CommandId) -> CommandResult {
    CommandResult {
        id,
        state: CommandState::Done,
        sentence: spite("done"),
        facts: BTreeMap::from([
            (spite("fact"), spite("value")),
            ("model".to_owned(), spite("model")),
        ]),
    }
}

async fn order(console: &Console<'_>) -> anyhow::Result<CommandId> {
    let given = console
        .tell(&["devices", "command", UNIT, "inventory"], "")
        .await?;
    Ok(text(&given, "/id").parse()?)
}

/// Nothing in a text for people moves a cursor, turns text or hides in it; apart from line feeds.
fn safe(what: &str, told: &str) -> anyhow::Result<()> {
    let bad = told
        .chars()
        .find(|c| HIDDEN.contains(*c) || (c.is_control() && *c != '\n'));
    ensure!(bad.is_none(), "{what}: {bad:?} is in {told:?}");
    ensure!(
        !told.lines().any(|line| line.starts_with("FORGED")),
        "{what}: a forged line is in {told:?}"
    );
    Ok(())
}

/// Every text in a document, names included.
fn texts(document: &Value, found: &mut Vec<String>) {
    match document {
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
        Value::String(text) => found.push(text.clone()),
        Value::Array(all) => all.iter().for_each(|one| texts(one, found)),
        Value::Object(all) => all.iter().for_each(|(name, one)| {
            found.push(name.clone());
            texts(one, found);
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_device_calls_itself_stays_on_its_line_everywhere_and_says_nothing_to_a_terminal()
 {
    scenario(async |scratch| {
        let (mut server, console) = site(scratch).await?;
        let identity = unknown()?;
        let (key_id, key) = crate::enrolment::key(&console, &[]).await?;
        taken_on(&server, &identity, &key).await?;
        let mut link = welcomed(&server, &identity).await?;
        let refused = BTreeMap::from([(spite("parameter"), spite("sentence"))]);
        console
            .tell(
                &[
                    "devices",
                    "settings",
                    UNIT,
                    "network.vncserver.enabled=true",
                ],
                "",
            )
            .await?;
        let settings = heard(&mut link, "settings").await?;
        let revision = settings["revision"].as_u64().context("no revision")?;
        say(&mut link, SettingsApplied { revision, refused }).await?;
        let id = order(&console).await?;
        say(&mut link, inventory(id)).await?;
        let refusal = Refusal {
            code: RefusalCode::Busy,
            sentence: spite("refusal"),
            retry_after_seconds: None,
        };
        let from = spite("caller");
        say(
            &mut link,
            CallerRefused {
                from,
                refusal: refusal.clone(),
            },
        )
        .await?;
        say(&mut link, FromDevice::Refusal(refusal)).await?;
        // A session that it lets begin and describes as it likes.
        let offer = console.offer(&server, UNIT, false).await?;
        let presented = Presented::Ticket {
            ticket: offer.ticket.clone(),
            password: Secret::new(offer.password.clone()),
        };
        let question = SessionVerify {
            question: 1,
            presented,
        };
        say(&mut link, question).await?;
        heard(&mut link, "session_verdict").await?;
        let session = offer.session.parse()?;
        say(&mut link, SessionStarted { session }).await?;
        let record = SessionRecord {
            session,
            code: spite("code"),
            sentence: spite("end"),
            duration_ms: 1,
            bytes_to_device: 1,
            bytes_to_console: 1,
        };
        say(&mut link, record).await?;
        heard(&mut link, "record_filed").await?;
        filed(&mut link).await?;

        // What people read: on lines of its own, and everything in sight.
        let one_line: [(&[&str], &str, usize); 4] = [
            (&["devices"], "=name", 2),
            (&["sessions"], "=end", 2),
            (&["keys", "list"], "", 2),
            (&["audit"], "=caller", 0),
        ];
        for (words, seen, lines) in one_line {
            let told = printed(scratch, &console, words).await?;
            safe(&words.join(" "), &told)?;
            ensure!(told.contains(seen), "“{seen}” is missing in {told}");
            ensure!(lines == 0 || told.lines().count() == lines, "{told}");
        }
        let numbered = printed(scratch, &console, &["audit"]).await?;
        let log = console.tell(&["audit"], "").await?;
        ensure!(
            numbered.lines().count() == log.as_array().map_or(0, Vec::len) + 1,
            "{numbered}"
        );
        let session = offer.session.as_str();
        let wait = ["devices", "command", UNIT, "--wait", "inventory"];
        let shown: [(&[&str], &[&str]); 4] = [
            (
                &["devices", "show", UNIT],
                &["=name", "=os", "=agent", "=parameter", "=sentence"],
            ),
            (&["sessions", "show", session], &["=end", "=code"]),
            (&["keys", "show", &key_id], &["=name"]),
            (&wait, &["=model", "=fact", "=value", "=done"]),
        ];
        for (words, seen) in shown {
            let answering = async {
                if words == wait {
                    let command = heard(&mut link, "command").await?;
                    let id = text(&command, "/id").parse()?;
                    say(&mut link, inventory(id)).await?;
                }
                anyhow::Ok(())
            };
            let (told, answered) = tokio::join!(printed(scratch, &console, words), answering);
            answered?;
            let told = told?;
            safe(&words.join(" "), &told)?;
            for word in seen {
                ensure!(told.contains(word), "“{word}” is missing in {told}");
            }
        }
        // What programs read: whole documents, in which the server keeps nothing of it either.
        let api = [
            console.tell(&["devices"], "").await?,
            console.tell(&["devices", "show", UNIT], "").await?,
            console.tell(&["sessions"], "").await?,
            console.tell(&["keys", "show", &key_id], "").await?,
            console
                .call(
                    &server,
                    "GET",
                    &format!("/api/v1/devices/{UNIT}/commands"),
                    None,
                )
                .await?
                .1,
            log,
        ];
        let mut all = Vec::new();
        api.iter().for_each(|document| texts(document, &mut all));
        ensure!(
            all.iter().filter(|text| text.contains("FORGED")).count() >= 12,
            "{all:?}"
        );
        for told in &all {
            // A fact may have several lines; a program finds them as it was told.
            safe("a document", &told.replace("\nFORGED", "FORGED"))?;
        }
        let on_file = devices(&console).await?;
        ensure!(
            on_file[0]["shadow_addresses"]
                .as_array()
                .is_some_and(|all| all.contains(&json!("192.0.2.7:5900"))),
            "{on_file:?}"
        );
        // A key for it, as a page and as a letter: markup stays text.
        let tag = [
            "keys",
            "create",
            "--device",
            UNIT,
            "--tag",
            "<script>alert('x')</script>",
        ];
        console.tell(&tag, "").await?;
        for format in ["html", "eml"] {
            let file = scratch.path(&format!("key.{format}")).display().to_string();
            let words = [
                "keys",
                "export",
                "--format",
                format,
                "--to",
                "a@example.com",
                "--out",
                &file,
            ];
            let words = if format == "eml" {
                &words[..]
            } else {
                &[&words[..4], &words[6..]].concat()[..]
            };
            console.tell(words, "").await?;
            let written = std::fs::read_to_string(&file)?;
            safe(format, &written.replace('\r', ""))?;
            ensure!(!written.contains("<script"), "{written}");
            console
                .tell(
                    &["keys", "create", "--device", UNIT, "--tag", "<script>"],
                    "",
                )
                .await?;
        }
        // The server's own log: one line per event, each with its time.
        let lines = server.program().lines();
        for line in &lines {
            safe("the log", line)?;
            let begins = ["20", "first account=", "listening address="];
            ensure!(begins.iter().any(|begin| line.starts_with(begin)), "{line}");
        }
        ensure!(
            !lines.iter().any(|line| line.contains("FORGED")),
            "{lines:?}"
        );
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_megabytes_of_inventory_are_refused_and_cost_nothing() {
    scenario(async |scratch| {
        let (mut server, console) = site(scratch).await?;
        let identity = unknown()?;
        let (_, key) = crate::enrolment::key(&console, &[]).await?;
        taken_on(&server, &identity, &key).await?;
        let id = order(&console).await?;
        let before = resident(Some(server.program()))?;
        let large = |facts: BTreeMap<String, String>| CommandResult {
            facts,
            ..inventory(id)
        };
        // In one frame, in one fact, in too many facts.
        let mut link = welcomed(&server, &identity).await?;
        let ten = large(BTreeMap::from([("x".into(), "y".repeat(10 << 20))]));
        let ten = encode(&FromDevice::from(ten));
        // The number is enough for the server: it may hang up before the rest is through.
        let _ = link
            .announce(u32::try_from(ten.len())?, &ten[..FRAME])
            .await;
        refused(&mut link, "too_large").await?;
        let cases = [
            large(BTreeMap::from([("x".into(), "y".repeat(200 << 10))])),
            large((0..5_000).map(|n| (n.to_string(), "y".into())).collect()),
        ];
        for case in cases {
            let mut link = welcomed(&server, &identity).await?;
            say(&mut link, case).await?;
            refused(&mut link, "malformed").await?;
        }
        // As many of the largest that is read as make ten megabytes: the first is the answer, and there is one.
        let mut link = welcomed(&server, &identity).await?;
        let facts = (0..60)
            .map(|n| (n.to_string(), "y".repeat(4 << 10)))
            .collect();
        let largest = large(facts);
        for _ in 0..40 {
            say(&mut link, largest.clone()).await?;
            heard(&mut link, "result_filed").await?;
        }
        filed(&mut link).await?;
        bounded(before, resident(Some(server.program()))?)?;
        let kept: u64 = std::fs::read_dir(server.state())?
            .filter_map(|entry| entry.ok()?.metadata().ok())
            .map(|data| data.len())
            .sum();
        ensure!(kept < 6 << 20, "{kept} bytes are kept");
        let path = format!("/api/v1/devices/{UNIT}/commands");
        let commands = console.call(&server, "GET", &path, None).await?.1;
        ensure!(
            commands.as_array().map(Vec::len) == Some(1) && commands.to_string().len() < 100 << 10,
            "{} bytes",
            commands.to_string().len()
        );
        ensure!(devices(&console).await?.len() == 1);
        Ok(())
    })
    .await;
}

async fn refused(link: &mut Link, code: &str) -> anyhow::Result<()> {
    loop {
        let said = link.hear().await?;
        if text(&said, "/type") == "refusal" {
            ensure!(text(&said, "/code") == code, "{code} expected, but {said}");
            return Ok(());
        }
    }
}
