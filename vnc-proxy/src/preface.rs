//! What the console's end says first inside TLS: who it is, as a signed ticket and a password, or in the existing field's dialect
//! as a password alone. The parser decides byte by byte, keeps at most a ticket's length, and never touches what follows;
//! nothing of it is ever handed to a shell or a log.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// The longest preface in bytes, of either dialect.
pub const PREFACE_MAX: usize = 8 * 1024;
/// The longest ticket.
pub const TICKET_MAX: usize = 6 * 1024;
/// The longest session password.
pub const PASSWORD_MAX: usize = 128;
/// How many bytes of line ending (CR, LF, NUL) may follow a preface of the existing field.
pub const LEGACY_ENDING_MAX: u8 = 3;

const OURS: &[u8] = b"UMBRA/1 ";
const LEGACY: &[u8] = b"PROCYCMD PW_";
const UUID_LEN: usize = 36;

/// In which dialect a console's end speaks, and so how it wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Ours: answered with lines.
    Umbra,
    /// The existing field's: answered by the VNC server's greeting or by closing.
    Legacy,
}

/// A complete preface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preface {
    /// `UMBRA/1 <ticket> <password>`.
    Ticket {
        /// The session ticket, a compact JWS; not yet verified.
        ticket: String,
        /// The session password.
        password: Secret,
    },
    /// `PROCYCMD PW_<uuid>`: the UUID without its prefix.
    LegacyPassword(Secret),
}

impl Preface {
    /// The dialect in which this peer is to be answered.
    pub fn dialect(&self) -> Dialect {
        match self {
            Self::Ticket { .. } => Dialect::Umbra,
            Self::LegacyPassword(_) => Dialect::Legacy,
        }
    }
}

/// Why there is no preface.
#[derive(Debug, thiserror::Error)]
pub enum PrefaceError {
    /// The deadline passed first.
    #[error("the other end did not say in time which session it wants; it was disconnected")]
    TimedOut,
    /// The other end closed before it had said everything.
    #[error("the other end closed the connection before it had said which session it wants")]
    Absent,
    /// A part is longer than allowed.
    #[error("the other end's first words are longer than allowed; it was disconnected")]
    TooLong,
    /// The bytes fit neither dialect.
    #[error("the other end's first words are not a session request; it was disconnected")]
    NotAPreface,
    /// The connection broke.
    #[error("the connection broke before the other end had said which session it wants")]
    Lost(#[source] io::Error),
}

impl PrefaceError {
    /// Stable code for logs and peers.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TimedOut => "preface_timed_out",
            Self::Absent => "preface_absent",
            Self::TooLong => "preface_too_long",
            Self::NotAPreface => "preface_malformed",
            Self::Lost(_) => "peer_vanished",
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Word,
    Ticket,
    Password,
    Uuid,
}

/// Takes a preface byte by byte.
#[derive(Default)]
pub struct PrefaceParser {
    stage: Stage,
    part: Zeroizing<Vec<u8>>,
    ticket: String,
}

impl PrefaceParser {
    /// Waits for the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one byte. After an answer or an error the parser is used up.
    pub fn push(&mut self, byte: u8) -> Result<Option<Preface>, PrefaceError> {
        match self.stage {
            Stage::Word => self.word(byte),
            Stage::Ticket => self.ticket(byte),
            Stage::Password => self.password(byte),
            Stage::Uuid => self.uuid(byte),
        }
    }

    /// Takes bytes up to the preface's end; returns it, once complete, and how many bytes belonged to it.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(Option<Preface>, usize), PrefaceError> {
        for (index, byte) in bytes.iter().enumerate() {
            if let Some(preface) = self.push(*byte)? {
                return Ok((Some(preface), index + 1));
            }
        }
        Ok((None, bytes.len()))
    }

