//! A full disk under the management server: it goes on with all that needs no room, says of the rest that and why it did
//! not happen, and is whole and working again as soon as there is room.

use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use umbra_tests::program::{product, run};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{
    Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig, World, desktop,
};

use crate::device_state::in_namespace;

/// More changes than fit into what the database has reserved already.
const CHANGES: usize = 400;

/// The server's disk, which only the server and this scenario see.
struct Disk<'s> {
    scratch: &'s Scratch,
    enter: Vec<String>,
}

impl Disk<'_> {
    async fn shell(&self, script: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.enter[0]);
        let script = format!("cd {} && {{ {script}; }}", self.scratch.root().display());
        command.args(&self.enter[1..]).args(["sh", "-c", &script]);
        let output = run(self.scratch, "shell", &mut command, b"", PATIENCE).await?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    async fn fill(&self) -> anyhow::Result<()> {
        let room = "cat /dev/zero >server/filler 2>/dev/null; df --output=avail server | tail -1";
        let room = self.shell(room).await?;
        ensure!(room == "0", "{room} KiB are left");
        Ok(())
    }

    async fn clear(&self) -> anyhow::Result<()> {
        self.shell("rm server/filler").await.map(drop)
    }
}

/// A command of the console that fails because of the disk, with a sentence that says what to do.
async fn refused(console: &Console<'_>, arguments: &[&str]) -> anyhow::Result<()> {
    let output = console.output(arguments, "").await?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "{arguments:?} worked: {told}");
    for part in [
        "\"code\":\"disk_full\"",
        "\"status\":507",
        "disk is full, so nothing was changed",
        "free some space",
    ] {
        ensure!(told.contains(part), "{part} is missing: {told}");
    }
    Ok(())
}

async fn count(console: &Console<'_>, list: &[&str]) -> anyhow::Result<usize> {
    let list = console.tell(list, "").await?;
    Ok(list.as_array().context("no list")?.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_disk_is_full_serves_what_it_can_and_is_whole_once_there_is_room() {
    scenario(async |scratch| {
        let state = scratch.folder("server")?;
        let script = format!("mount -t tmpfs -o size=4m none {}", state.display());
        let (_holder, pid) = in_namespace(scratch, &script).await?;
        let enter = ["nsenter", "-m", "-t", &pid].map(str::to_owned).to_vec();
        let disk = Disk {
            scratch,
            enter: enter.clone(),
        };
        let server = Server::start_under(scratch, ServerConfig::default(), enter).await?;
        let console = Console::administrator(scratch, &server).await?;
        let screen = desktop(scratch).await?;
        let mut device = Device::new(scratch, "device", DeviceConfig::with_desktop(&screen))?;
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        let mut world = World {
            desktop: screen,
            server,
            device,
            console,
        };
        let mut second = Device::new(scratch, "second", DeviceConfig::default())?;
        second.start()?;
        let spare = world.console.one_time_key().await?;
        let mut shadow = world.shadow("while the disk fills").await?;
        let mut viewer = shadow.view().await?;
        viewer.refresh().await?;

        disk.fill().await?;
        // What the database has reserved before may still be used; each of these either happened or did not.
        let before = count(&world.console, &["keys", "list"]).await?;
        let mut made = 0;
        let body = json!({"kind": "one_time", "count": 1});
        let problem = loop {
            ensure!(made < CHANGES, "the disk is not full for the database");
            let (status, answer) = world
                .console
                .call(&world.server, "POST", "/api/v1/keys", Some(&body))
                .await?;
            match status {
                201 => made += 1,
                507 => break answer,
                other => anyhow::bail!("{other}: {answer}"),
            }
        };
        ensure!(problem["code"] == "disk_full", "{problem}");

        // Everything that changes something is refused, the same way each time.
        let name = world.device_name().await?;
        for arguments in [
            &["keys", "create"][..],
            &["policy", "--enforce-secure-mode", "on"],
            &["devices", "command", &name, "message", "hello"],
            &["shadow", &name, "--listen", "127.0.0.1:0"],
        ] {
            refused(&world.console, arguments).await?;
        }
        let late = Console::new(scratch, "late");
        let password = world.server.password_file().display().to_string();
        let log_in = [
            "login",
            &world.server.address().to_string(),
            "--user",
            "admin",
            "--password-file",
            &password,
            "--fingerprint",
            world.server.fingerprint(),
        ];
        refused(&late, &log_in).await?;
        // Whoever is to be taken on learns that it is the server's fault, and that the key is still good.
        let failed = second.enrol(&world.server, &spare).await;
        let told = failed.err().context("a device was taken on")?.to_string();
        ensure!(told.contains("cannot write to its database"), "{told}");

        // What changes nothing goes on as ever.
        let (status, health) = world
            .console
            .call(&world.server, "GET", "/healthz", None)
            .await?;
        ensure!(status == 200, "{status}: {health}");
        let devices = world.console.tell(&["devices"], "").await?;
        ensure!(
            devices.as_array().is_some_and(|all| all.len() == 1) && devices[0]["online"] == true,
            "{devices}"
        );
        let keys = count(&world.console, &["keys", "list"]).await?;
        ensure!(
            keys == before + made,
            "{before} keys, {made} made, {keys} there"
        );
        let policy = world.console.tell(&["policy"], "").await?;
        ensure!(policy["enforce_secure_mode"] == false, "{policy}");
        viewer.follow().await?;
        ensure!(world.desktop.connections() == 1, "{devices}");
        // The end of a session cannot be filed; the device keeps it.
        viewer.leave().await?;
        let ended = shadow.ended().await?;
        let session = ended["session"].as_str().context("no session")?.to_owned();
        let record = world.console.session(&session).await?;
        ensure!(record["state"] == "running", "{record}");
        ensure!(
            world.server.program().exited().is_none(),
            "the server has ended"
        );

        // With room again everything works, without anybody having touched the server.
        disk.clear().await?;
        world.console.tell(&["keys", "create"], "").await?;
        world.device.wait_until_online().await?;
        let record = world.console.ended_session(&session).await?;
        ensure!(record["end_code"] == ended["code"], "{record} and {ended}");
        second.enrol(&world.server, &spare).await?;
        second.wait_until_online().await?;
        late.log_in(&world.server, "admin", &world.server.password_file())
            .await?;
        world
            .shadow("afterwards")
            .await?
            .view()
            .await?
            .refresh()
            .await?;

        // The database is whole: a copy of all of it can be made, and a new start finds the same.
        let mut command = Command::new(&disk.enter[0]);
        command
            .args(&disk.enter[1..])
            .arg(product("umbra-server")?)
            .args(["backup", "--state"])
            .arg(&state)
            .arg(scratch.path("copy.db"));
        let output = run(scratch, "backup", &mut command, b"", PATIENCE).await?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let damage = disk
            .shell(&format!(
                "grep panicked {}/log/umbra-server* || true",
                scratch.root().display()
            ))
            .await?;
        ensure!(damage.is_empty(), "something panicked: {damage}");
        let lists = [&["keys", "list"][..], &["devices"], &["sessions"]];
        let mut there = Vec::new();
        for list in lists {
            there.push(count(&world.console, list).await?);
        }
        world.server.program().kill();
        world.server.start_again().await?;
        for (list, there) in lists.into_iter().zip(there) {
            let now = count(&world.console, list).await?;
            ensure!(now == there, "{list:?}: {there} became {now}");
        }
        world.device.wait_until_online().await?;
        let value: Value = world.device.status().await?;
        ensure!(value["stage"] == "online", "{value}");
        Ok(())
    })
    .await;
}
