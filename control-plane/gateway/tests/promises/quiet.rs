use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use umbra_protocol::gateway::TunnelSide;

use crate::lab::{Lab, refused, rendezvous, talk, token};

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    /// Of this thread, on which the whole test runs.
    fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .with_max_level(tracing::Level::TRACE)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn the_fields_line_about_the_limit_is_written_word_for_word() {
    let (log, _guard) = Log::start();
    let lab = Lab::start().await;
    let _server = lab.attached(0, Some(0)).await;
    refused(lab.try_device(&[("Umbra-Device", "TC-1")]).await);
    let text = log.text();
    let line = ": Max connections limit has exceeded. Device [TC-1] is rejected\n";
    assert!(text.contains(line), "{text}");
}

#[tokio::test]
async fn no_token_and_no_byte_of_a_tunnel_is_ever_logged() {
    let (log, _guard) = Log::start();
    let lab = Lab::start().await;
    let mut server = lab.server().await;
    server.say(rendezvous(1, 30)).await;
    server.heard().await;
    let sides = [TunnelSide::Device, TunnelSide::Console];
    let [device, console] = sides.map(|side| token(1, side));
    let mut one = lab.tunnel(&device, sides[0]).await.unwrap();
    let mut two = lab.tunnel(&console, sides[1]).await.unwrap();
    talk(&mut one, &mut two).await;
    refused(lab.tunnel(&device, sides[0]).await);
    refused(lab.tunnel("made-up", sides[0]).await);
    let text = log.text();
    assert!(text.contains("a tunnel stands"), "{text}");
    for secret in [device.as_str(), &console, "made-up", "Bearer"] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
}
