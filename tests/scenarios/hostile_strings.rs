//! What looks like a command of a shell, a database or a format, in every text that somebody may give to any of the programs: it is
//! that text, and nothing runs. Names that a device gives itself are in `onboarding/hostile_names`.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::ensure;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::timeout;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::tunnel::dial;
use umbra_tests::world::{Console, PATIENCE, World};

/// What is there once a text was run.
const TRACE: &str = "was-here";

/// Whatever runs any part of them leaves this file behind: as they are, and between either kind of quotation marks.
fn spites(trace: &Path) -> [String; 4] {
    let trace = trace.display();
    let bare = format!(
        "x; touch {trace}; $(touch {trace}) `touch {trace}` | touch {trace} & touch {trace} || %n%s {{0}} ../../etc/passwd"
    );
    let single = format!("x'; touch {trace}; '");
    let double = format!("x\"; touch {trace}; $(touch {trace}) ${{IFS}} \" && touch {trace}");
    let database = "' OR '1'='1'; DROP TABLE devices; DELETE FROM keys; --".to_owned();
    [bare, single, double, database]
}

/// A program in the shell's language, as a parameter has it.
fn program(script: &str) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&["/bin/sh", "-c", script])?)
}

/// Gives a text to every program wherever a person may give it one.
async fn given_everywhere(scratch: &Scratch, world: &World<'_>, spite: &str) -> anyhow::Result<()> {
    let (console, device) = (&world.console, &world.device);
    let name = world.device_name().await?;
    let trace = scratch.path(TRACE);

    // As the reason of a session, which a program of the device's maker is told, and as a viewer's arguments.
    let mut shadow = console.shadow(&name, &["--reason", spite]).await?;
    shadow.view().await?.refresh().await?;
    ensure!(
        std::fs::read_to_string(scratch.path("asked"))? == spite,
        "another reason"
    );
    shadow.program().signal(nix::sys::signal::Signal::SIGINT);
    shadow.finished().await?;
    let viewer = format!("/bin/false ; touch {0} $(touch {0})", trace.display());
    console
        .output(&["shadow", &name, "--viewer", &viewer, "--reason", "x"], "")
        .await?;
    // As a message to the person.
    let message = ["devices", "command", &name, "--wait", "message", spite];
    let done = console.tell(&message, "").await?;
    ensure!(done["state"] == "done", "{done}");
    ensure!(
        std::fs::read_to_string(scratch.path("shown"))? == spite,
        "another text"
    );
    // As parameters that the server decides: the device keeps them to the letter.
    let user: String = spite.chars().take(100).collect();
    let setting = format!("umbra.proxy.user={user}");
    console
        .tell(&["devices", "settings", &name, &setting], "")
        .await?;
    let quoted = json!(user).to_string();
    let quoted = quoted.trim_matches('"');
    let arrived = eventually("the setting to arrive", PATIENCE, async || {
        let get = ["registry", "get", "umbra.proxy.user", "--json"];
        let said = device
            .tell(&get, "")
            .await
            .map_err(|error| error.to_string())?;
        match said.contains(quoted) {
            true => Ok(()),
            false => Err(said),
        }
    });
    arrived.await?;

    // Wherever else a person may type something: taken to the letter, or refused in words.
    let out = scratch.path("gateway").display().to_string();
    let typed: [&[&str]; 12] = [
        &["devices", spite],
        &["devices", "show", spite],
        &["devices", "rename", &name, spite],
        &["keys", "create", "--tag", spite],
        &["keys", "show", spite],
        &["sessions", "show", spite],
        &["sessions", "--device", spite],
        &["gateways", "show", spite],
        &[
            "gateways",
            "create",
            spite,
            "--address",
            "gw.example",
            "--out",
            &out,
        ],
        &[
            "gateways",
            "create",
            "gw",
            "--address",
            spite,
            "--out",
            &out,
        ],
        &["login", spite, "--user", "admin"],
        &[
            "accounts",
            "add",
            spite,
            "--role",
            "operator",
            "--password-file",
            "-",
        ],
    ];
    for words in typed {
        let output = console.output(words, "a good long password\n").await?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code().is_some() && !told.contains("panicked"),
            "{words:?}: {told}"
        );
        ensure!(
            output.status.success() || told.contains(' '),
            "{words:?}: {told}"
        );
    }
    let address = world.server.address().to_string();
    let login = ["login", &address, "--user", spite, "--password-file", "-"];
    let fingerprint = ["--fingerprint", world.server.fingerprint()];
    let stranger = Console::new(scratch, "stranger");
    let refused = stranger
        .output(&[&login[..], &fingerprint[..]].concat(), "some password\n")
        .await?;
    ensure!(!refused.status.success(), "somebody is logged in");
    for words in [
        &["registry", "set", "umbra.proxy.host", spite][..],
        &["registry", "set", "umbra.discovery.domain", spite],
        &["registry", "set", "umbra.proxy.no_proxy", spite],
        &["registry", "get", spite],
        &["end-session", spite],
        &["doctor", "--address", spite],
    ] {
        let output = device.output(words, "").await?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.code().is_some() && !told.contains("panicked"),
            "{words:?}: {told}"
        );
    }
    Ok(())
}

