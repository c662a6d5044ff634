//! One caller from the first byte to the record: reads and writes for the machine that decides, and carries the session. It holds
//! no opinion of its own on who may come in.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, info};
use umbra_carrier::io::BoxIo;
use umbra_protocol::SessionId;
use umbra_protocol::refusal::clip;
use umbra_protocol::session::{SessionRecord, SessionRequest, SessionStarted};
use umbra_tls_stream::ServerStream;
use umbra_vnc_proxy::device_end::{self, SessionOptions};
use umbra_vnc_proxy::gate::PendingGuard;
use umbra_vnc_proxy::preface::Dialect;
use umbra_vnc_proxy::upstream::Connected;

use super::indicator::Awaited;
use super::machine::{Caller, Consent, Input, Machine, Output, Rules, Turned};
use super::table::Ending;
use super::{Shared, consent, lock, meeting, vnc_server};
use crate::link::events::Answer;
use crate::registry::Snapshot;
use crate::status;

/// How long a caller may take for an answer of ours.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Counts a caller for as long as it is attended to.
pub(super) struct Attended {
    shared: Arc<Shared>,
}

impl Attended {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.attended.send_modify(|attended| *attended += 1);
        Self {
            shared: Arc::clone(shared),
        }
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.shared.attended.send_modify(|attended| *attended -= 1);
    }
}

/// Where a caller comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// To the device's port.
    Address(IpAddr),
    /// Through this gateway.
    Gateway(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Gateway(host) => write!(f, "gateway {host}"),
        }
    }
}

/// A caller's connection, before anything was said.
pub(super) enum Arrival {
    /// On the device's port: it may be anybody, and speak anything.
    Port(TcpStream),
    /// One end of a tunnel: it speaks TLS, or is nobody.
    Tunnel(BoxIo),
}

/// Attends to a caller until it is gone.
pub(super) async fn attend(
    attended: Attended,
    arrival: Arrival,
    from: Origin,
    place: PendingGuard,
) {
    let shared = Arc::clone(&attended.shared);
    let mut stopping = shared.stopping.subscribe();
    let welcomed = tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => None,
        () = place.revoked() => {
            debug!(%from, "a caller that dawdled made room for another");
            None
        }
        welcomed = meeting::meet(&shared, arrival, &from) => welcomed,
    };
    let Some((caller, line, dialect)) = welcomed else {
        return;
    };
    Visit {
        plain: matches!(caller, Caller::Plain { .. }),
        snapshot: shared.registry.snapshot(),
        shared,
        from,
        line,
        dialect,
        place: Some(place),
        begun: Instant::now(),
        request: None,
        unsettled: None,
        number: None,
        ending: None,
        awaited: None,
    }
    .go(caller)
    .await;
}

/// The connection to a caller.
pub(super) enum Line {
    Tls(Box<ServerStream<BoxIo>>),
    Plain(TcpStream),
}

type Task<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;
type UpstreamTask = Task<Result<(Connected, SessionOptions), (String, String)>>;

/// Waits for a task that may not be there.
async fn of<T>(task: &mut Task<T>) -> T {
    match task {
        Some(running) => {
            let output = running.await;
            *task = None;
            output
        }
        None => std::future::pending().await,
    }
}

/// A caller on the way in.
struct Visit {
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    from: Origin,
    plain: bool,
    line: Line,
    dialect: Dialect,
    /// The place among strangers, until somebody has vouched for the caller.
    place: Option<PendingGuard>,
    begun: Instant,
    /// What the server, or for a plain viewer the device, calls the session.
    request: Option<SessionRequest>,
    /// The session of the ticket that the server was asked about, until it has answered: it may have allowed what this device never
    /// heard of.
    unsettled: Option<SessionId>,
    number: Option<u64>,
    ending: Option<watch::Receiver<Option<Ending>>>,
    /// Keeps the indicator running until the session itself does.
    awaited: Option<Awaited>,
}

/// How the way in ended.
enum End {
    Admitted(Box<(Connected, SessionOptions)>),
    Refused(Turned),
    Left,
}

impl Visit {
    async fn go(mut self, caller: Caller) {
        let end = self.decide(caller).await;
        match end {
            End::Admitted(ready) => self.carry(ready.0, ready.1).await,
            End::Refused(turned) => self.refuse(turned).await,
            End::Left => {
                debug!(from = %self.from, "a caller left before the session began");
                self.note(Turned {
                    code: "peer_vanished".to_owned(),
                    sentence: "The operator's end left before the session began.".to_owned(),
                });
            }
        }
    }

    fn rules(&self) -> Rules {
        let consent = &self.snapshot.consent;
        Rules {
            ask: consent.ask,
            timeout: consent.timeout,
            unattended: consent.unattended,
            has_program: !consent.program.is_empty(),
            remote_input: self.snapshot.vnc.remote_input,
            indicator: self.snapshot.indicator.required,
            hindrance: vnc_server::hindrance(&self.snapshot.vnc)
                .map(|(code, sentence)| Turned { code, sentence }),
        }
    }

