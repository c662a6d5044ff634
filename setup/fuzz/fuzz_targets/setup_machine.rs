//! The setup assistant with a person, a device and a network that do anything, in simulated time. What holds: nobody is logged on to
//! whom nobody has vouched for, and a comparison is only won with the part that was missing; no key is kept on the disk, nor
//! shown unless the person asked to see it; what is given up is not gone on with; after the end nothing is done; no timer runs hot;
//! and a person who knows the key and the fingerprint gets to the end.
#![no_main]

use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_protocol::credentials::{self, Credentials};
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_protocol::{Fingerprint, Secret};
use umbra_setup::{
    Address, Again, Effect, Endpoint, Event, Found, Input, Item, Job, Language, LogOnStage, Machine, Outcome,
    PROGRESS_VERSION, Progress, Reached, Rules, Source, Stage, Start, State, Step, TakenOn, Trust, View,
};

/// The key, and how it may not be seen.
const KEY: &str = "ABCDE-FGHJK-MNPQR-STVWX";
const TELLING: [&str; 3] = ["ABCDE", "FGHJK", "STVWX"];
const HOST: &str = "gw.example.com";

#[derive(Arbitrary, Debug)]
struct Run {
    seed: u64,
    strict: bool,
    start: u8,
    progress: (bool, u8, u8, bool, Vec<u8>),
    deeds: Vec<Deed>,
}

#[derive(Arbitrary, Debug)]
enum Deed {
    Press(u8),
    Type(u8, What),
    Choose(u8, u8),
    Reveal(bool),
    Close,
    Wait(u16),
    ToTheDeadline,
    Sticks(Vec<u8>),
    Discovered { job: u8, found: Vec<(u8, u8)> },
    Checking(u8, u8),
    Reached { late: bool, root: u8, public: bool },
    NotReached { late: bool },
    LoggingOn(u8),
    LoggedOn { late: bool },
    Refused { late: bool, again: u8 },
    Belongs,
    NotStored,
}

#[derive(Arbitrary, Debug)]
enum What {
    Key,
    Host,
    Mail,
    Part { root: u8, part: u8 },
    Whole(u8),
    Credentials(u8),
    Text(String),
    Long,
}

fn root(number: u8) -> Fingerprint {
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(index).unwrap_or(0).wrapping_mul(7).wrapping_add(10 + 61 * (number % 3));
    }
    Fingerprint::from_bytes(bytes)
}

fn address() -> Address {
    Address { host: HOST.into(), port: 8443 }
}

fn credentials(number: u8) -> Credentials {
    Credentials {
        endpoints: vec![credentials::Endpoint { host: HOST.into(), port: 8443, root_fingerprint: root(number) }],
        key: FirstAuthKey::parse(KEY).expect("a key"),
    }
}

fn strange() -> String {
    "\u{202e}\u{1b}[2J\n".into()
}

/// What stands around the machine, and what it may rely on.
struct Desk {
    machine: Machine,
    now: Duration,
    strict: bool,
    last_job: u32,
    /// The work that was asked for last and not given up.
    checking: Option<Job>,
    /// The root that the server which is checked is to have.
    wanted: Option<Fingerprint>,
    logging_on: Option<Job>,
    /// Roots that credentials or a progress on the disk have vouched for.
    vouched: Vec<Fingerprint>,
    public: bool,
    asked: Option<(Fingerprint, u8)>,
    typed_part: String,
    finished: Option<Outcome>,
}

impl Desk {
    fn view(&self) -> View {
        self.machine.view(self.now)
    }

    fn tell(&mut self, event: Event) {
        let at_fingerprint = self.view().step == Step::Fingerprint;
        let effects = self.machine.handle(event, self.now);
        assert!(effects.len() <= 4, "{effects:?}");
        self.take(effects, at_fingerprint);
        self.look();
    }

