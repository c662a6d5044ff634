//! The link's sockets and timers, and its only `select!`. It decides nothing: whatever happens goes into the machine, and what
//! comes out is done here or handed to the [`World`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tracing::{debug, info, trace, warn};
use umbra_carrier::address::HostPort;
use umbra_carrier::framed::{FrameError, FrameReader, FrameWriter};
use umbra_carrier::{tcp, tls};
use umbra_protocol::hello::{DeviceFacts, Hello, Welcome};
use umbra_protocol::session::Presented;
use umbra_protocol::{DecodeError, FromDevice, FromServer, decode, encode};

use super::backoff::Backoff;
use super::events::{Answer, Delivery, Input, LinkSettings, LinkStatus, Moment, Output};
use super::machine::{Machine, SHORTEST_WAIT};
use super::trouble::Trouble;

/// The longest sleep: timers stand still while the device is suspended, so the machine is asked again soon after it wakes.
const NAP: Duration = Duration::from_secs(10);
/// How long one message may take on its way into the connection.
const SEND_DEADLINE: Duration = Duration::from_secs(20);
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Messages that wait for the connection to take them.
const QUEUE: usize = 512;
/// Requests of other parts of the agent that wait for the link's task.
const REQUESTS: usize = 512;

/// What the link needs of the rest of the agent.
pub trait World: Send {
    /// What the device says first.
    fn hello(&self) -> Hello;
    /// The ways to the server, best first.
    fn connectors(&self) -> Vec<HostPort>;
    /// How TLS is set up at this moment: identity, pinned roots, whether dates count.
    fn tls(&self) -> Result<Arc<ClientConfig>, Trouble>;
    /// The link stands: returns all that must arrive.
    fn welcomed(&mut self, welcome: Welcome) -> Vec<FromDevice>;
    /// The server wants something: returns what is to be said at once.
    fn deliver(&mut self, delivery: Delivery) -> Vec<FromDevice>;
    /// What people may see of the link, and the way in use while it stands.
    fn status(&mut self, status: LinkStatus, connector: Option<&HostPort>);
}

/// What other parts of the agent want of the link.
#[derive(Debug)]
enum Request {
    Ask {
        presented: Presented,
        answer: oneshot::Sender<Answer>,
    },
    Tell(Box<FromDevice>),
    Leave(oneshot::Sender<Result<(), Trouble>>),
    Settings(LinkSettings),
    Relink(String),
    Hasten,
    Shutdown,
}

/// The way to the link for other parts of the agent. Clones are one link.
#[derive(Clone, Debug)]
pub struct LinkHandle {
    requests: mpsc::Sender<Request>,
}

impl LinkHandle {
    /// Asks the server about somebody who presented a ticket or a password. The answer comes within the protocol's deadline.
    pub async fn ask(&self, presented: Presented) -> Answer {
        let (answer, answered) = oneshot::channel();
        if self
            .requests
            .try_send(Request::Ask { presented, answer })
            .is_err()
        {
            return Answer::Unreachable;
        }
        answered.await.unwrap_or(Answer::Unreachable)
    }

    /// Says something if the link stands. What must arrive is said again by [`World::welcomed`].
    pub fn tell(&self, message: impl Into<FromDevice>) {
        self.request(Request::Tell(Box::new(message.into())));
    }

    /// Asks the server to remove this device from its file.
    pub async fn leave(&self) -> Result<(), Trouble> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Leave(answer));
        answered
            .await
            .unwrap_or_else(|_| Err(Trouble::not_linked()))
    }

    /// The registry says something new about the link.
    pub fn settings(&self, settings: LinkSettings) {
        self.request(Request::Settings(settings));
    }

    /// What the device said of itself is not true any more.
    pub fn relink(&self, sentence: &str) {
        self.request(Request::Relink(sentence.to_owned()));
    }

    /// Tries at once instead of waiting, and says anew what has changed about the device.
    pub fn hasten(&self) {
        self.request(Request::Hasten);
    }

    /// Ends the link; [`Link::run`] returns soon.
    pub async fn shutdown(&self) {
        // The link's task may be gone already, which is as good.
        let _ = self.requests.send(Request::Shutdown).await;
    }

    fn request(&self, request: Request) {
        if let Err(error) = self.requests.try_send(request) {
            debug!(%error, "the link takes no request at the moment");
        }
    }
}

