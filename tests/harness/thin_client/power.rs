//! Power cuts during a first boot: at each of several moments a machine that was never on before loses its power, and has to come
//! up afterwards with one identity, and be taken on.

use std::io::Write;
use std::time::Duration;

use super::device::{BOOT, Image, ThinClient, Way};
use super::headquarters::Headquarters;
use crate::demo::Story;
use crate::eventually::{eventually, eventually_is};
use crate::machine::Engine;
use crate::scratch::Scratch;

/// What is waited for before the power goes.
enum Moment {
    /// A line on the serial line.
    Line(&'static str),
    /// This text on the state partition, whether or not a file has it already.
    OnDisk(&'static str),
    /// The server knows the device, which need not know that yet.
    Filed,
}

struct Cut {
    what: &'static str,
    moment: Moment,
}

const CUTS: [Cut; 6] = [
    Cut {
        what: "as the identity is begun",
        moment: Moment::Line("Starting umbra-identity.service"),
    },
    Cut {
        what: "as soon as the key's bytes are on the disk",
        moment: Moment::OnDisk("-----BEGIN PRIVATE KEY-----"),
    },
    Cut {
        what: "as soon as key and certificate are told to be there",
        moment: Moment::Line("Finished umbra-identity.service"),
    },
    Cut {
        what: "as the enrolment is begun",
        moment: Moment::Line("Starting umbra-enroll.service"),
    },
    Cut {
        what: "as soon as the server has it on file",
        moment: Moment::Filed,
    },
    Cut {
        what: "as soon as the device says that it was taken on",
        moment: Moment::Line("Finished umbra-enroll.service"),
    },
];

/// All of them, each with a machine of its own.
pub(super) async fn cuts<W: Write>(
    scratch: &Scratch,
    image: &Image,
    engine: Engine,
    headquarters: &Headquarters<'_>,
    story: &mut Story<W>,
) -> anyhow::Result<()> {
    for (number, cut) in (2..).zip(&CUTS) {
        let mut client = ThinClient::new(scratch, image, engine, number)?;
        client.credentials(headquarters).await?;
        client.switch_on(story).await?;
        wait_for(&cut.moment, &mut client, headquarters).await?;
        client.cut_power();
        let (before, filed) = (
            client.certificate().await?,
            headquarters.device(client.unit()).await?,
        );
        client.switch_on(story).await?;
        let after = client.online(headquarters, Way::Any, BOOT).await?;
        client.cut_power();
        let now = client.certificate().await?;
        anyhow::ensure!(
            now.contains("BEGIN CERTIFICATE"),
            "{}: there is no certificate on the state partition",
            client.unit()
        );
        anyhow::ensure!(
            before.is_empty() || before == now,
            "{} had a certificate before the power cut and has another one now",
            client.unit()
        );
        if let Some(filed) = &filed {
            anyhow::ensure!(
                filed.get("id") == after.get("id"),
                "{} was on file as another device before the power cut: {filed}",
                client.unit()
            );
        }
        story.step(&format!(
            "power cut {}: it comes up with one identity, {}, and is {}",
            cut.what,
            match before.is_empty() {
                true => "made afterwards",
                false => "the one that it had",
            },
            match filed {
                Some(_) => "the device that the server had on file",
                None => "taken on",
            }
        ))?;
    }
    Ok(())
}

async fn wait_for(
    moment: &Moment,
    client: &mut ThinClient<'_>,
    headquarters: &Headquarters<'_>,
) -> anyhow::Result<()> {
    match moment {
        Moment::Line(line) => {
            client.program()?.wait_for_line(line, BOOT).await?;
        }
        Moment::OnDisk(text) => {
            eventually_is("the text to be on the disk", BOOT, || {
                match client.state_has(text) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err("not yet".to_owned()),
                    Err(error) => Err(format!("{error:#}")),
                }
            })
            .await?;
        }
        Moment::Filed => {
            let unit = client.unit().to_owned();
            eventually("the server to have it on file", BOOT, || async {
                match headquarters.device(&unit).await {
                    Ok(Some(_)) => Ok(()),
                    Ok(None) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                        Err("not yet".to_owned())
                    }
                    Err(error) => Err(format!("{error:#}")),
                }
            })
            .await?;
        }
    }
    Ok(())
}