    fn take(&mut self, effects: Vec<Effect>, at_fingerprint: bool) {
        for effect in effects {
            assert!(self.finished.is_none(), "after the end: {effect:?}");
            match effect {
                Effect::Discover { job } | Effect::ResolveMail { job, .. } => self.new_job(job),
                Effect::Check { job, endpoint } => {
                    self.new_job(job);
                    assert!(!endpoint.address.host.is_empty());
                    (self.checking, self.logging_on) = (Some(job), None);
                    self.wanted = endpoint.root;
                    self.public = false;
                }
                Effect::LogOn { job, plan } => {
                    self.new_job(job);
                    assert!(self.checking.is_none() || !self.view().busy || self.view().step == Step::LogOn);
                    match plan.trust {
                        Trust::Fingerprint(trusted) => {
                            assert!(self.vouched.contains(&trusted), "nobody has vouched for this server");
                        }
                        Trust::PublicCa => assert!(self.public && !self.strict, "no authority has vouched for this server"),
                    }
                    assert!(FirstAuthKey::parse(plan.key.reveal()).is_ok());
                    self.logging_on = Some(job);
                }
                Effect::Stop => (self.checking, self.logging_on) = (None, None),
                Effect::Store(progress) => {
                    let kept = serde_json::to_string(&progress).expect("writes");
                    assert!(!TELLING.iter().any(|piece| kept.contains(piece)), "the key is kept: {kept}");
                    assert_eq!(serde_json::from_str::<Progress>(&kept).ok().as_ref(), Some(&progress));
                    if let Some(confirmed) = progress.confirmed.filter(|root| !self.vouched.contains(root)) {
                        let (asked, part) = self.asked.expect("a comparison without a question");
                        assert!(at_fingerprint && asked == confirmed, "confirmed without having been asked");
                        let whole = self.typed_part.parse::<Fingerprint>() == Ok(confirmed);
                        assert!(whole || confirmed.part_is(part.into(), &self.typed_part), "a wrong part passed");
                        self.vouched.push(confirmed);
                    }
                    if let (Some(before), Some(after)) = (self.asked, progress.asked) {
                        assert!(before.0 != after.0 || before.1 == after.1, "another part is asked for of the same root");
                    }
                    self.asked = progress.asked.or(self.asked);
                }
                Effect::Finish(outcome) => self.finished = Some(outcome),
                Effect::LookAtSticks | Effect::Forget => {}
            }
        }
        assert_eq!(self.machine.is_over(), self.finished.is_some());
    }

    fn new_job(&mut self, job: Job) {
        assert!(job.0 > self.last_job, "two works with one number");
        self.last_job = job.0;
    }

    fn look(&self) {
        let view = self.view();
        let hidden = view.items.iter().all(|item| match item {
            Item::Entry { secret, revealed, .. } => !(*secret && *revealed),
            Item::Choice { .. } | Item::Progress { .. } | Item::Fact { .. } => true,
        });
        let mut shown = format!("{:?} {:?} {:?} {:?}", view.title, view.text, view.actions, view.notice);
        for item in &view.items {
            match item {
                // The example below the line has the form of a key.
                Item::Entry { text, label, .. } => shown.push_str(&format!("{text:?} {label:?}")),
                other @ (Item::Choice { .. } | Item::Progress { .. } | Item::Fact { .. }) => {
                    shown.push_str(&format!("{other:?}"));
                }
            }
        }
        assert!(!hidden || !TELLING.iter().any(|piece| shown.contains(piece)), "the key is shown: {shown}");
        assert!(!shown.contains("u{1b}") && !shown.contains("u{202e}"), "{shown}");
        assert!(view.number <= view.of);
        assert!(view.actions.iter().filter(|action| action.default).count() <= 1);
        assert!(self.machine.is_over() || view.actions.iter().any(|action| action.enabled), "a dead end");
        assert!(shown.len() < 256 * 1024, "a view that grows");
    }

    /// Lets time pass as a driver does.
    fn wait(&mut self, until: Duration) {
        let mut ticks = 0;
        while let Some(due) = self.machine.next_deadline(self.now).filter(|due| *due <= until) {
            assert!(due > self.now || ticks == 0, "a deadline that never passes");
            ticks = if due > self.now { 0 } else { ticks + 1 };
            self.now = self.now.max(due);
            self.tell(Event::Tick);
        }
        self.now = self.now.max(until);
    }

    fn press(&mut self, action: &str) {
        self.tell(Event::Input(Input::Press { action: action.into() }));
    }

    fn set(&mut self, entry: &str, text: &str) {
        self.tell(Event::Input(Input::Set { entry: entry.into(), text: Secret::new(text) }));
    }

    fn job(&self, late: bool) -> Job {
        Job(if late { self.last_job.saturating_sub(1) } else { self.last_job })
    }

