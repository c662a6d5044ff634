//! The viewers that operators use, in front of the test desktop alone: what these show here is what they must show
//! through a tunnel as well, so a difference there is the tunnel's and not theirs.

use umbra_tests::desktop::{Desktop, DesktopConfig, Event};
use umbra_tests::eventually::{SOON, eventually, eventually_is};
use umbra_tests::image::Image;
use umbra_tests::scratch::scenario;
use umbra_tests::x11::{XServer, vncdo};

#[tokio::test(flavor = "multi_thread")]
async fn vncdo_captures_what_the_desktop_shows_and_types_what_it_is_told() {
    scenario(async |scratch| {
        let desktop = Desktop::start(DesktopConfig::default()).await?;
        let address = desktop.tcp().expect("listens on TCP");
        desktop.freeze(true);
        let captured = scratch.path("captured.png");
        let path = captured.display().to_string();
        vncdo(scratch, address, &["capture", &path]).await?;
        let difference = Image::load_png(&captured)?.difference(&desktop.framebuffer(), 0);
        assert_eq!(
            difference.map(|apart| apart.mean_absolute),
            Some(0.0),
            "{difference:?}"
        );
        vncdo(scratch, address, &["type", "hello"]).await?;
        eventually_is("the keys to arrive", SOON, || {
            match desktop.typed().as_str() {
                "hello" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vncviewer_shows_what_the_desktop_shows_and_passes_keys_on() {
    scenario(async |scratch| {
        let desktop = Desktop::start(DesktopConfig::default()).await?;
        desktop.freeze(true);
        let screen = XServer::xvfb(scratch, 800, 600).await?;
        let _viewer = screen.vncviewer(scratch, desktop.tcp().expect("listens on TCP"))?;
        eventually("the viewer to show the desktop", 2 * SOON, async || {
            let shown = screen
                .screenshot(scratch)
                .await
                .map_err(|error| error.to_string())?;
            let apart = shown
                .difference(&desktop.framebuffer(), 8)
                .ok_or("another size")?;
            if apart.differing_share < 0.01 {
                Ok(())
            } else {
                Err(format!("{apart:?}"))
            }
        })
        .await?;
        let mut keys = screen.command("xdotool")?;
        keys.args(["type", "abc"]);
        umbra_tests::program::run(scratch, "xdotool", &mut keys, b"", SOON).await?;
        eventually_is("the keys to arrive", SOON, || {
            match desktop.typed().as_str() {
                "abc" => Ok(()),
                other => Err(other.to_owned()),
            }
        })
        .await?;
        assert!(
            desktop
                .events()
                .iter()
                .any(|event| matches!(event, Event::Joined { .. }))
        );
        Ok(())
    })
    .await;
}
