//! The link's sockets and timers, and its only `select!`. It decides nothing: whatever happens goes into the machine, and what
//! comes out is done here or handed to the [`World`].

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{debug, info, trace, warn};
use umbra_carrier::framed::{FrameError, FrameReader, FrameWriter};
use umbra_carrier::tls;
use umbra_carrier::ws::Closed;
use umbra_protocol::enrolment::Connector;
use umbra_protocol::hello::{DeviceFacts, Hello, Welcome};
use umbra_protocol::session::Presented;
use umbra_protocol::{DecodeError, FromDevice, FromServer, decode, encode};

use super::alarm::{Alarm, moment};
use super::approach::{Approach, Stream, names_of};
use super::backoff::Backoff;
use super::events::{Answer, Delivery, Input, LinkSettings, LinkStatus, Moment, Output};
use super::machine::{Machine, SHORTEST_WAIT};
use super::moves::Moves;
use super::trouble::Trouble;
use super::way::{Way, Ways};
use crate::numbered::Numbered;

/// How often it is looked, at most, whether the device is still what it said of itself and its ways are the same; without a link, at least.
const LOOK: Duration = Duration::from_secs(10);
/// Addresses change together: a device that has just got one may be about to get another.
const SETTLE: Duration = Duration::from_secs(1);
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
    fn ways(&self) -> Ways;
    /// How they are gone at this moment: proxy, identity, pinned roots, whether dates count.
    fn approach(&self) -> Result<Approach, Trouble>;
    /// The link stands, over this way and with a server of these names: returns all that must arrive.
    fn welcomed(&mut self, welcome: Welcome, over: &Over) -> Vec<FromDevice>;
    /// The server has named other ways; the first of them was proven, by a server of these names.
    ///
    /// # Errors
    /// A sentence, if they could not be kept. Nothing has changed then.
    fn adopt(&mut self, connectors: Vec<Connector>, names: Vec<String>) -> Result<(), String>;
    /// The server wants something: returns what is to be said at once.
    fn deliver(&mut self, delivery: Delivery) -> Vec<FromDevice>;
    /// What people may see of the link, and the way of the attempt at hand or of the link.
    fn status(&mut self, status: LinkStatus, way: Option<&Way>);
    /// What people may see of each way: those that are allowed, and why some did not work last.
    fn ways_seen(&mut self, ways: Vec<(Way, Option<Trouble>)>);
    /// The device is awake, for a heartbeat mostly: what is to be done now and then may as well be done now.
    fn awake(&self) {}
}

/// What a link stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// The way.
    pub way: Way,
    /// The names in the server's certificate.
    pub names: Vec<String>,
}

/// The work of finding out whether a way works, before anything depends on it.
pub type Proof = Pin<Box<dyn Future<Output = Result<Vec<String>, Trouble>> + Send>>;

/// What other parts of the agent want of the link.
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
    Prove(Way, oneshot::Sender<Result<Proof, Trouble>>),
    Adopt(
        Vec<Connector>,
        Vec<String>,
        oneshot::Sender<Result<(), String>>,
    ),
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

    /// Whether the server welcomes the device on this way, beside the link that stands. The names of the server are the answer.
    ///
    /// # Errors
    /// What stands in the way.
    pub async fn prove(&self, way: Way) -> Result<Vec<String>, Trouble> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Prove(way, answer));
        match answered.await {
            Ok(proof) => proof?.await,
            Err(_) => Err(Trouble::not_linked()),
        }
    }

    /// Keeps these ways instead of those that the server named before; the first was proven. The link does not change over
    /// before [`hasten`](Self::hasten) or its next look.
    ///
    /// # Errors
    /// A sentence; nothing has changed then.
    pub async fn adopt(
        &self,
        connectors: Vec<Connector>,
        names: Vec<String>,
    ) -> Result<(), String> {
        let (answer, answered) = oneshot::channel();
        self.request(Request::Adopt(connectors, names, answer));
        answered
            .await
            .unwrap_or_else(|_| Err("The agent ends.".to_owned()))
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
    /// What the ways were when they were looked at last.
    ways: Ways,
    /// Where the server has moved the device, until it goes there.
    moved_to: Option<Way>,
    /// The way of the attempt at hand or of the link.
    way: Option<Way>,
    names: Vec<String>,
    /// Why a way did not work last.
    failures: Vec<(Way, Trouble)>,
    /// A look whether a better way works.
    probe: Option<(Way, Proof)>,
    connect_timeout: Duration,
    /// Farewells of earlier connections.
    farewells: Vec<JoinHandle<Result<(), FrameError>>>,
    questions: Numbered<oneshot::Sender<Answer>>,
    next_question: u64,
    leaving: Vec<oneshot::Sender<Result<(), Trouble>>>,
    said: Option<DeviceFacts>,
    alarm: Alarm,
    moves: Moves,
    /// When it was looked last.
    looked: Moment,
    /// An address has changed: when to look.
    look_due: Option<Moment>,
}

