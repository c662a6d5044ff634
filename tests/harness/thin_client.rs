//! The example thin client in an emulator, with the server and the gateway on this machine: it is booted from the image that makers
//! of an OS are shown, taken on from a USB stick, shadowed both ways, restarted, and has its power cut. What is waited for is what
//! the server has on file, what a viewer sees, and what the device says on its serial line.

mod device;
mod headquarters;
mod power;

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::demo::Story;
use crate::machine::Engine;
use crate::scratch::Scratch;

use device::ThinClient;
pub use device::{Image, Root};
use headquarters::Headquarters;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Errand {
    /// Boot it and stay, so that a person can shadow it.
    Stay,
    /// Boot, shadow, restart and shadow again.
    Once,
    /// The same, with both kinds of root, and with power cuts during first boots.
    Test,
    /// The power cuts alone.
    Cuts,
}

/// What a person asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The image.
    pub image: Image,
    /// What to do with it.
    pub errand: Errand,
    /// Where to save what was seen.
    pub out: PathBuf,
}

/// Does it, and ends all that it has started; with a person, or when it takes too long for one, as soon as `stop` does.
pub async fn run(
    wish: &Wish,
    out: impl Write,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let scratch = Scratch::new().context("no temporary folder can be made")?;
    let told = tokio::select! {
        told = tell(&scratch, wish, out) => told,
        // Whatever runs ends with what is dropped here.
        () = stop => {
            return match wish.errand {
                Errand::Stay => Ok(()),
                Errand::Once | Errand::Test | Errand::Cuts => Err(anyhow::anyhow!("it was interrupted")),
            };
        }
    };
    if told.is_err() {
        // The folder goes; what the programs said last must not.
        let _ = write!(std::io::stderr().lock(), "{}", scratch.logs());
    }
    told
}

async fn tell(scratch: &Scratch, wish: &Wish, out: impl Write) -> anyhow::Result<()> {
    let mut story = Story::new(out);
    let engine = Engine::find(scratch, wish.image.processor, &wish.image.kernel).await?;
    story.step(&format!(
        "the machine is {}, {}",
        wish.image.processor.name(),
        match engine {
            Engine::Kvm => "run by this one's processor (KVM)",
            Engine::Emulation => "emulated: everything takes many times as long as on a real one",
        }
    ))?;
    let headquarters = Headquarters::start(scratch, &mut story).await?;
    if wish.errand == Errand::Cuts {
        power::cuts(scratch, &wish.image, engine, &headquarters, &mut story).await?;
        return story.say("\nAll is well.");
    }
    let mut client = ThinClient::new(scratch, &wish.image, engine, 1)?;
    client.credentials(&headquarters).await?;
    client.first_boot(&headquarters, &mut story).await?;
    if wish.errand == Errand::Stay {
        return stay(&mut story, &headquarters, &mut client).await;
    }
    client
        .shadow_both_ways(&headquarters, &mut story, &wish.out)
        .await?;
    client.restart(&headquarters, &mut story).await?;
    if wish.errand == Errand::Test {
        client
            .with_another_root(&headquarters, &mut story, Root::Readonly)
            .await?;
        drop(client);
        power::cuts(scratch, &wish.image, engine, &headquarters, &mut story).await?;
    }
    story.say(&format!(
        "\nThe picture: {}\nAll is well.",
        wish.out.display()
    ))
}

async fn stay<W: Write>(
    story: &mut Story<W>,
    headquarters: &Headquarters<'_>,
    client: &mut ThinClient<'_>,
) -> anyhow::Result<()> {
    let umbra = headquarters.typed()?;
    let device = client.unit().to_owned();
    story.say(&format!(
        "\nShadow it from another terminal:\n\n  {umbra} shadow {device} --reason demo\n\nor with a viewer of your own:\n\n  {umbra} \
         shadow {device} --reason demo --listen 127.0.0.1:5901\n  vncviewer 127.0.0.1::5901\n\nand restart it:\n\n  {umbra} devices \
         command {device} reboot\n\nWhat it says on its serial line: {}\n\nCtrl-C ends everything and removes the folder.",
        client.log().display()
    ))?;
    while client.goes_off().await? {
        client.switch_on(story).await?;
        story.say("The device has restarted.")?;
    }
    story.say("The device is off. Ctrl-C ends the rest.")?;
    std::future::pending().await
}