    fn word(&mut self, byte: u8) -> Result<Option<Preface>, PrefaceError> {
        self.part.push(byte);
        let stage = if *self.part == OURS {
            Stage::Ticket
        } else if *self.part == LEGACY {
            Stage::Uuid
        } else if OURS.starts_with(&self.part) || LEGACY.starts_with(&self.part) {
            return Ok(None);
        } else {
            return Err(PrefaceError::NotAPreface);
        };
        self.part.clear();
        self.stage = stage;
        Ok(None)
    }

    fn ticket(&mut self, byte: u8) -> Result<Option<Preface>, PrefaceError> {
        if byte == b' ' && !self.part.is_empty() {
            self.ticket = self.part.iter().map(|byte| char::from(*byte)).collect();
            self.part.clear();
            self.stage = Stage::Password;
            return Ok(None);
        }
        if !is_ticket(byte) {
            return Err(PrefaceError::NotAPreface);
        }
        self.keep(byte, TICKET_MAX)
    }

    fn password(&mut self, byte: u8) -> Result<Option<Preface>, PrefaceError> {
        if byte == b'\n' && !self.part.is_empty() {
            let ticket = std::mem::take(&mut self.ticket);
            return Ok(Some(Preface::Ticket {
                ticket,
                password: self.secret(),
            }));
        }
        if !is_password(byte) {
            return Err(PrefaceError::NotAPreface);
        }
        self.keep(byte, PASSWORD_MAX)
    }

    fn uuid(&mut self, byte: u8) -> Result<Option<Preface>, PrefaceError> {
        if !is_uuid_byte(self.part.len(), byte) {
            return Err(PrefaceError::NotAPreface);
        }
        self.part.push(byte);
        Ok((self.part.len() == UUID_LEN).then(|| Preface::LegacyPassword(self.secret())))
    }

    fn keep(&mut self, byte: u8, max: usize) -> Result<Option<Preface>, PrefaceError> {
        if self.part.len() == max {
            return Err(PrefaceError::TooLong);
        }
        self.part.push(byte);
        Ok(None)
    }

    fn secret(&mut self) -> Secret {
        let mut text = String::with_capacity(self.part.len());
        text.extend(self.part.iter().map(|byte| char::from(*byte)));
        Secret::new(text)
    }
}