    async fn decide(&mut self, caller: Caller) -> End {
        let ticket = match &caller {
            Caller::Ticket { ticket, .. } => Some(ticket.session),
            Caller::Legacy { .. } | Caller::Plain { .. } => None,
        };
        let (mut machine, first) = Machine::new(caller, self.rules());
        let mut outputs: std::collections::VecDeque<Output> = first.into();
        let mut server: Task<Answer> = None;
        let mut program: Task<Consent> = None;
        let mut upstream: UpstreamTask = None;
        let mut indicator: Task<Result<Awaited, Turned>> = None;
        let mut connected = None;
        let (answers, mut person) = mpsc::channel(1);
        loop {
            while let Some(output) = outputs.pop_front() {
                match output {
                    Output::AskServer(presented) => {
                        self.unsettled = ticket;
                        let link = self.shared.current_link();
                        server = Some(Box::pin(async move {
                            match link {
                                Some(link) => link.ask(presented).await,
                                None => Answer::Unreachable,
                            }
                        }));
                    }
                    Output::TakePlace(request) => {
                        let free = self.take_place(*request);
                        outputs.extend(machine.handle(Input::Place(free), self.now()));
                    }
                    Output::Wait(sentence) => {
                        if !self.tell_to_wait(sentence).await {
                            return End::Left;
                        }
                    }
                    Output::AskPerson { until } => {
                        self.ask_person(until, answers.clone());
                        if let (false, Some(request)) =
                            (self.snapshot.consent.program.is_empty(), &self.request)
                        {
                            let (snapshot, request) = (Arc::clone(&self.snapshot), request.clone());
                            program =
                                Some(Box::pin(
                                    async move { consent::ask(&snapshot, &request).await },
                                ));
                        }
                    }
                    Output::StopAsking => {
                        program = None;
                        if let Some(number) = self.number {
                            self.shared.change(|table| table.asks_no_more(number));
                        }
                    }
                    Output::Connect(permissions) => {
                        upstream = Some(Box::pin(vnc_server::connect(
                            Arc::clone(&self.snapshot),
                            permissions,
                            self.plain,
                            self.dialect,
                        )));
                    }
                    Output::Indicate => {
                        let awaited = self.shared.indicator.await_it();
                        indicator = Some(Box::pin(awaited.running()));
                    }
                    Output::Admit => match connected.take() {
                        Some(ready) => return End::Admitted(Box::new(ready)),
                        None => return End::Left,
                    },
                    Output::Refuse(turned) => return End::Refused(turned),
                }
            }
            let deadline = machine
                .next_deadline()
                .map(|deadline| self.begun + deadline);
            let input = tokio::select! {
                biased;
                ending = ended(&mut self.ending) => Input::Withdrawn(ending.turned()),
                () = evicted(self.place.as_ref()) => return End::Left,
                () = stopped(&self.shared) => Input::Withdrawn(Ending::Shutdown.turned()),
                () = left(&mut self.line, self.dialect) => return End::Left,
                answer = of(&mut server) => {
                    if answer != Answer::Unreachable {
                        self.unsettled = None;
                    }
                    Input::Answer(answer)
                }
                Some(consent) = person.recv() => Input::Consent(consent),
                consent = of(&mut program) => Input::Consent(consent),
                result = of(&mut upstream) => Input::Upstream(result.map(|ready| {
                    connected = Some(ready);
                })),
                shown = of(&mut indicator) => Input::Indicator(shown.map(|awaited| {
                    self.awaited = Some(awaited);
                })),
                () = sleep_until(deadline) => Input::Tick,
            };
            outputs.extend(machine.handle(input, self.now()));
        }
    }

    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    fn take_place(&mut self, request: SessionRequest) -> bool {
        // The server, or for a plain viewer the registry, has vouched for the caller: it is no stranger any more.
        if let Some(place) = self.place.take() {
            place.authenticated();
        }
        let instances = self.snapshot.vnc.instances;
        let (from, plain) = (self.from.to_string(), self.plain);
        let admission = self
            .shared
            .change(|table| table.admit(&request, from, plain, instances));
        if !self.plain {
            // The server takes the session for one that may begin: whatever happens to the agent from here on, it has a record.
            let noted = lock(&self.shared.records).begin(request.session);
            self.shared.noted(noted);
        }
        self.request = Some(request);
        match admission {
            Some(admission) => {
                self.number = Some(admission.number);
                self.ending = Some(admission.ending);
                true
            }
            None => false,
        }
    }

    fn ask_person(&self, until: Duration, answers: mpsc::Sender<Consent>) {
        let Some(number) = self.number else {
            return;
        };
        let seconds = until.saturating_sub(self.now()).as_secs();
        let until = status::Moment::in_seconds(seconds);
        self.shared
            .change(|table| table.asks(number, answers, until));
    }

