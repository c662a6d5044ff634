//! One caller from the first byte to the record: reads and writes for the machine that decides, and carries the session. It holds
//! no opinion of its own on who may come in.

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
use tokio_rustls::server::TlsStream;
use tracing::{debug, info, warn};
use umbra_protocol::SessionId;
use umbra_protocol::refusal::clip;
use umbra_protocol::secret::Secret;
use umbra_protocol::session::{
    Permissions, Presented, SessionRecord, SessionRequest, SessionStarted,
};
use umbra_vnc_proxy::device_end::{self, SessionOptions};
use umbra_vnc_proxy::first_bytes::{Opening, sniff};
use umbra_vnc_proxy::gate::PendingGuard;
use umbra_vnc_proxy::preface::Dialect;
use umbra_vnc_proxy::upstream::{Connected, Upstream, UpstreamError};
use umbra_vnc_proxy::{Limits, Policy, Preface};

use super::machine::{Caller, Consent, Input, Machine, Output, Rules, Turned};
use super::table::Ending;
use super::{Shared, Trust, consent, lock, tickets};
use crate::link::machine::Answer;
use crate::registry::{self, Snapshot};
use crate::status;

/// From the first packet to the end of the preface.
const STRANGER_DEADLINE: Duration = Duration::from_secs(10);
/// A TLS client speaks at once; who is silent this long is a plain viewer that waits to be greeted.
const SILENCE_OF_A_VIEWER: Duration = Duration::from_millis(1_500);
/// How long a caller may take for an answer of ours.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);
/// How long the VNC server may take.
const UPSTREAM_DEADLINE: Duration = Duration::from_secs(10);

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

/// Attends to a caller until it is gone.
pub(super) async fn attend(
    attended: Attended,
    stream: TcpStream,
    from: IpAddr,
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
        welcomed = meet(&shared, stream, from) => welcomed,
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
        number: None,
        ending: None,
    }
    .go(caller)
    .await;
}

/// The connection to a caller.
enum Line {
    Tls(Box<TlsStream<TcpStream>>),
    Plain(TcpStream),
}

/// Finds out who calls. Whoever is not to be talked to is gone afterwards, without a byte where it did not speak TLS.
async fn meet(
    shared: &Arc<Shared>,
    stream: TcpStream,
    from: IpAddr,
) -> Option<(Caller, Line, Dialect)> {
    let deadline = Instant::now() + STRANGER_DEADLINE;
    let secure_mode = shared.registry.snapshot().vnc.secure_mode;
    let wait = if secure_mode {
        STRANGER_DEADLINE
    } else {
        SILENCE_OF_A_VIEWER
    };
    match sniff(&stream, wait).await {
        Opening::Tls => {}
        Opening::PlainViewer if !secure_mode => {
            return Some((plain(from)?, Line::Plain(stream), Dialect::Legacy));
        }
        Opening::PlainViewer => {
            info!(%from, "a plain viewer was not greeted: only encrypted sessions are accepted");
            return None;
        }
        Opening::Garbage => {
            debug!(%from, "a caller spoke neither TLS nor RFB");
            return None;
        }
        Opening::Closed => return None,
    }
    let Some(trust) = lock(&shared.trust).clone() else {
        debug!(%from, "a caller came before the device had an identity");
        return None;
    };
    let said = async {
        let mut tls = device_end::accept_tls(stream, Arc::clone(&trust.tls), deadline)
            .await
            .map_err(|error| error.to_string())?;
        let preface = device_end::read_preface(&mut tls, deadline)
            .await
            .map_err(|error| error.to_string())?;
        Ok::<_, String>((tls, preface))
    };
    let (mut tls, preface) = match said.await {
        Ok(said) => said,
        Err(error) => {
            debug!(%from, error, "a caller went no further");
            return None;
        }
    };
    let dialect = preface.dialect();
    match known(shared, &trust, preface) {
        Ok(caller) => Some((caller, Line::Tls(Box::new(tls)), dialect)),
        Err(turned) => {
            info!(%from, code = turned.code, "a caller was refused");
            let deadline = Instant::now() + ANSWER_DEADLINE;
            // Whether it hears it changes nothing.
            let _ = device_end::answer_refused(
                &mut tls,
                dialect,
                &turned.code,
                &turned.sentence,
                deadline,
            )
            .await;
            None
        }
    }
}

fn known(shared: &Shared, trust: &Trust, preface: Preface) -> Result<Caller, Turned> {
    match preface {
        Preface::Ticket { ticket, password } => {
            let presented = Presented::Ticket {
                ticket: ticket.clone(),
                password: Secret::new(password.expose()),
            };
            let mut seen = lock(&shared.seen);
            let ticket = tickets::check(&ticket, &trust.ticket_keys, trust.bearer, &mut seen)?;
            Ok(Caller::Ticket {
                ticket: Box::new(ticket),
                presented,
            })
        }
        Preface::LegacyPassword(password) => Ok(Caller::Legacy {
            presented: Presented::LegacyPassword {
                password: Secret::new(password.expose()),
            },
        }),
    }
}