type Stream = TlsStream<TcpStream>;
type Attempt = Pin<Box<dyn Future<Output = Result<Stream, Trouble>> + Send>>;

/// A standing connection.
struct Connection {
    reader: FrameReader<ReadHalf<Stream>>,
    queue: mpsc::Sender<Vec<u8>>,
    writer: JoinHandle<Result<(), FrameError>>,
}

/// The link, before it runs.
pub struct Link<W> {
    machine: Machine,
    world: W,
    requests: mpsc::Receiver<Request>,
    attempt: Option<Attempt>,
    connection: Option<Connection>,
    connector: Option<HostPort>,
    connect_timeout: Duration,
    /// Farewells of earlier connections.
    farewells: Vec<JoinHandle<Result<(), FrameError>>>,
    questions: std::collections::BTreeMap<u64, oneshot::Sender<Answer>>,
    next_question: u64,
    leaving: Vec<oneshot::Sender<Result<(), Trouble>>>,
    said: Option<DeviceFacts>,
}

/// Makes a link and the handle to it.
pub fn link<W: World>(world: W, settings: LinkSettings, seed: u64) -> (Link<W>, LinkHandle) {
    let (sender, requests) = mpsc::channel(REQUESTS);
    let longest = settings.reconnect_interval.max(SHORTEST_WAIT);
    let backoff = Backoff::new(SHORTEST_WAIT, longest, seed)
        .expect("the shortest wait is a constant above the floor, and the longest is not below it");
    let link = Link {
        machine: Machine::new(settings, world.connectors().len(), backoff),
        world,
        requests,
        attempt: None,
        connection: None,
        connector: None,
        connect_timeout: settings.connect_timeout,
        farewells: Vec::new(),
        questions: std::collections::BTreeMap::new(),
        next_question: 1,
        leaving: Vec::new(),
        said: None,
    };
    (link, LinkHandle { requests: sender })
}

/// What happened in one turn of the loop.
enum Event {
    Request(Option<Request>),
    Attempted(Result<Box<Stream>, Trouble>),
    Read(Result<Option<Vec<u8>>, FrameError>),
    Written(Result<(), FrameError>),
    Slept,
}

impl<W: World> Link<W> {
    /// Keeps the link until [`LinkHandle::shutdown`], or until all handles are gone, or until the server has let the device go.
    pub async fn run(mut self) -> W {
        self.step(Input::Start);
        loop {
            let event = self.next_event().await;
            let stop = matches!(event, Event::Request(None | Some(Request::Shutdown)));
            let look = matches!(event, Event::Slept | Event::Request(Some(Request::Hasten)));
            self.take(event);
            if look {
                self.speak_up();
            }
            if stop {
                break;
            }
        }
        for farewell in self.farewells.drain(..) {
            // Bounded by the writer's own deadlines; the server finds out anyway.
            let _ = timeout(FAREWELL, farewell).await;
        }
        self.world
    }