/// Makes a link and the handle to it.
pub fn link<W: World>(world: W, settings: LinkSettings, seed: u64) -> (Link<W>, LinkHandle) {
    let (sender, requests) = mpsc::channel(REQUESTS);
    let longest = settings.reconnect_interval.max(SHORTEST_WAIT);
    let backoff = Backoff::new(SHORTEST_WAIT, longest, seed)
        .expect("the shortest wait is a constant above the floor, and the longest is not below it");
    let mut link = Link {
        machine: Machine::new(settings, 1, backoff),
        world,
        requests,
        attempt: None,
        connection: None,
        ways: Ways::default(),
        moved_to: None,
        way: None,
        names: Vec::new(),
        failures: Vec::new(),
        probe: None,
        connect_timeout: settings.connect_timeout,
        farewells: Vec::new(),
        questions: Numbered::default(),
        next_question: 1,
        leaving: Vec::new(),
        said: None,
        alarm: Alarm::new(),
        moves: Moves::new(),
        looked: moment(),
        look_due: None,
    };
    link.look_at_ways();
    (link, LinkHandle { requests: sender })
}

/// What happened in one turn of the loop.
enum Event {
    Request(Option<Request>),
    Attempted(Result<Box<Stream>, Trouble>),
    Probed(Result<Vec<String>, Trouble>),
    Read(Result<Option<Vec<u8>>, FrameError>),
    Written(Result<(), FrameError>),
    Moved,
    Slept,
}

