//! Power cuts during a first boot: at each of several moments a machine that was never on before loses its power, and has to come
//! up afterwards with one identity, and be taken on.

use std::io::Write;
use std::time::Duration;

use super::device::{BOOT, Image, ThinClient};
use super::headquarters::Headquarters;
use crate::demo::Story;
use crate::machine::Engine;
use crate::scratch::Scratch;

/// When the power goes: at a line on the serial line, and how long after it.
struct Cut {
    what: &'static str,
    line: &'static str,
    after: Duration,
}

const CUTS: [Cut; 5] = [
    Cut {
        what: "as the identity is begun",
        line: "Starting umbra-identity.service",
        after: Duration::ZERO,
    },
    Cut {
        what: "a little later, while key and certificate are made",
        line: "Starting umbra-identity.service",
        after: Duration::from_millis(700),
    },
    Cut {
        what: "as soon as key and certificate are there",
        line: "Finished umbra-identity.service",
        after: Duration::ZERO,
    },
    Cut {
        what: "as the enrolment is begun",
        line: "Starting umbra-enroll.service",
        after: Duration::from_millis(500),
    },
    Cut {
        what: "as soon as the server has taken it on",
        line: "Finished umbra-enroll.service",
        after: Duration::ZERO,
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
        client.program()?.wait_for_line(cut.line, BOOT).await?;
        tokio::time::sleep(cut.after).await;
        client.cut_power();
        let before = client.certificate().await?;
        client.switch_on(story).await?;
        client.online(headquarters, Some("icg"), BOOT).await?;
        client.cut_power();
        let after = client.certificate().await?;
        anyhow::ensure!(
            before.is_empty() || before == after,
            "machine {} had a certificate before the power cut and has another one now",
            client.number()
        );
        story.step(&format!(
            "power cut {}: it came up with one identity ({}) and was taken on",
            cut.what,
            if before.is_empty() {
                "made afterwards"
            } else {
                "the one from before"
            }
        ))?;
    }
    Ok(())
}