fn plain(from: IpAddr) -> Option<Caller> {
    let mut id = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut id).ok()?;
    Some(Caller::Plain {
        request: SessionRequest {
            session: SessionId::from_bytes(id),
            operator: format!("A viewer at {from}"),
            reason: String::new(),
            permissions: Permissions {
                control: true,
                clipboard: true,
            },
        },
    })
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
    from: IpAddr,
    plain: bool,
    line: Line,
    dialect: Dialect,
    /// The place among strangers, until somebody has vouched for the caller.
    place: Option<PendingGuard>,
    begun: Instant,
    /// What the server, or for a plain viewer the device, calls the session.
    request: Option<SessionRequest>,
    number: Option<u64>,
    ending: Option<watch::Receiver<Option<Ending>>>,
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
        }
    }

    async fn decide(&mut self, caller: Caller) -> End {
        let (mut machine, first) = Machine::new(caller, self.rules());
        let mut outputs: std::collections::VecDeque<Output> = first.into();
        let mut server: Task<Answer> = None;
        let mut program: Task<Consent> = None;
        let mut upstream: UpstreamTask = None;
        let mut connected = None;
        let (answers, mut person) = mpsc::channel(1);
        loop {
            while let Some(output) = outputs.pop_front() {
                match output {
                    Output::AskServer(presented) => {
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
                        upstream = Some(Box::pin(connect(
                            Arc::clone(&self.snapshot),
                            permissions,
                            self.plain,
                            self.dialect,
                        )));
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
                    Input::Answer(answer)
                }
                Some(consent) = person.recv() => Input::Consent(consent),
                consent = of(&mut program) => Input::Consent(consent),
                result = of(&mut upstream) => Input::Upstream(result.map(|ready| {
                    connected = Some(ready);
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
        let (from, plain) = (self.from, self.plain);
        let admission = self
            .shared
            .change(|table| table.admit(&request, from, plain, instances));
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

    /// A session that the server allowed and that did not begin: the server learns why.
    fn note(&mut self, turned: Turned) {
        self.release();
        if let (false, Some(request)) = (self.plain, &self.request) {
            let noted = lock(&self.shared.records).begin(request.session);
            self.shared.noted(noted);
            self.shared.record(SessionRecord {
                session: request.session,
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
        if !self.plain {
            // Before the operator sees anything: a session that the agent dies in has a record.
            let noted = lock(&self.shared.records).begin(request.session);
            self.shared.noted(noted);
        }
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

/// Connects to the VNC server as this session needs it.
async fn connect(
    snapshot: Arc<Snapshot>,
    permissions: Permissions,
    plain: bool,
    dialect: Dialect,
) -> Result<(Connected, SessionOptions), (String, String)> {
    let told = |error: UpstreamError| {
        warn!(
            error = crate::link::trouble::sentence(&error),
            "the VNC server can't be used"
        );
        (error.code().to_owned(), error.for_operator())
    };
    let vnc = &snapshot.vnc;
    let upstream = match &vnc.upstream {
        registry::Upstream::Tcp(address) => Upstream::tcp(*address),
        registry::Upstream::Unix(path) => Upstream::unix(path),
        registry::Upstream::Spawn => {
            let (program, arguments) = vnc.command.split_first().ok_or_else(|| {
                (
                    "vnc_server_misconfigured".to_owned(),
                    "The device's settings name no VNC server.".to_owned(),
                )
            })?;
            Upstream::spawn(program, arguments.to_vec(), vnc.environment.clone())
        }
    }
    .map_err(told)?;
    let policy = Policy {
        keyboard_and_pointer: permissions.control,
        clipboard: permissions.clipboard,
    };
    let options = SessionOptions {
        // An operator was let in by the server and is not asked again; a plain viewer has to know the password itself.
        password: vnc
            .password
            .as_ref()
            .filter(|_| !plain)
            .map(|password| umbra_vnc_proxy::Secret::new(password.reveal())),
        policy,
        limits: Limits {
            idle: snapshot.session.idle,
            total: snapshot.session.total,
            ..Limits::default()
        },
        legacy_preface: !plain && dialect == Dialect::Legacy,
        ..SessionOptions::default()
    };
    let deadline = Instant::now() + UPSTREAM_DEADLINE;
    if plain && vnc.password.is_some() {
        insist_on_password(&upstream, policy, deadline).await?;
    }
    let connected = device_end::connect_upstream(&upstream, &options, deadline)
        .await
        .map_err(told)?;
    Ok((connected, options))
}

/// Where a password is configured, a plain viewer is passed through only to a VNC server that asks for one itself: otherwise the
/// password would protect nothing.
async fn insist_on_password(
    upstream: &Upstream,
    policy: Policy,
    deadline: Instant,
) -> Result<(), (String, String)> {
    let refused = |sentence: &str| {
        warn!(reason = sentence, "a plain viewer was refused");
        ("vnc_password_missing".to_owned(), sentence.to_owned())
    };
    if policy.needs_filter() {
        return Err(refused(
            "With a password, plain viewers are accepted only while they may use keyboard and pointer.",
        ));
    }
    let probe = match upstream.connect(deadline).await {
        Ok(connected) => connected.log_in(None, deadline).await,
        Err(error) => Err(error),
    };
    match probe {
        Err(UpstreamError::PasswordMissing) => Ok(()),
        Ok(connected) => {
            connected.close().await;
            Err(refused(
                "A password is configured for plain viewers, but the device's VNC server does not ask for one.",
            ))
        }
        Err(error) => Err((error.code().to_owned(), error.for_operator())),
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