impl<W: World> Link<W> {
    /// Keeps the link until [`LinkHandle::shutdown`], or until all handles are gone, or until the server has let the device go.
    pub async fn run(mut self) -> W {
        self.step(Input::Start);
        loop {
            let event = self.next_event().await;
            let stop = matches!(event, Event::Request(None | Some(Request::Shutdown)));
            if matches!(event, Event::Request(Some(Request::Hasten))) {
                // Before the next attempt, which might go a way that is closed now.
                self.look_at_ways();
            }
            let look = self.shall_look(&event);
            self.take(event);
            if look {
                (self.looked, self.look_due) = (moment(), None);
                self.look_at_ways();
                self.speak_up();
                self.world.awake();
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
        let look = (!self.machine.is_online()).then(|| moment() + LOOK);
        let due = [self.machine.next_deadline(), self.look_due, look];
        let alarm = async {
            match due.into_iter().flatten().min() {
                Some(due) => self.alarm.at(due).await,
                None => std::future::pending().await,
            }
        };
        let limit = self.machine.frame_limit();
        let attempt = async {
            match &mut self.attempt {
                Some(attempt) => attempt.await,
                None => std::future::pending().await,
            }
        };
        let probe = async {
            match &mut self.probe {
                Some((_, proof)) => proof.await,
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
            result = probe => Event::Probed(result),
            () = self.moves.next() => Event::Moved,
            () = alarm => Event::Slept,
        }
    }

    /// Whether to look, after this, if the device is still what it said of itself.
    fn shall_look(&mut self, event: &Event) -> bool {
        let now = moment();
        match event {
            Event::Slept | Event::Request(Some(Request::Hasten)) => true,
            // A device that is awake anyway looks; one that nobody talks to is left asleep.
            Event::Read(_) => now >= self.looked + LOOK,
            Event::Moved => {
                self.look_due
                    .get_or_insert((now + SETTLE).max(self.looked + LOOK));
                false
            }
            Event::Request(_) | Event::Attempted(_) | Event::Probed(_) | Event::Written(_) => false,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Request(request) => self.requested(request),
            Event::Attempted(Ok(stream)) => {
                self.attempt = None;
                self.names = names_of(&stream);
                self.connection = Some(connection(*stream));
                let hello = self.world.hello();
                self.said = Some(hello.device.clone());
                self.step(Input::Connected(Box::new(hello)));
            }
            Event::Attempted(Err(trouble)) => {
                self.attempt = None;
                self.step(Input::ConnectFailed(trouble));
            }
            Event::Probed(result) => {
                let Some((way, _)) = self.probe.take() else {
                    return;
                };
                let connector = self.ways.position(&way);
                debug!(%way, works = result.is_ok(), "looked at a better way");
                let result = result.map(|_| ()).map_err(|trouble| Trouble {
                    of_way: true,
                    ..trouble
                });
                // A way that is closed meanwhile has no place any more.
                if let Some(connector) = connector {
                    self.step(Input::Probed { connector, result });
                }
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
            Event::Moved => {}
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
            Some(Request::Prove(way, answer)) => {
                // Who asked may have gone.
                let _ = answer.send(self.proof(way));
            }
            Some(Request::Adopt(connectors, names, answer)) => {
                let first = connectors.first().and_then(Way::of);
                let adopted = self.world.adopt(connectors, names);
                if adopted.is_ok() {
                    self.moved_to = first;
                }
                let _ = answer.send(adopted);
            }
            Some(Request::Shutdown) | None => self.step(Input::Shutdown),
        }
    }

    /// The work of trying a way beside the link.
    fn proof(&self, way: Way) -> Result<Proof, Trouble> {
        let approach = self.world.approach()?;
        let (hello, deadline) = (self.world.hello(), self.connect_timeout);
        Ok(Box::pin(async move {
            approach.prove(&way, hello, deadline).await
        }))
    }

    /// Takes over what the registry, the server or the last success say about the ways. A way that is closed is left at once, as
    /// is one of another kind than the device is told to prefer now.
    fn look_at_ways(&mut self) {
        let ways = self.world.ways();
        let moved = self.moved_to.take();
        let same = ways.list == self.ways.list
            && (ways.preferred, ways.decided) == (self.ways.preferred, self.ways.decided);
        if same && moved.is_none() {
            return;
        }
        let before = std::mem::replace(&mut self.ways, ways);
        self.failures
            .retain(|(way, _)| self.ways.position(way).is_some());
        let place = self.way.as_ref().and_then(|way| self.ways.position(way));
        // A list that only grew or shrank elsewhere leaves the link alone.
        let told = (before.preferred, before.decided) != (self.ways.preferred, self.ways.decided)
            || place.is_none();
        // What somebody has just put before the way that worked last is tried before it.
        let fresh = (0..self.ways.start)
            .find(|index| before.position(&self.ways.list[*index]).is_none())
            .filter(|_| !before.list.is_empty());
        let leaves = self.way.as_ref().is_some_and(|way| {
            let elsewhere = moved.is_some_and(|to| !to.is_same_place(way));
            elsewhere || (told && !self.ways.suits(way))
        });
        self.step(Input::Ways {
            preferred: self.ways.preferences(),
            start: fresh.unwrap_or(self.ways.start),
            leave: leaves.then(|| "The device is to take another way to the server.".to_owned()),
        });
        if let (false, Some(place)) = (leaves, place) {
            self.machine.stays(place, fresh);
        }
        self.show_ways();
    }

    fn show_ways(&mut self) {
        let seen = self
            .ways
            .list
            .iter()
            .map(|way| {
                let failure = self
                    .failures
                    .iter()
                    .find(|(failed, _)| failed.is_same_place(way));
                (way.clone(), failure.map(|(_, trouble)| trouble.clone()))
            })
            .collect();
        self.world.ways_seen(seen);
    }

    fn failed(&mut self, way: Way, trouble: Trouble) {
        self.failures
            .retain(|(other, _)| !other.is_same_place(&way));
        self.failures.push((way, trouble));
        self.show_ways();
    }

    /// Says the hello anew when it is not true any more: another port, another mode, other addresses.
    fn speak_up(&mut self) {
        let Some(said) = &self.said else {
            return;
        };
        let facts = self.world.hello().device;
        if *said == facts {
            return;
        }
        let moved = said.addresses != facts.addresses;
        self.said = Some(facts);
        if moved {
            // Another network may have a better way.
            self.step(Input::NetworkChanged);
        }
        if self.machine.is_online() {
            self.step(Input::Relink(
                "What the device said of itself has changed; it comes back at once.".to_owned(),
            ));
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
            Output::Probe(index) => {
                if let Some(way) = self.ways.list.get(index).cloned() {
                    match self.proof(way.clone()) {
                        Ok(proof) => self.probe = Some((way, proof)),
                        Err(trouble) => self.step(Input::Probed {
                            connector: index,
                            result: Err(trouble),
                        }),
                    }
                }
            }
            Output::Failed { connector, trouble } => {
                if let Some(way) = self.ways.list.get(connector).cloned() {
                    self.failed(way, trouble);
                }
            }
            Output::Send(message) => self.send(&message),
            Output::Close => self.close(),
            Output::Welcomed(welcome) => self.welcomed(*welcome),
            Output::Deliver(delivery) => {
                for message in self.world.deliver(*delivery) {
                    self.send(&message);
                }
            }
            Output::Answer { question, answer } => {
                if let Some(asked) = self.questions.remove(question) {
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
                log(&status, self.way.as_ref());
                self.world.status(status, self.way.as_ref());
            }
            Output::Stopped => {}
        }
    }

    fn welcomed(&mut self, welcome: Welcome) {
        let Some(way) = self.way.clone() else {
            return;
        };
        self.failures
            .retain(|(other, _)| !other.is_same_place(&way));
        let over = Over {
            way,
            names: std::mem::take(&mut self.names),
        };
        for message in self.world.welcomed(welcome, &over) {
            self.send(&message);
        }
        // What works now may close what was kept for as long as nothing else did.
        self.look_at_ways();
        self.show_ways();
    }

    fn connect(&mut self, index: usize) {
        // The registry may name fewer ways than when the machine was told.
        let ways = &self.ways.list;
        let way = ways.get(index).or_else(|| ways.first()).cloned();
        let approach = self.world.approach();
        let deadline = self.connect_timeout;
        self.way.clone_from(&way);
        self.attempt = Some(Box::pin(async move {
            let way = way.ok_or_else(|| {
                Trouble::lasting(
                    "no_connector",
                    "The registry allows no way to the server: look at “connectorranking” and “enable_icg”.",
                )
            })?;
            approach?
                .connect(&way, deadline)
                .await
                .map_err(|error| error.trouble(&way))
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
        self.probe = None;
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
        writer: crate::task::start(write_all(FrameWriter::new(write), messages)),
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
        FrameError::Io(source) if Closed::of(source).is_some_and(|closed| !closed.by_us) => {
            Closed::of(source).map_or_else(Trouble::not_linked, Trouble::of_gateway)
        }
        FrameError::Io(source) => Trouble::of_tls(&tls::TlsError::of_stream(source)),
        FrameError::TooLarge { .. } | FrameError::CutOff | FrameError::Unfinished => {
            Trouble::because("closed", error)
        }
    }
}

fn log(status: &LinkStatus, way: Option<&Way>) {
    match status {
        LinkStatus::Offline => info!("the link is off"),
        LinkStatus::Connecting => debug!("connecting to the server"),
        LinkStatus::Online { device_name } => {
            let way = way.map(ToString::to_string).unwrap_or_default();
            info!(way, name = device_name, "linked to the server");
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
