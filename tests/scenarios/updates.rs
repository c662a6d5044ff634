//! Updates of the device's system, by RAUC as Debian ships it, into two slots: what the server's `update` leads to, through the
//! restart to the confirmation or back, and whatever goes wrong in between. The slots are loop devices; root is needed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use umbra_tests::eventually::eventually;
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::two_slots::{Maker, TwoSlots, image, isolate};
use umbra_tests::world::{Console, Device, DeviceConfig, PATIENCE, Server, ServerConfig};

const BOARD: &str = "example-thin-client-amd64";
/// Seconds that a new system gets here until its server is reached: enough, or too few.
const ENOUGH: u32 = 60;
const TOO_FEW: u32 = 3;

/// A device with two slots that a server has taken on and that runs from slot A.
struct Site<'s> {
    slots: TwoSlots<'s>,
    server: Server<'s>,
    device: Device<'s>,
    console: Console<'s>,
    maker: Maker<'s>,
    unit: String,
    bundle: PathBuf,
}

impl<'s> Site<'s> {
    async fn new(scratch: &'s Scratch) -> anyhow::Result<Self> {
        isolate(scratch)?;
        let server = Server::start(scratch, ServerConfig::default()).await?;
        let console = Console::administrator(scratch, &server).await?;
        let maker = Maker::new(scratch, "maker").await?;
        let root = scratch.path("device");
        let mut slots = TwoSlots::new(scratch, root, &maker, &image(1)).await?;
        let bundle = scratch.path("update.raucb");
        let mut config = DeviceConfig::default();
        let update = serde_json::to_string(&slots.update_command(&bundle))?;
        let reboot = serde_json::to_string(&slots.reboot_command())?;
        config
            .set("umbra.hands.update_command", &update)
            .set("umbra.hands.reboot_command", &reboot)
            .set_text("umbra.vncserver.upstream", "tcp:127.0.0.1:1");
        let mut device = Device::new(scratch, "device", config)?;
        ensure!(slots.boot().await? == 'A');
        device.start()?;
        let key = console.one_time_key().await?;
        device.enrol(&server, &key).await?;
        device.wait_until_online().await?;
        let unit = device.unit_id().await?;
        slots.check(ENOUGH).await?;
        Ok(Self {
            slots,
            server,
            device,
            console,
            maker,
            unit,
            bundle,
        })
    }

    /// The administrator's command; gives its ID.
    async fn update(&self) -> anyhow::Result<String> {
        let command = ["devices", "command", &self.unit, "update"];
        let given = self.console.tell(&command, "").await?;
        Ok(given["id"].as_str().context("no ID")?.to_owned())
    }

    /// What the server has on file of the newest command.
    async fn on_file(&self) -> anyhow::Result<Value> {
        let all = self
            .console
            .tell(&["devices", "commands", &self.unit], "")
            .await?;
        Ok(all.get(0).cloned().unwrap_or_default())
    }

    async fn wait_until_on_file(
        &self,
        what: &str,
        is: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let found = eventually(what, PATIENCE * 2, async || {
            let found = self.on_file().await.map_err(|error| error.to_string())?;
            is(&found)
                .then(|| found.clone())
                .ok_or_else(|| found.to_string())
        });
        Ok(found.await?)
    }

    /// How the newest command ended, and the device's sentence about it.
    async fn ended(&self) -> anyhow::Result<(String, String)> {
        let ended = self
            .wait_until_on_file("the command to end", |command| command["state"].is_string())
            .await?;
        let text = |name: &str| ended[name].as_str().unwrap_or_default().to_owned();
        Ok((text("state"), text("sentence")))
    }

    /// The device starts again: another boot, and another agent.
    async fn restart(&mut self) -> anyhow::Result<char> {
        self.device.kill();
        self.slots.power_cut().await?;
        let slot = self.slots.boot().await?;
        self.device.start()?;
        self.device.wait_until_up().await?;
        Ok(slot)
    }
}