    async fn next_event(&mut self) -> Event {
        let nap = self
            .machine
            .next_deadline()
            .map_or(NAP, |deadline| deadline.saturating_sub(moment()).min(NAP));
        let limit = self.machine.frame_limit();
        let attempt = async {
            match &mut self.attempt {
                Some(attempt) => attempt.await,
                None => std::future::pending().await,
            }
        };
        let conversation = async {
            match &mut self.connection {
                Some(connection) => tokio::select! {
                    read = connection.reader.next(limit) => Event::Read(read),
                    written = &mut connection.writer => {
                        Event::Written(written.unwrap_or(Err(FrameError::Unfinished)))
                    }
                },
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            request = self.requests.recv() => Event::Request(request),
            result = attempt => Event::Attempted(result.map(Box::new)),
            event = conversation => event,
            () = tokio::time::sleep(nap) => Event::Slept,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Request(request) => self.requested(request),
            Event::Attempted(Ok(stream)) => {
                self.attempt = None;
                self.connection = Some(connection(*stream));
                let hello = self.world.hello();
                self.said = Some(hello.device.clone());
                self.step(Input::Connected(Box::new(hello)));
            }
            Event::Attempted(Err(trouble)) => {
                self.attempt = None;
                self.step(Input::ConnectFailed(trouble));
            }
            Event::Read(Ok(Some(frame))) => {
                let input = match decode::<FromServer>(&frame, self.machine.frame_limit()) {
                    Ok(message) => {
                        trace!(kind = message.kind(), "received");
                        Input::Frame(Box::new(message))
                    }
                    Err(error) => Input::Unreadable(error),
                };
                self.step(input);
            }
            Event::Read(Ok(None)) => self.step(Input::Ended),
            Event::Read(Err(FrameError::TooLarge { announced, max })) => {
                self.step(Input::Unreadable(DecodeError::TooLarge {
                    size: usize::try_from(announced).unwrap_or(usize::MAX),
                    limit: max,
                }));
            }
            Event::Read(Err(error)) => self.step(Input::Closed(broken(&error))),
            Event::Written(result) => {
                let trouble = match result {
                    Ok(()) => Trouble::passing("closed", "The connection to the server ended."),
                    Err(error) => broken(&error),
                };
                // The task has ended: nothing may wait for it again.
                self.connection = None;
                self.step(Input::Closed(trouble));
            }
            Event::Slept => self.step(Input::Tick),
        }
    }

    fn requested(&mut self, request: Option<Request>) {
        match request {
            Some(Request::Ask { presented, answer }) => {
                let question = self.next_question;
                self.next_question += 1;
                self.questions.insert(question, answer);
                self.step(Input::Ask {
                    question,
                    presented,
                });
            }
            Some(Request::Tell(message)) => self.step(Input::Tell(message)),
            Some(Request::Leave(answer)) => {
                self.leaving.push(answer);
                self.step(Input::Leave);
            }
            Some(Request::Settings(settings)) => {
                self.connect_timeout = settings.connect_timeout;
                self.step(Input::Settings(settings));
            }
            Some(Request::Relink(sentence)) => self.step(Input::Relink(sentence)),
            Some(Request::Hasten) => {
                if !self.machine.is_online() {
                    self.step(Input::NetworkChanged);
                }
            }
            Some(Request::Shutdown) | None => self.step(Input::Shutdown),
        }
    }

    /// Says the hello anew when it is not true any more: another port, another mode, other addresses. A way that the registry has
    /// closed is left at once.
    fn speak_up(&mut self) {
        let ways = self.world.connectors();
        self.machine.set_connectors(ways.len());
        if self.machine.is_online()
            && self
                .connector
                .as_ref()
                .is_some_and(|way| !ways.contains(way))
        {
            self.step(Input::Relink(
                "The registry names another way to the server.".to_owned(),
            ));
        }
        let Some(said) = &self.said else {
            return;
        };
        let facts = self.world.hello().device;
        if *said == facts {
            return;
        }
        let moved = said.addresses != facts.addresses;
        self.said = Some(facts);
        if self.machine.is_online() {
            self.step(Input::Relink(
                "What the device said of itself has changed; it comes back at once.".to_owned(),
            ));
        } else if moved {
            self.step(Input::NetworkChanged);
        }
    }

    fn step(&mut self, input: Input) {
        for output in self.machine.handle(input, moment()) {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Connect(index) => self.connect(index),
            Output::Send(message) => self.send(&message),
            Output::Close => self.close(),
            Output::Welcomed(welcome) => {
                for message in self.world.welcomed(*welcome) {
                    self.send(&message);
                }
            }
            Output::Deliver(delivery) => {
                for message in self.world.deliver(*delivery) {
                    self.send(&message);
                }
            }
            Output::Answer { question, answer } => {
                if let Some(asked) = self.questions.remove(&question) {
                    // Who asked may have gone meanwhile.
                    let _ = asked.send(answer);
                }
            }
            Output::Left(result) => {
                for asked in self.leaving.drain(..) {
                    let _ = asked.send(result.clone());
                }
            }
            Output::Status(status) => {
                log(&status, self.connector.as_ref());
                self.world.status(status, self.connector.as_ref());
            }
            Output::Stopped => {}
        }
    }

    fn connect(&mut self, index: usize) {
        let connectors = self.world.connectors();
        // The registry may name fewer ways than when the link was made.
        let address = connectors
            .get(index)
            .or_else(|| connectors.first())
            .cloned();
        let config = self.world.tls();
        let deadline = self.connect_timeout;
        self.connector.clone_from(&address);
        self.attempt = Some(Box::pin(async move {
            let address = address.ok_or_else(|| {
                Trouble::lasting(
                    "no_connector",
                    "The registry allows no way to the server: look at “connectorranking” and “enable_icg”.",
                )
            })?;
            let config = config?;
            let tcp = tcp::connect(address.host(), address.port(), deadline)
                .await
                .map_err(|error| Trouble::because("unreachable", &error))?;
            tls::connect_tls(tcp, config, address.host(), deadline)
                .await
                .map_err(|error| Trouble::of_tls(&error))
        }));
    }

    fn send(&mut self, message: &FromDevice) {
        let Some(connection) = &self.connection else {
            return;
        };
        trace!(kind = message.kind(), "sending");
        // A queue this long means that the connection takes nothing; its writer's deadline ends it.
        if connection.queue.try_send(encode(message)).is_err() {
            warn!(
                kind = message.kind(),
                "the server does not take what it is sent"
            );
        }
    }

    fn close(&mut self) {
        self.attempt = None;
        if let Some(connection) = self.connection.take() {
            // Without its queue the writer sends what it has, says farewell and ends.
            drop(connection.queue);
            self.farewells.retain(|farewell| !farewell.is_finished());
            self.farewells.push(connection.writer);
        }
        self.said = None;
    }
}

fn connection(stream: Stream) -> Connection {
    let (read, write) = tokio::io::split(stream);
    let (queue, messages) = mpsc::channel(QUEUE);
    Connection {
        reader: FrameReader::new(read),
        queue,
        writer: tokio::spawn(write_all(FrameWriter::new(write), messages)),
    }
}

async fn write_all(
    mut writer: FrameWriter<WriteHalf<Stream>>,
    mut messages: mpsc::Receiver<Vec<u8>>,
) -> Result<(), FrameError> {
    while let Some(message) = messages.recv().await {
        timeout(SEND_DEADLINE, writer.send(&message))
            .await
            .unwrap_or(Err(FrameError::Unfinished))?;
    }
    timeout(FAREWELL, writer.close())
        .await
        .unwrap_or(Err(FrameError::Unfinished))
}

fn broken(error: &FrameError) -> Trouble {
    match error {
        FrameError::Io(source) => Trouble::of_tls(&tls::TlsError::of_stream(source)),
        FrameError::TooLarge { .. } | FrameError::CutOff | FrameError::Unfinished => {
            Trouble::because("closed", error)
        }
    }
}

fn log(status: &LinkStatus, connector: Option<&HostPort>) {
    match status {
        LinkStatus::Offline => info!("the link is off"),
        LinkStatus::Connecting => debug!("connecting to the server"),
        LinkStatus::Online { device_name } => {
            let server = connector.map(ToString::to_string).unwrap_or_default();
            info!(server, name = device_name, "linked to the server");
        }
        LinkStatus::Waiting { trouble, until } => {
            let wait = until.saturating_sub(moment());
            info!(
                code = trouble.code,
                cause = trouble.sentence,
                wait_seconds = wait.as_secs(),
                "no link to the server"
            );
        }
    }
}

/// Now, as the machine counts: since the machine came up, time asleep included.
fn moment() -> Moment {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}