    async fn tell_to_wait(&mut self, sentence: &str) -> bool {
        let deadline = Instant::now() + ANSWER_DEADLINE;
        match &mut self.line {
            Line::Tls(tls) => {
                device_end::answer_wait(tls.as_mut(), self.dialect, sentence, deadline)
                    .await
                    .is_ok()
            }
            Line::Plain(_) => true,
        }
    }

    async fn refuse(mut self, turned: Turned) {
        info!(from = %self.from, code = turned.code, "a caller was refused");
        self.note(turned.clone());
        let deadline = Instant::now() + ANSWER_DEADLINE;
        if let Line::Tls(tls) = &mut self.line {
            // Whether it hears it changes nothing.
            let _ = device_end::answer_refused(
                tls.as_mut(),
                self.dialect,
                &turned.code,
                &turned.sentence,
                deadline,
            )
            .await;
        }
    }

    /// A session that the server allowed, or may have allowed, and that did not begin: the server learns why.
    fn note(&mut self, turned: Turned) {
        self.release();
        let allowed = self.request.as_ref().map(|request| request.session);
        if let (false, Some(session)) = (self.plain, allowed.or(self.unsettled)) {
            let noted = lock(&self.shared.records).begin(session);
            self.shared.noted(noted);
            self.shared.record(SessionRecord {
                session,
                code: turned.code,
                sentence: clip(turned.sentence),
                duration_ms: 0,
                bytes_to_device: 0,
                bytes_to_console: 0,
            });
        }
    }

    fn release(&mut self) {
        if let Some(number) = self.number.take() {
            self.shared.change(|table| table.release(number));
        }
    }

    async fn carry(mut self, upstream: Connected, options: SessionOptions) {
        let Some(request) = self.request.clone() else {
            return;
        };
        let deadline = Instant::now() + ANSWER_DEADLINE;
        if let Line::Tls(tls) = &mut self.line
            && let Err(error) = device_end::answer_ok(tls.as_mut(), self.dialect, deadline).await
        {
            debug!(%error, "the caller was gone before the session began");
            upstream.close().await;
            self.note(Turned {
                code: "peer_vanished".to_owned(),
                sentence: "The operator's end left before the session began.".to_owned(),
            });
            return;
        }
        let session = request.session;
        if let Some(number) = self.number {
            self.shared.change(|table| table.runs(number));
        }
        self.awaited = None;
        info!(%session, from = %self.from, control = request.permissions.control, plain = self.plain, "session begins");
        if !self.plain
            && let Some(link) = self.shared.current_link()
        {
            link.tell(SessionStarted { session });
        }
        let mut ending = self.ending.take();
        let stop = async move { ended(&mut ending).await.cause() };
        let outcome = match self.line {
            Line::Tls(tls) => device_end::serve(*tls, upstream, options, stop).await,
            Line::Plain(tcp) => device_end::serve(tcp, upstream, options, stop).await,
        };
        if let Some(number) = self.number {
            self.shared.change(|table| table.release(number));
        }
        info!(
            %session,
            from = %self.from,
            code = outcome.reason.code(),
            seconds = outcome.duration.as_secs(),
            bytes_to_device = outcome.bytes_to_device,
            bytes_to_console = outcome.bytes_to_console,
            "session ended"
        );
        if !self.plain {
            self.shared.record(SessionRecord {
                session,
                code: outcome.reason.code().to_owned(),
                sentence: clip(outcome.reason.for_operator()),
                duration_ms: u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
                bytes_to_device: outcome.bytes_to_device,
                bytes_to_console: outcome.bytes_to_console,
            });
        }
    }
}

async fn ended(ending: &mut Option<watch::Receiver<Option<Ending>>>) -> Ending {
    if let Some(ending) = ending
        && let Ok(told) = ending.wait_for(Option::is_some).await
        && let Some(told) = told.clone()
    {
        return told;
    }
    std::future::pending().await
}

async fn evicted(place: Option<&PendingGuard>) {
    match place {
        Some(place) => place.revoked().await,
        None => std::future::pending().await,
    }
}

async fn stopped(shared: &Shared) {
    // The sender lives with the sessions: it can't be gone.
    let _ = shared
        .stopping
        .subscribe()
        .wait_for(|stopping| *stopping)
        .await;
}

/// Resolves when the caller has gone, or speaks before it was its turn.
async fn left(line: &mut Line, dialect: Dialect) {
    let mut byte = [0];
    loop {
        let read: io::Result<usize> = match line {
            Line::Tls(tls) => tls.read(&mut byte).await,
            Line::Plain(tcp) => tcp.peek(&mut byte).await,
        };
        let line_ending = dialect == Dialect::Legacy && matches!(byte[0], b'\r' | b'\n' | 0);
        match (read, &line) {
            // A console of the existing field may end its line, and so much later than it began it.
            (Ok(1), Line::Tls(_)) if line_ending => {}
            _ => return,
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