#[tokio::test]
async fn an_update_goes_into_the_other_slot_and_is_confirmed_once_its_server_is_reached() {
    scenario(async |scratch| {
        let mut site = Site::new(scratch).await?;
        let new = image(2);
        site.maker.bundle(BOARD, &new, &site.bundle).await?;
        let identity = std::fs::read(site.device.certificate())?;
        site.update().await?;

        // Copying takes its time: both ends see it.
        let copying = |text: &str| text.contains("Copying image to rootfs.1");
        site.wait_until_on_file("the server to hear how far it is", |command| {
            copying(&command.to_string())
                && command["state"].is_null()
                && command["progress"]["percent"]
                    .as_u64()
                    .is_some_and(|percent| percent >= 50)
        })
        .await?;
        let report = site.device.tell(&["status"], "").await?;
        ensure!(copying(&report), "{report}");
        site.slots.wait_until_restart_is_asked_for().await?;
        ensure!(
            site.slots.slot('B')? == new,
            "the slot holds something else"
        );
        ensure!(
            site.slots.slot('A')? == image(1),
            "the old system was touched"
        );
        ensure!(
            site.on_file().await?["state"].is_null(),
            "it was called done too early"
        );

        ensure!(site.restart().await? == 'B', "the slots were not switched");
        site.device.wait_until_online().await?;
        ensure!(
            site.slots.grub("B_TRY").await? == "1",
            "confirmed before anybody had looked"
        );
        let checked = site.slots.check(ENOUGH).await?;
        ensure!(checked.status.success(), "{checked:?}");
        let (state, sentence) = site.ended().await?;
        ensure!(
            state == "done" && sentence.contains("from slot B"),
            "{state}: {sentence}"
        );
        ensure!(site.slots.grub("B_OK").await? == "1" && site.slots.grub("B_TRY").await? == "0");
        ensure!(
            std::fs::read(site.device.certificate())? == identity,
            "the device became another"
        );
        let report = site.device.tell(&["status"], "").await?;
        ensure!(report.contains("from slot B"), "{report}");
        ensure!(!site.slots.restart_is_asked_for());

        // It stays there, whatever happens to its server from now on.
        site.server.program().kill();
        ensure!(site.restart().await? == 'B');
        site.slots.check(TOO_FEW).await?;
        ensure!(site.restart().await? == 'B');
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_new_system_that_does_not_reach_its_server_is_given_up_and_the_server_hears_why() {
    scenario(async |scratch| {
        let mut site = Site::new(scratch).await?;
        site.maker.bundle(BOARD, &image(2), &site.bundle).await?;
        site.update().await?;
        site.slots.wait_until_restart_is_asked_for().await?;
        site.server.program().kill();
        ensure!(site.restart().await? == 'B');

        // What the device could go back to is not overwritten meanwhile.
        let install = site.slots.install(&site.bundle).await?;
        let said = String::from_utf8_lossy(&install.stdout).into_owned();
        ensure!(
            !install.status.success() && said.contains("not confirmed yet"),
            "{said}"
        );
        ensure!(site.slots.slot('A')? == image(1));

        site.slots.check(TOO_FEW).await?;
        site.slots.wait_until_restart_is_asked_for().await?;
        ensure!(
            site.slots.grub("B_OK").await? == "0",
            "the new system would be started again"
        );
        ensure!(site.restart().await? == 'A', "the device did not go back");
        site.slots.check(ENOUGH).await?;
        site.server.start_again().await?;
        site.device.wait_until_online().await?;
        let (state, sentence) = site.ended().await?;
        ensure!(state == "failed", "{state}: {sentence}");
        for part in [
            "given up after 3 seconds",
            "server can't be reached",
            "gone back to slot A",
        ] {
            ensure!(sentence.contains(part), "{sentence}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn bundles_that_are_cut_short_or_of_strangers_or_for_another_board_are_refused_and_touch_nothing()
 {
    scenario(async |scratch| {
        let site = Site::new(scratch).await?;
        let stranger = Maker::new(scratch, "stranger").await?;
        let before = site.slots.slot('B')?;
        for (what, reason) in [
            ("nothing", "No such file"),
            ("cut short", "Invalid bundle format"),
            ("of a stranger", "signature"),
            ("for another board", "Compatible mismatch"),
        ] {
            match what {
                "nothing" => {}
                "of a stranger" => stranger.bundle(BOARD, &image(2), &site.bundle).await?,
                "for another board" => {
                    site.maker
                        .bundle("other-board", &image(2), &site.bundle)
                        .await?;
                }
                _ => {
                    site.maker.bundle(BOARD, &image(2), &site.bundle).await?;
                    let whole = std::fs::read(&site.bundle)?;
                    std::fs::write(&site.bundle, &whole[..whole.len() / 2])?;
                }
            }
            site.update().await?;
            let (state, sentence) = site.ended().await?;
            ensure!(
                state == "failed"
                    && sentence.contains("slot A stays in use")
                    && sentence.contains(reason),
                "{what}: {state}: {sentence}"
            );
            ensure!(site.slots.slot('B')? == before, "{what}: it was written");
            ensure!(
                site.slots.slot('A')? == image(1),
                "{what}: the old system was touched"
            );
            ensure!(site.slots.grub("ORDER").await? == "A B", "{what}");
            ensure!(!site.slots.restart_is_asked_for(), "{what}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn power_lost_during_an_update_leaves_the_old_system_and_the_next_update_works() {
    scenario(async |scratch| {
        let mut site = Site::new(scratch).await?;
        let identity = std::fs::read(site.device.certificate())?;
        let new = image(2);
        site.maker.bundle(BOARD, &new, &site.bundle).await?;
        for in_the_middle in [false, true] {
            let empty = site.slots.slot('B')?;
            site.update().await?;
            site.slots.wait_until_noted("installing").await?;
            if in_the_middle {
                site.slots.wait_until_written('B', &empty).await?;
            }
            ensure!(site.restart().await? == 'A', "half a system was started");
            ensure!(
                site.slots.slot('A')? == image(1),
                "the old system was touched"
            );
            ensure!(site.slots.slot('B')? != new, "there was no middle");
            site.slots.check(ENOUGH).await?;
            site.device.wait_until_online().await?;
            let (state, sentence) = site.ended().await?;
            ensure!(
                state == "interrupted" && sentence.contains("slot A is in use as before"),
                "{state}: {sentence}"
            );
        }
        site.update().await?;
        site.slots.wait_until_restart_is_asked_for().await?;
        // The power goes before anybody has confirmed the new system: the boot loader does not try it twice.
        ensure!(site.restart().await? == 'B');
        ensure!(site.slots.slot('B')? == new);
        ensure!(site.restart().await? == 'A');
        site.slots.check(ENOUGH).await?;
        site.device.wait_until_online().await?;
        let (state, sentence) = site.ended().await?;
        ensure!(
            state == "failed" && sentence.contains("did not come up"),
            "{state}: {sentence}"
        );
        ensure!(
            std::fs::read(site.device.certificate())? == identity,
            "the device became another"
        );
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn power_lost_when_the_slots_are_switched_and_nobody_has_noted_it_costs_no_confirmation() {
    scenario(async |scratch| {
        let mut site = Site::new(scratch).await?;
        let new = image(2);
        site.maker.bundle(BOARD, &new, &site.bundle).await?;
        site.slots.prepare_to_hold_notes()?;
        let empty = site.slots.slot('B')?;
        site.update().await?;
        // What is noted before RAUC begins is on the disk by then.
        site.slots.wait_until_written('B', &empty).await?;
        site.slots.hold_notes()?;
        site.slots.wait_until_first("B A").await?;
        ensure!(site.restart().await? == 'B');
        site.slots.go_on_noting()?;
        ensure!(
            site.slots.noted()? == "installing",
            "it was noted all the same"
        );
        ensure!(site.slots.slot('B')? == new);
        site.slots.check(ENOUGH).await?;
        let (state, sentence) = site.ended().await?;
        ensure!(
            state == "done" && sentence.contains("from slot B"),
            "{state}: {sentence}"
        );

        // The next one goes into the other slot.
        let newer = image(3);
        site.maker.bundle(BOARD, &newer, &site.bundle).await?;
        site.update().await?;
        site.slots.wait_until_restart_is_asked_for().await?;
        ensure!(site.slots.slot('A')? == newer && site.slots.slot('B')? == new);
        ensure!(site.restart().await? == 'A');
        Ok(())
    })
    .await;
}

/// Cuts the power before each step of the check, boots again, and sees how it went on: which words were noted in the end.
async fn cut_at_each_step(site: &mut Site<'_>) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    site.maker.bundle(BOARD, &image(2), &site.bundle).await?;
    let install = site.slots.install(&site.bundle).await?;
    ensure!(install.status.success(), "{install:?}");
    let installed = site.slots.keep()?;
    for step in 1.. {
        site.slots.power_cut().await?;
        site.slots.set_back(&installed)?;
        ensure!(site.slots.boot().await? == 'B');
        if !site.slots.check_until(1, step).await? {
            ensure!(step > 5, "hardly a step");
            break;
        }
        let slot = site.slots.boot().await?;
        site.slots.check(1).await?;
        let noted = site.slots.noted()?;
        ensure!(
            matches!((slot, noted.as_str()), ('A', "back") | ('B', "good")),
            "step {step}: {noted} in slot {slot}"
        );
        let confirmed = (
            site.slots.grub(&format!("{slot}_OK")).await?,
            site.slots.grub(&format!("{slot}_TRY")).await?,
        );
        ensure!(
            confirmed == ("1".into(), "0".into()),
            "step {step}: {confirmed:?}"
        );
        found.insert(noted);
    }
    Ok(found)
}

#[tokio::test]
async fn a_power_cut_at_any_step_of_confirming_leaves_one_system_in_use_and_told() {
    scenario(async |scratch| {
        let mut site = Site::new(scratch).await?;
        let found = cut_at_each_step(&mut site).await?;
        ensure!(found.len() == 2, "it always went the same way: {found:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_power_cut_at_any_step_of_giving_up_leaves_the_old_system_in_use_and_told() {
    scenario(async |scratch| {
        let mut site = Site::new(scratch).await?;
        site.server.program().kill();
        site.device.wait_for_stage("waiting").await?;
        let found = cut_at_each_step(&mut site).await?;
        ensure!(found == BTreeSet::from(["back".to_owned()]), "{found:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_agent_that_dies_during_an_update_goes_on_with_it_in_its_next_life() {
    scenario(async |scratch| {
        let mut site = Site::new(scratch).await?;
        site.maker.bundle(BOARD, &image(2), &site.bundle).await?;
        site.update().await?;
        site.slots.wait_until_noted("installing").await?;
        site.device.restart_hard()?;
        site.slots.wait_until_restart_is_asked_for().await?;
        ensure!(site.restart().await? == 'B');
        site.slots.check(ENOUGH).await?;
        let (state, sentence) = site.ended().await?;
        ensure!(
            state == "done" && sentence.contains("from slot B"),
            "{state}: {sentence}"
        );
        Ok(())
    })
    .await;
}