    fn deed(&mut self, deed: &Deed) {
        match deed {
            Deed::Press(which) => {
                let actions = ["next", "back", "cancel", "stay", "again", "search", "key", "address", "finish", "forget", "leave"];
                self.press(actions[usize::from(*which) % actions.len()]);
            }
            Deed::Type(entry, what) => {
                let text = match what {
                    What::Key => KEY.to_owned(),
                    What::Host => HOST.to_owned(),
                    What::Mail => "a@example.com".to_owned(),
                    What::Part { root: number, part } => root(*number).parts()[usize::from(part % 4)].clone(),
                    What::Whole(number) => root(*number).to_string(),
                    What::Credentials(number) => credentials(*number).to_text().to_string(),
                    What::Text(text) => text.clone(),
                    What::Long => "x".repeat(100_000),
                };
                // A key that is typed where it does not belong is shown there.
                let entry = match entry % 3 {
                    _ if matches!(what, What::Key) => "key",
                    0 => "address",
                    1 => "part",
                    _ => "key",
                };
                if entry != "key" && TELLING.iter().any(|piece| text.contains(piece)) && !matches!(what, What::Credentials(_)) {
                    return;
                }
                if let What::Credentials(number) = what {
                    self.vouched.push(root(*number));
                }
                if entry == "part" && self.view().step == Step::Fingerprint {
                    self.typed_part = match what {
                        What::Credentials(number) => root(*number).to_string(),
                        What::Key | What::Host | What::Mail | What::Part { .. } | What::Whole(_) | What::Text(_) | What::Long => {
                            text.clone()
                        }
                    };
                }
                self.set(entry, &text);
            }
            Deed::Choose(choice, option) => {
                let choice = ["language", "found", "x"][usize::from(choice % 3)];
                let option = match option {
                    0 => "de".to_owned(),
                    1 => "en".to_owned(),
                    2 => "typed".to_owned(),
                    255 => "found-99999999999999999999".to_owned(),
                    other => format!("found-{}", other - 3),
                };
                self.tell(Event::Input(Input::Choose { choice: choice.into(), option }));
            }
            Deed::Reveal(on) => self.tell(Event::Input(Input::Reveal { entry: "key".into(), on: *on })),
            Deed::Close => self.tell(Event::Input(Input::Close)),
            Deed::Wait(seconds) => self.wait(self.now + Duration::from_secs(u64::from(*seconds % 2_000))),
            Deed::ToTheDeadline => {
                if let Some(due) = self.machine.next_deadline(self.now) {
                    self.wait(due);
                }
            }
            Deed::Sticks(found) => {
                let found: Vec<Found> = found
                    .iter()
                    .take(40)
                    .map(|number| {
                        let source = Source::Stick { medium: strange(), file: format!("{}.xml", number / 3) };
                        Found::of_credentials(&credentials(*number), source)
                    })
                    .collect();
                self.vouched.extend(found.iter().flat_map(|found| found.endpoints.iter().filter_map(|one| one.root)));
                self.tell(Event::Sticks { found, problems: vec![strange().into(); 3] });
            }
            Deed::Discovered { job, found } => {
                let found = found
                    .iter()
                    .take(40)
                    .map(|(source, number)| Found {
                        source: match source % 4 {
                            0 => Source::Configured,
                            1 => Source::Name { name: strange() },
                            2 => Source::Record { domain: "example.com".into() },
                            _ => Source::Dhcp { interface: strange() },
                        },
                        endpoints: vec![Endpoint {
                            address: Address { host: format!("h{number}.example"), port: 1 },
                            root: None,
                        }],
                        key: None,
                    })
                    .collect();
                let job = Job(self.last_job.saturating_sub(u32::from(job % 3)));
                self.tell(Event::Discovered { job, found, problems: vec![strange().into()] });
            }
            Deed::Checking(stage, state) => {
                let states = [State::Waiting, State::Running, State::Skipped, State::Good, State::Warning, State::Failed];
                let job = self.job(false);
                self.tell(Event::Checking {
                    job,
                    stage: Stage::ALL[usize::from(*stage) % Stage::ALL.len()],
                    state: states[usize::from(*state) % states.len()],
                    sentence: strange().into(),
                });
            }
            Deed::Reached { late, root: number, public } => {
                let job = self.job(*late);
                let counts = self.checking == Some(job);
                if counts {
                    self.public = *public;
                    self.checking = None;
                }
                let reached = Reached {
                    address: address(),
                    root: (number % 4 < 3).then(|| root(*number)),
                    public_ca: public.then(|| "An authority\u{1b}".to_owned()),
                };
                self.tell(Event::Reached { job, reached });
            }
            Deed::NotReached { late } => {
                let job = self.job(*late);
                self.tell(Event::NotReached { job, sentence: strange().into() });
            }
            Deed::LoggingOn(stage) => {
                let job = self.job(false);
                self.tell(Event::LoggingOn { job, stage: LogOnStage::ALL[usize::from(stage % 4)] });
            }
            Deed::LoggedOn { late } => {
                let job = self.job(*late);
                let counts = self.logging_on == Some(job);
                let taken = TakenOn { address: address(), device_name: strange(), online: None };
                let was_ready = self.view().step == Step::Ready;
                self.tell(Event::LoggedOn { job, taken });
                // Behind the question about leaving everything goes on.
                if self.view().step == Step::Ready && !was_ready {
                    assert!(counts, "ready without a server");
                }
            }
            Deed::Refused { late, again } => {
                let job = self.job(*late);
                let again = [Again::Key, Again::Later, Again::Address][usize::from(again % 3)];
                self.tell(Event::Refused { job, sentence: strange().into(), again });
            }
            Deed::Belongs => self.tell(Event::Belongs { address: address() }),
            Deed::NotStored => self.tell(Event::NotStored { sentence: strange().into() }),
        }
    }

