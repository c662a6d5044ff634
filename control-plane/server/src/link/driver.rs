//! Carries one link's bytes: frames in, frames out, deadlines, news, the end. What any of it means is decided by the
//! machine. Nothing here waits for a device without a deadline.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use umbra_carrier::crowd::Place;
use umbra_carrier::framed::{FrameError, FrameReader, FrameWriter};
use umbra_carrier::io::WakesBoth;
use umbra_carrier::tls::exporter;
use umbra_protocol::first_auth::EXPORTER_LABEL;
use umbra_protocol::link::Goodbye;
use umbra_protocol::{DecodeError, FromDevice, FromServer, Refusal, RefusalCode, decode, encode};

use super::desk::Desk;
use super::machine::{Closed, Input, Machine, Output};
use super::{Origin, Seat};
use crate::hub::{Attachment, News};
use crate::server::Server;
use crate::shutdown::Shutdown;
use crate::store::devices::DeviceCertificate;
use crate::throttle::Source;

/// How long a device may take to read one frame.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// Frames that wait to be written.
const QUEUE: usize = 16;
/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// Devices come back spread over this many seconds after the server went down.
const RETRY_AFTER_SHUTDOWN: u32 = 5;

/// Serves one device from the end of its TLS handshake to the end of its connection. Its place among the strangers is held
/// until it is welcomed, its seat until its link is over.
pub async fn serve<IO>(
    server: Arc<Server>,
    stream: TlsStream<IO>,
    certificate: CertificateDer<'static>,
    origin: Origin,
    (place, seat): (Place<Source>, Option<Seat>),
    shutdown: Shutdown,
) where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(certificate) = DeviceCertificate::read(&certificate) else {
        return;
    };
    let Ok(exporter) = exporter(stream.get_ref().1, EXPORTER_LABEL) else {
        return;
    };
    // Behind a gateway, the stream is one of many in an uplink.
    let (read, write) = tokio::io::split(WakesBoth::new(stream));
    let (frames, queue) = mpsc::channel(QUEUE);
    let writer = tokio::spawn(write_frames(FrameWriter::new(write), queue));
    let mut driver = Driver {
        machine: Machine::new(origin.came, server.heartbeat),
        desk: Desk::new(server, origin.clone(), certificate, exporter),
        reader: FrameReader::new(read),
        frames,
        attachment: None,
        place: Some(place),
        origin,
        refusal: None,
        shutdown,
    };
    let closed = driver.run().await;
    tracing::debug!(?closed, "link over");
    drop(seat);
    let Driver {
        desk,
        reader,
        frames,
        attachment,
        origin,
        refusal,
        ..
    } = driver;
    drop(attachment);
    desk.leave().await;
    drop(frames);
    // The writer ends by its own deadlines.
    let _ = writer.await;
    drain(reader).await;
    // Only now: a gateway that heard it earlier would cut our last words off.
    if let Some(refusal) = refusal {
        origin.turn_away(refusal);
    }
}

/// Reads what the device has still sent, so that closing does not destroy our last words on their way.
async fn drain<IO: AsyncRead + AsyncWrite + Unpin>(
    reader: FrameReader<ReadHalf<WakesBoth<TlsStream<IO>>>>,
) {
    const MOST: u64 = 64 * 1024;
    let mut stream = reader.into_inner().take(MOST);
    // Its buffer is not part of the link's task, of which thousands wait that never come here.
    let mut rest = tokio::io::sink();
    // A device that does not close takes its connection's reset.
    let _ = timeout(FAREWELL, tokio::io::copy(&mut stream, &mut rest)).await;
}

