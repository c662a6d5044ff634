//! Whatever answers as a mail server. The first byte chooses the size of the pieces. What holds: no answer panics and none is waited for
//! without end; the password is only said to who has offered to take it; the e-mail ends where it ends; and what is told moves no
//! cursor and holds no password.
#![no_main]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use umbra_console::commands::fuzzing::mail;
use umbra_protocol::Secret;

const PASSWORD: &str = "hunter-2-hunter";
/// The same as AUTH LOGIN says it.
const ENCODED: &str = "aHVudGVyLTItaHVudGVy";
const MAIL: &str = "Subject: x\n\n.\n..\nQUIT\n.x\n";

struct Server<'a> {
    bytes: &'a [u8],
    piece: usize,
    heard: &'a mut Vec<u8>,
}

impl AsyncRead for Server<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.piece.min(self.bytes.len()).min(buffer.remaining());
        let (now, later) = self.bytes.split_at(count);
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Server<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&piece, bytes)) = data.split_first() else { return };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let mut heard = Vec::new();
    let server = Server { bytes, piece: usize::from(piece) + 1, heard: &mut heard };
    let result = runtime.block_on(mail(server, "ada", &Secret::new(PASSWORD), MAIL));
    let heard = String::from_utf8(heard).expect("text");
    let said = String::from_utf8_lossy(bytes).to_ascii_uppercase();
    if heard.contains("AUTH PLAIN") || heard.contains(ENCODED) {
        assert!(said.contains("AUTH "), "the password is said to who did not ask for it");
    }
    if let Some((_, after)) = heard.split_once("DATA\r\n") {
        // What was said after DATA is the e-mail, up to its one end.
        let end = after.find("\r\n.\r\n");
        assert!(end.is_none_or(|end| after[end + 5..].is_empty() || &after[end + 5..] == "QUIT\r\n"), "{after:?}");
    }
    if let Err(sentence) = result {
        assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
        // A server that says the password back knew it already.
        assert!(!sentence.contains(PASSWORD) || said.contains(&PASSWORD.to_ascii_uppercase()));
    }
});