    /// A person who knows what to do, and a network that works.
    fn to_the_end(&mut self) {
        for _ in 0..60 {
            if self.finished.is_some() {
                return;
            }
            match self.view().step {
                Step::Leave => self.press("stay"),
                Step::Language => self.press("next"),
                Step::Address => {
                    self.tell(Event::Input(Input::Choose { choice: "found".into(), option: "typed".into() }));
                    self.set("address", HOST);
                    self.press("next");
                }
                Step::Check => {
                    if self.checking.is_some() {
                        // The right server answers, whichever is asked for.
                        let right = (0..3).find(|number| Some(root(*number)) == self.wanted);
                        self.deed(&Deed::Reached { late: false, root: right.unwrap_or(1), public: false });
                    }
                    self.press("next");
                    if self.view().step == Step::Check {
                        self.press("again");
                    }
                }
                Step::Fingerprint => {
                    self.wait(self.now + Duration::from_secs(16 * 60));
                    let shown = format!("{:?}", self.view().items).replace(' ', "");
                    let right = (0..3).map(root).find(|root| root.parts().iter().filter(|part| shown.contains(*part)).count() >= 3);
                    self.typed_part = right.expect("three parts of a root").to_string();
                    let typed = self.typed_part.clone();
                    self.set("part", &typed);
                    self.press("next");
                }
                Step::Key => {
                    self.set("key", KEY);
                    self.press("next");
                }
                Step::LogOn => {
                    self.deed(&Deed::LoggedOn { late: false });
                    if self.view().step == Step::LogOn {
                        self.press("again");
                        self.press("address");
                    }
                }
                Step::Ready | Step::Belongs | Step::Taken => self.press("finish"),
            }
        }
        panic!("no end: {:?}", self.view());
    }
}

fuzz_target!(|run: Run| {
    let (checking, wrong, part, confirmed, ways) = &run.progress;
    let start = match run.start % 6 {
        0 | 1 => Start::Fresh(Language::De),
        2 | 3 => Start::Resume(Progress {
            version: PROGRESS_VERSION,
            language: Language::En,
            typed: strange(),
            endpoints: ways
                .iter()
                .take(40)
                .map(|number| Endpoint { address: address(), root: (number % 4 < 3).then(|| root(*number)) })
                .collect(),
            checking: *checking,
            confirmed: confirmed.then(|| root(0)),
            asked: Some((root(1), *part)),
            wrong: (*wrong).into(),
        }),
        4 => Start::Belongs { language: Language::En, address: address() },
        _ => Start::Taken { language: Language::En, who: strange() },
    };
    // What lies on the device's own disk is believed.
    let vouched = match &start {
        Start::Resume(progress) => {
            progress.endpoints.iter().filter_map(|one| one.root).chain(progress.confirmed).collect()
        }
        Start::Fresh(_) | Start::Belongs { .. } | Start::Taken { .. } => Vec::new(),
    };
    let now = Duration::from_secs(1);
    let (machine, effects) = Machine::new(start, Rules { require_fingerprint: run.strict, seed: run.seed }, now);
    let mut desk = Desk {
        machine,
        now,
        strict: run.strict,
        last_job: 0,
        checking: None,
        wanted: None,
        logging_on: None,
        vouched,
        public: false,
        asked: None,
        typed_part: String::new(),
        finished: None,
    };
    desk.take(effects, false);
    desk.look();
    for deed in run.deeds.iter().take(128) {
        desk.deed(deed);
    }
    if desk.finished.is_none() {
        desk.to_the_end();
    }
});