async fn write_frames<IO: AsyncRead + AsyncWrite + Unpin>(
    mut writer: FrameWriter<WriteHalf<WakesBoth<TlsStream<IO>>>>,
    mut queue: mpsc::Receiver<Vec<u8>>,
) {
    while let Some(frame) = queue.recv().await {
        match timeout(WRITE_DEADLINE, writer.send(&frame)).await {
            Ok(Ok(())) => {}
            // Dropping the queue tells the driver.
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let _ = timeout(FAREWELL, writer.close()).await;
}

struct Driver<IO> {
    machine: Machine,
    desk: Desk,
    reader: FrameReader<ReadHalf<WakesBoth<TlsStream<IO>>>>,
    frames: mpsc::Sender<Vec<u8>>,
    attachment: Option<Attachment>,
    place: Option<Place<Source>>,
    origin: Origin,
    // Why the device may not stay.
    refusal: Option<Refusal>,
    shutdown: Shutdown,
}

/// What woke the driver.
enum Event {
    Frame(Result<Option<Vec<u8>>, FrameError>),
    News(News),
    End(Refusal),
    ShownOut,
    ShutDown,
    Deadline,
    WriterGone,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Driver<IO> {
    async fn run(&mut self) -> Closed {
        loop {
            let event = self.next_event().await;
            let inputs = match event {
                Event::Frame(Ok(Some(frame))) => {
                    self.desk.heard();
                    vec![read_message(&frame, self.machine.frame_limit())]
                }
                Event::Frame(Ok(None)) => return Closed::ByDevice,
                Event::Frame(Err(error)) => match frame_refusal(&error) {
                    Some(refusal) => vec![Input::Unreadable(refusal)],
                    None => return Closed::ByDevice,
                },
                Event::News(news) => self
                    .desk
                    .news(news)
                    .await
                    .into_iter()
                    .map(Input::Say)
                    .collect(),
                Event::End(refusal) => vec![Input::End(refusal)],
                Event::ShownOut => vec![Input::End(
                    Refusal::new(
                        RefusalCode::Busy,
                        "Too many connections wait for this server; the device tries again.",
                    )
                    .retry_after(RETRY_AFTER_SHUTDOWN),
                )],
                Event::ShutDown => vec![Input::ShutDown(Goodbye {
                    sentence: "The server is going down; the device tries again.".into(),
                    retry_after_seconds: Some(RETRY_AFTER_SHUTDOWN),
                })],
                Event::Deadline => vec![Input::Tick],
                Event::WriterGone => return Closed::Silent,
            };
            for input in inputs {
                if let Some(closed) = self.step(input).await {
                    return closed;
                }
            }
        }
    }

    async fn next_event(&mut self) -> Event {
        let limit = self.machine.frame_limit();
        let deadline = self.machine.deadline();
        let (news, end) = match &mut self.attachment {
            Some(attachment) => (Some(&mut attachment.news), Some(&mut attachment.end)),
            None => (None, None),
        };
        tokio::select! {
            biased;
            () = self.shutdown.wait() => Event::ShutDown,
            refusal = ended(end) => Event::End(refusal),
            () = self.frames.closed() => Event::WriterGone,
            () = shown_out(&mut self.place) => Event::ShownOut,
            () = until(deadline) => Event::Deadline,
            news = next_news(news) => Event::News(news),
            frame = self.reader.next(limit) => Event::Frame(frame),
        }
    }

    async fn step(&mut self, input: Input) -> Option<Closed> {
        let mut todo: VecDeque<Output> = self.machine.handle(input, Instant::now()).into();
        while let Some(output) = todo.pop_front() {
            match output {
                Output::Send(message) => {
                    match &message {
                        FromServer::Welcome(_) | FromServer::Enrolled(_) => self.origin.admit(),
                        FromServer::Refusal(refusal) if !self.machine.is_linked() => {
                            self.refusal = Some(refusal.clone());
                        }
                        FromServer::Refusal(_)
                        | FromServer::Challenge(_)
                        | FromServer::Pong(_)
                        | FromServer::Ping(_)
                        | FromServer::Settings(_)
                        | FromServer::Command(_)
                        | FromServer::ResultFiled(_)
                        | FromServer::SessionRequest(_)
                        | FromServer::SessionTunnel(_)
                        | FromServer::SessionVerdict(_)
                        | FromServer::SessionEnd(_)
                        | FromServer::RecordFiled(_)
                        | FromServer::Anchors(_)
                        | FromServer::CertificateFiled(_)
                        | FromServer::Left(_)
                        | FromServer::Goodbye(_) => {}
                    }
                    if !self.send(&message).await {
                        return Some(Closed::Silent);
                    }
                }
                Output::Do(task) => {
                    let reply = self.desk.perform(task).await;
                    if let Some(attachment) = self.desk.take_attachment() {
                        self.attachment = Some(attachment);
                        self.place = None;
                    }
                    todo.extend(self.machine.handle(Input::Reply(reply), Instant::now()));
                }
                Output::Close(closed) => return Some(closed),
            }
        }
        None
    }

    async fn send(&mut self, message: &FromServer) -> bool {
        tracing::trace!(kind = message.kind(), "sent");
        let end = self.attachment.as_mut().map(|there| &mut there.end);
        // A device that takes nothing cannot be told why its link ends.
        tokio::select! {
            biased;
            queued = self.frames.send(encode(message)) => queued.is_ok(),
            () = self.shutdown.wait() => false,
            _ = ended(end) => false,
            () = tokio::time::sleep(WRITE_DEADLINE) => false,
        }
    }
}

async fn ended(end: Option<&mut tokio::sync::watch::Receiver<Option<Refusal>>>) -> Refusal {
    if let Some(end) = end
        && let Ok(reason) = end.wait_for(Option::is_some).await
        && let Some(reason) = reason.clone()
    {
        return reason;
    }
    std::future::pending().await
}

async fn next_news(news: Option<&mut mpsc::Receiver<News>>) -> News {
    if let Some(news) = news
        && let Some(news) = news.recv().await
    {
        return news;
    }
    // No more news come once the hub has given this link up; `ended` says why.
    std::future::pending().await
}

async fn shown_out(place: &mut Option<Place<Source>>) {
    match place {
        Some(place) => place.shown_out().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn read_message(frame: &[u8], limit: usize) -> Input {
    match decode::<FromDevice>(frame, limit) {
        Ok(message) => {
            tracing::trace!(kind = message.kind(), "heard");
            Input::Message(message)
        }
        Err(DecodeError::UnknownType(name)) => Input::UnknownType(name),
        Err(error @ DecodeError::TooLarge { .. }) => {
            Input::Unreadable(Refusal::new(RefusalCode::TooLarge, error.to_string()))
        }
        Err(error @ DecodeError::Malformed(_)) => {
            Input::Unreadable(Refusal::new(RefusalCode::Malformed, error.to_string()))
        }
    }
}

/// What the device is told about a broken frame; nothing, where nobody is there to listen.
fn frame_refusal(error: &FrameError) -> Option<Refusal> {
    match error {
        FrameError::TooLarge { .. } => Some(Refusal::new(RefusalCode::TooLarge, error.to_string())),
        FrameError::CutOff | FrameError::Unfinished | FrameError::Io(_) => None,
    }
}