fn is_ticket(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

fn is_password(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_uuid_byte(index: usize, byte: u8) -> bool {
    if matches!(index, 8 | 13 | 18 | 23) {
        byte == b'-'
    } else {
        byte.is_ascii_hexdigit()
    }
}

/// Whether a byte may end a line of the existing field's dialect.
pub(crate) fn is_legacy_ending(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n' | 0)
}

/// Reads a preface and not one byte more, within the deadline.
pub async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    deadline: Instant,
) -> Result<Preface, PrefaceError> {
    let reading = async {
        let mut parser = PrefaceParser::new();
        loop {
            let mut byte = [0];
            // One byte at a time: what follows the preface belongs to others, and TLS holds it in memory anyway.
            match stream.read(&mut byte).await {
                Ok(0) => return Err(PrefaceError::Absent),
                Ok(_) => {
                    if let Some(preface) = parser.push(byte[0])? {
                        return Ok(preface);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(PrefaceError::Absent);
                }
                Err(error) => return Err(PrefaceError::Lost(error)),
            }
        }
    };
    timeout_at(deadline, reading)
        .await
        .unwrap_or(Err(PrefaceError::TimedOut))
}

/// Writes our preface. What the other end couldn't parse is an error here instead of there.
pub async fn write_ticket<S: AsyncWrite + Unpin>(
    stream: &mut S,
    ticket: &str,
    password: &Secret,
    deadline: Instant,
) -> Result<(), PrefaceError> {
    let secret = password.expose();
    if ticket.len() > TICKET_MAX || secret.len() > PASSWORD_MAX {
        return Err(PrefaceError::TooLong);
    }
    if ticket.is_empty()
        || secret.is_empty()
        || !ticket.bytes().all(is_ticket)
        || !secret.bytes().all(is_password)
    {
        return Err(PrefaceError::NotAPreface);
    }
    let parts = [OURS, ticket.as_bytes(), b" ", secret.as_bytes(), b"\n"];
    write(stream, &parts, deadline).await
}

/// Writes the existing field's preface.
pub async fn write_legacy<S: AsyncWrite + Unpin>(
    stream: &mut S,
    password: &Secret,
    deadline: Instant,
) -> Result<(), PrefaceError> {
    let uuid = password.expose().as_bytes();
    if uuid.len() != UUID_LEN
        || !uuid
            .iter()
            .enumerate()
            .all(|(index, byte)| is_uuid_byte(index, *byte))
    {
        return Err(PrefaceError::NotAPreface);
    }
    write(stream, &[LEGACY, uuid], deadline).await
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    parts: &[&[u8]],
    deadline: Instant,
) -> Result<(), PrefaceError> {
    // With the room for all of it from the start: a vector that grows leaves copies of the password behind.
    let mut line = Zeroizing::new(Vec::with_capacity(PREFACE_MAX));
    parts.iter().for_each(|part| line.extend_from_slice(part));
    let writing = async {
        stream.write_all(&line).await?;
        stream.flush().await
    };
    timeout_at(deadline, writing)
        .await
        .map_err(|_| PrefaceError::TimedOut)?
        .map_err(PrefaceError::Lost)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "01234567-89ab-cdef-0123-456789ABCDEF";

    fn parse(bytes: &[u8]) -> Result<(Option<Preface>, usize), PrefaceError> {
        PrefaceParser::new().feed(bytes)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    #[test]
    fn both_dialects_are_understood() {
        let (ours, used) = parse(b"UMBRA/1 a.b_c.d-e pass_word-1\nRFB ").expect("a preface");
        assert_eq!(
            ours,
            Some(Preface::Ticket {
                ticket: "a.b_c.d-e".into(),
                password: Secret::new("pass_word-1")
            })
        );
        assert_eq!(used, 30);
        let (legacy, used) =
            parse(format!("PROCYCMD PW_{UUID}\r\n").as_bytes()).expect("a preface");
        assert_eq!(legacy, Some(Preface::LegacyPassword(Secret::new(UUID))));
        assert_eq!(used, 48);
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in [
            "RFB 003.008\n",
            "GET / HTTP/1.1\r\n",
            "UMBRA/2 a b\n",
            "UMBRA/1  b\n",
            "UMBRA/1 a \n",
            "UMBRA/1 a b \n",
            "UMBRA/1 a b\r\n",
            "UMBRA/1 a$(id) b\n",
            "UMBRA/1 a b;id\n",
            "PROCYCMD PW_01234567-89ab-cdef-0123-456789abcde;",
            "PROCYCMD PW_0123456789abcdef",
            "PROCYCMD reboot",
            "\0",
        ] {
            assert!(
                matches!(parse(wrong.as_bytes()), Err(PrefaceError::NotAPreface)),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn an_endless_ticket_or_password_is_cut_off_at_its_bound() {
        let fits = format!(
            "UMBRA/1 {} {}\n",
            "t".repeat(TICKET_MAX),
            "p".repeat(PASSWORD_MAX)
        );
        assert!(fits.len() <= PREFACE_MAX);
        assert!(parse(fits.as_bytes()).expect("fits").0.is_some());
        let ticket = format!("UMBRA/1 {}", "t".repeat(TICKET_MAX + 1));
        assert!(matches!(
            parse(ticket.as_bytes()),
            Err(PrefaceError::TooLong)
        ));
        let password = format!("UMBRA/1 t {}", "p".repeat(PASSWORD_MAX + 1));
        assert!(matches!(
            parse(password.as_bytes()),
            Err(PrefaceError::TooLong)
        ));
    }

    proptest! {
        #[test]
        fn slicing_never_changes_what_is_understood(
            bytes in prop_oneof![
                ("UMBRA/1 [A-Za-z0-9_.-]{1,80} [A-Za-z0-9_-]{1,40}\n[ -~]{0,20}").prop_map(String::into_bytes),
                ("PROCYCMD PW_[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}[\r\n]{0,2}").prop_map(String::into_bytes),
                ("UMBRA/1 [ -~]{0,40}").prop_map(String::into_bytes),
                any::<Vec<u8>>(),
            ],
            cut in 1usize..60,
        ) {
            let whole = parse(&bytes);
            let mut parser = PrefaceParser::new();
            let mut used = 0;
            let mut sliced = Ok((None, 0));
            for chunk in bytes.chunks(cut) {
                match parser.feed(chunk) {
                    Ok((preface, taken)) => {
                        used += taken;
                        sliced = Ok((preface, used));
                        if matches!(sliced, Ok((Some(_), _))) { break; }
                    }
                    Err(error) => { sliced = Err(error); break; }
                }
            }
            prop_assert_eq!(format!("{whole:?}"), format!("{sliced:?}"));
        }

        #[test]
        fn what_is_written_is_what_is_read(ticket in "[A-Za-z0-9_.-]{1,300}", password in "[A-Za-z0-9_-]{1,128}") {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let password = Secret::new(password);
            let read = runtime.block_on(async {
                let (mut here, mut there) = tokio::io::duplex(7);
                let (written, read) = tokio::join!(
                    write_ticket(&mut here, &ticket, &password, soon()),
                    read(&mut there, soon()),
                );
                written.expect("written");
                read.expect("read")
            });
            prop_assert_eq!(read, Preface::Ticket { ticket, password });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_or_dribbling_peer_runs_into_the_total_deadline() {
        let (mut here, mut there) = tokio::io::duplex(64);
        let dribble = async {
            for byte in b"UMBRA/1 aaaaaaaaaaaaaaaaaaaaaa".iter() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = here.write_all(&[*byte]).await;
            }
            std::future::pending::<()>().await;
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let reading = read(&mut there, deadline);
        tokio::select! {
            result = reading => assert!(matches!(result, Err(PrefaceError::TimedOut))),
            () = dribble => unreachable!("never ends"),
        }
    }

    #[tokio::test]
    async fn a_peer_that_closes_early_is_told_apart_from_one_that_lies() {
        for (said, absent) in [
            (&b""[..], true),
            (b"UMBRA/1 tick", true),
            (b"SSH-2.0", false),
        ] {
            let (mut here, mut there) = tokio::io::duplex(64);
            here.write_all(said).await.expect("room");
            drop(here);
            match read(&mut there, soon()).await {
                Err(PrefaceError::Absent) => assert!(absent, "{said:?}"),
                Err(PrefaceError::NotAPreface) => assert!(!absent, "{said:?}"),
                other => panic!("{said:?}: {other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn the_byte_after_a_preface_is_left_for_whom_it_concerns() {
        let (mut here, mut there) = tokio::io::duplex(256);
        here.write_all(format!("PROCYCMD PW_{UUID}RFB 003.008\n").as_bytes())
            .await
            .expect("room");
        read(&mut there, soon()).await.expect("a preface");
        let mut rest = [0; 12];
        there.read_exact(&mut rest).await.expect("the rest");
        assert_eq!(&rest, b"RFB 003.008\n");
    }

    #[tokio::test]
    async fn what_the_device_could_not_parse_is_not_sent() {
        let (mut here, _there) = tokio::io::duplex(256);
        for (ticket, password) in [
            ("", "p"),
            ("t", ""),
            ("t t", "p"),
            ("t", "p p"),
            ("t\n", "p"),
        ] {
            let written = write_ticket(&mut here, ticket, &Secret::new(password), soon()).await;
            assert!(
                matches!(written, Err(PrefaceError::NotAPreface)),
                "{ticket:?} {password:?}"
            );
        }
        let written = write_legacy(&mut here, &Secret::new("no uuid"), soon()).await;
        assert!(matches!(written, Err(PrefaceError::NotAPreface)));
    }
}