/// Says such words to the device's port, and gives what is heard.
async fn heard(port: SocketAddr, words: String) -> anyhow::Result<Vec<u8>> {
    let mut stream = dial(port, PATIENCE).await?.into_stream();
    stream.write_all(words.as_bytes()).await?;
    stream.shutdown().await?;
    let mut heard = Vec::new();
    // However it ends.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await?;
    Ok(heard)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_a_command_is_a_text_wherever_it_is_given() {
    scenario(async |scratch| {
        let trace = scratch.path(TRACE);
        let spites = spites(&trace);
        // Where little fits.
        let short = format!("$(touch {})", trace.display());
        let (asked, shown) = (scratch.path("asked"), scratch.path("shown"));
        let ask = format!("printf %s \"$UMBRA_REASON\" >'{}'", asked.display());
        let show = format!("cat >'{}'", shown.display());
        let world = World::start_with(
            scratch,
            &[
                ("network.vncserver.promptuser", "true"),
                ("umbra.consent.program", &program(&ask)?),
                ("umbra.message.program", &program(&show)?),
            ],
        )
        .await?;
        let (console, device) = (&world.console, &world.device);
        let name = world.device_name().await?;
        for spite in &spites {
            given_everywhere(scratch, &world, spite).await?;
        }
        console
            .tell(&["keys", "create", "--tag", &short], "")
            .await?;
        // At the port of the device, as those words with which others have been taken over; and at the server's.
        let port = device.shadow_address().await?;
        let mut callers = JoinSet::new();
        for spite in &spites {
            for words in [
                format!("PROCYCMD PW_{spite}\n"),
                format!("PROCYCMD {spite}\n"),
                format!("UMBRA/1 {spite} {spite}\n"),
            ] {
                callers.spawn(heard(port, words));
            }
            let encoded: String = spite.bytes().map(|byte| format!("%{byte:02x}")).collect();
            for path in ["/api/v1/devices?text=", "/api/v1/devices/", "/api/v1/keys/"] {
                let whole = format!("{path}{encoded}");
                let (status, said) = console.call(&world.server, "GET", &whole, None).await?;
                ensure!(status < 500, "{status}: {said}");
            }
        }
        while let Some(heard) = callers.join_next().await {
            ensure!(!heard??.starts_with(b"RFB"), "somebody was let in");
        }

        // Nothing has run anywhere, nothing is gone, and the texts are what they were.
        ensure!(!trace.exists(), "a text was run");
        let devices = console.tell(&["devices"], "").await?;
        ensure!(
            devices.as_array().is_some_and(|all| all.len() == 1),
            "{devices}"
        );
        let keys = console.tell(&["keys", "list"], "").await?;
        let tags = |list: &serde_json::Value| {
            let all = list.as_array().cloned().unwrap_or_default();
            all.iter().filter(|key| key["tag"] == json!(short)).count()
        };
        ensure!(tags(&keys) == 1, "{keys}");
        let sessions = console.tell(&["sessions"], "").await?;
        ensure!(
            spites.iter().all(|spite| {
                let mut all = sessions.as_array().into_iter().flatten();
                all.any(|one| one["reason"] == json!(spite))
            }),
            "{sessions}"
        );
        let again = console.shadow(&name, &["--reason", "afterwards"]).await?;
        again.view().await?.refresh().await?;
        drop(again);
        ensure!(!trace.exists(), "a text was run");
        Ok(())
    })
    .await;
}
