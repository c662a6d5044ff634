//! What is shown: every screen is drawn anew from the machine's state. The key is in here only as long as the person wants to see it.

use super::fingerprint::FREE;
use super::{At, Machine, check, fingerprint, key, log_on};
use crate::catalogue::{Catalogue, Language};
use crate::event::{Address, Again, Found, LogOnStage, Moment, Source, Stage, TakenOn, Trust};
use crate::text::{fill, grouped, printable};
use crate::view::{Action, Choice, Item, Notice, State, Step, Tone, VIEW_VERSION, View};

/// How many steps there are: language, address, check, fingerprint, key, log on, ready.
const STEPS: u8 = 7;

pub(super) fn draw(machine: &Machine, now: Moment) -> View {
    let texts = machine.texts();
    let mut view = match &machine.at {
        At::Language => language(machine, texts),
        At::Address(asking) => address(machine, asking, texts),
        At::Check(check) => checking(machine, check, texts),
        At::Fingerprint(comparing) => comparing_screen(machine, comparing, texts, now),
        At::Key(asking) => key_screen(machine, asking, texts),
        At::LogOn(logging_on) => log_on_screen(logging_on, texts),
        At::Ready {
            taken,
            trust,
            authority,
        } => ready(taken, *trust, authority.as_deref(), texts),
        At::Belongs { address } => belongs(address, texts),
        At::Taken { who } => taken_screen(who, texts),
        At::Over => Screen::new(Step::Leave, 0, texts.product),
    };
    if machine.leaving {
        view = leave(machine, texts);
    } else if let Some((tone, text)) = &machine.notice
        && view.notice.is_none()
    {
        view.notice = Some(Notice {
            tone: *tone,
            text: text.clone(),
        });
    }
    view.into_view(machine.language)
}

/// A view while it is being put together.
struct Screen {
    step: Step,
    number: u8,
    title: String,
    text: Vec<String>,
    items: Vec<Item>,
    actions: Vec<Action>,
    notice: Option<Notice>,
    busy: bool,
}

impl Screen {
    fn new(step: Step, number: u8, title: &str) -> Self {
        Self {
            step,
            number,
            title: title.to_owned(),
            text: Vec::new(),
            items: Vec::new(),
            actions: Vec::new(),
            notice: None,
            busy: false,
        }
    }

    fn text(mut self, text: impl Into<String>) -> Self {
        self.text.push(text.into());
        self
    }

    fn item(mut self, item: Item) -> Self {
        self.items.push(item);
        self
    }

    fn action(mut self, id: &str, label: &str) -> Self {
        self.actions.push(Action {
            id: id.to_owned(),
            label: label.to_owned(),
            enabled: true,
            default: false,
        });
        self
    }

    /// The button that the enter key presses; where it can't be pressed now, nothing takes its place.
    fn default(mut self, id: &str, label: &str, enabled: bool) -> Self {
        self.actions.push(Action {
            id: id.to_owned(),
            label: label.to_owned(),
            enabled,
            default: true,
        });
        self
    }

    fn into_view(self, language: Language) -> View {
        View {
            version: VIEW_VERSION,
            step: self.step,
            number: self.number,
            of: STEPS,
            language,
            title: self.title,
            text: self.text,
            items: self.items,
            actions: self.actions,
            notice: self.notice,
            busy: self.busy,
        }
    }
}

fn fact(label: &str, value: impl Into<String>) -> Item {
    Item::Fact {
        label: label.to_owned(),
        value: value.into(),
    }
}

fn language(machine: &Machine, texts: &Catalogue) -> Screen {
    let options = Language::ALL
        .into_iter()
        .map(|language| Choice {
            id: language.id().to_owned(),
            label: Catalogue::of(language).language_name.to_owned(),
            detail: String::new(),
        })
        .collect();
    Screen::new(Step::Language, 1, texts.language_title)
        .text(texts.language_text)
        .item(Item::Choice {
            id: "language".to_owned(),
            label: texts.language_label.to_owned(),
            options,
            selected: Some(machine.language.id().to_owned()),
        })
        .default("next", texts.next, true)
        .action("cancel", texts.cancel)
}

fn address(machine: &Machine, asking: &super::address::Asking, texts: &Catalogue) -> Screen {
    let kept = &machine.kept;
    let mut screen = Screen::new(Step::Address, 2, texts.address_title).text(texts.address_text);
    if let Some((_, domain)) = &asking.mail {
        screen = screen.text(fill(texts.address_asking, &[("domain", domain)]));
    } else if asking.search.is_some() {
        screen = screen.text(texts.address_searching);
    } else if kept.found.is_empty() {
        screen = screen.text(texts.address_nothing);
    }
    for problem in asking.problems.iter().chain(&asking.unusable) {
        screen = screen.text(problem.as_str());
    }
    screen.busy = asking.mail.is_some();
    let chosen = kept
        .chosen
        .as_ref()
        .and_then(|chosen| kept.found.iter().position(|found| found == chosen));
    if !kept.found.is_empty() {
        let mut options: Vec<Choice> = kept
            .found
            .iter()
            .enumerate()
            .map(|(index, found)| Choice {
                id: format!("found-{index}"),
                label: places(found),
                detail: source(&found.source, texts),
            })
            .collect();
        options.push(Choice {
            id: "typed".to_owned(),
            label: texts.address_typed.to_owned(),
            detail: texts.address_typed_detail.to_owned(),
        });
        let selected = chosen.map_or_else(|| "typed".to_owned(), |index| format!("found-{index}"));
        screen = screen.item(Item::Choice {
            id: "found".to_owned(),
            label: texts.address_found.to_owned(),
            options,
            selected: Some(selected),
        });
    }
    screen
        .item(Item::Entry {
            id: "address".to_owned(),
            label: texts.address_label.to_owned(),
            hint: texts.address_hint.to_owned(),
            text: kept.typed.clone(),
            secret: false,
            revealed: true,
        })
        .default("next", texts.address_check, asking.mail.is_none())
        .action("search", texts.address_search)
        .action("back", texts.back)
        .action("cancel", texts.cancel)
}

/// All ways in of a proposal.
fn places(found: &Found) -> String {
    let mut shown: Vec<String> = found
        .endpoints
        .iter()
        .take(3)
        .map(|endpoint| endpoint.address.to_string())
        .collect();
    if found.endpoints.len() > shown.len() {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

fn source(source: &Source, texts: &Catalogue) -> String {
    match source {
        Source::Configured => texts.source_configured.to_owned(),
        Source::Name { name } => fill(texts.source_name, &[("name", &printable(name))]),
        Source::Record { domain } => fill(texts.source_record, &[("domain", &printable(domain))]),
        Source::Dhcp { interface } => {
            fill(texts.source_dhcp, &[("interface", &printable(interface))])
        }
        Source::Stick { medium, file } => fill(
            texts.source_stick,
            &[("medium", &printable(medium)), ("file", &printable(file))],
        ),
        Source::Pasted => texts.source_pasted.to_owned(),
    }
}

fn stage_texts(stage: Stage, texts: &Catalogue) -> (&'static str, &'static str) {
    match stage {
        Stage::Name => (texts.stage_name, texts.failed_name),
        Stage::Tcp => (texts.stage_tcp, texts.failed_tcp),
        Stage::Proxy => (texts.stage_proxy, texts.failed_proxy),
        Stage::Tls => (texts.stage_tls, texts.failed_tls),
        Stage::Chain => (texts.stage_chain, texts.failed_chain),
        Stage::Gateway => (texts.stage_gateway, texts.failed_gateway),
        Stage::Server => (texts.stage_server, texts.failed_server),
    }
}

fn checking(machine: &Machine, check: &check::Check, texts: &Catalogue) -> Screen {
    let endpoints = &machine.kept.endpoints;
    let place = endpoints
        .get(check.index)
        .map_or_else(String::new, |endpoint| endpoint.address.to_string());
    let text = if endpoints.len() > 1 {
        fill(
            texts.check_several,
            &[
                ("address", &place),
                ("number", &(check.index + 1).to_string()),
                ("of", &endpoints.len().to_string()),
            ],
        )
    } else {
        fill(texts.check_text, &[("address", &place)])
    };
    let mut screen = Screen::new(Step::Check, 3, texts.check_title).text(text);
    for (stage, line) in Stage::ALL.into_iter().zip(&check.lines) {
        let (label, failed) = stage_texts(stage, texts);
        let template = match line.state {
            _ if line.ours => "{sentence}",
            // In another language than the person's; the word for the state is enough.
            State::Waiting | State::Running | State::Skipped | State::Good => "",
            State::Warning => texts.stage_warning,
            State::Failed => failed,
        };
        screen = screen.item(Item::Progress {
            id: stage.id().to_owned(),
            label: label.to_owned(),
            state: line.state,
            sentence: fill(template, &[("sentence", &line.sentence)]),
        });
    }
    screen.busy = check.result.is_none();
    screen = match &check.result {
        None => screen.default("next", texts.next, false),
        Some(Ok(_)) => screen.default("next", texts.next, true),
        Some(Err(())) => screen.default("again", texts.again, true),
    };
    let back = match &check.result {
        Some(Err(())) => texts.check_other,
        None | Some(Ok(_)) => texts.back,
    };
    screen.action("back", back).action("cancel", texts.cancel)
}

fn comparing_screen(
    machine: &Machine,
    comparing: &fingerprint::Comparing,
    texts: &Catalogue,
    now: Moment,
) -> Screen {
    let mut screen = Screen::new(Step::Fingerprint, 4, texts.fingerprint_title)
        .text(texts.fingerprint_text)
        .text(texts.fingerprint_differ)
        .item(fact(
            texts.ready_server,
            comparing.reached.address.to_string(),
        ));
    for (index, part) in comparing.root.parts().iter().enumerate() {
        let number = (index + 1).to_string();
        let values = [("part", number.as_str())];
        screen = screen.item(if index == comparing.missing {
            Item::Entry {
                id: "part".to_owned(),
                label: fill(texts.fingerprint_missing, &values),
                hint: texts.fingerprint_hint.to_owned(),
                text: comparing.typed.clone(),
                secret: false,
                revealed: true,
            }
        } else {
            fact(&fill(texts.fingerprint_part, &values), grouped(part))
        });
    }
    let left = machine.kept.allowed_at.saturating_sub(now);
    if !left.is_zero() && machine.kept.wrong >= FREE {
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        screen.notice = Some(Notice {
            tone: Tone::Problem,
            text: fill(
                texts.fingerprint_pause,
                &[
                    ("wrong", &machine.kept.wrong.to_string()),
                    ("seconds", &seconds.to_string()),
                ],
            ),
        });
    }
    screen
        .default("next", texts.next, left.is_zero())
        .action("back", texts.back)
        .action("cancel", texts.cancel)
}

fn key_screen(machine: &Machine, asking: &key::Asking, texts: &Catalogue) -> Screen {
    let mut screen = Screen::new(Step::Key, 5, texts.key_title);
    match &asking.why {
        key::Why::Compared(_) => {}
        key::Why::Confirmed => screen = screen.text(texts.key_trust_confirmed),
        key::Why::Credentials => screen = screen.text(texts.key_trust_credentials),
        key::Why::Authority(name) => {
            screen = screen.text(fill(texts.key_trust_public, &[("name", name)]));
        }
    }
    screen = screen.text(if machine.kept.key_from_credentials {
        texts.key_from_credentials
    } else {
        texts.key_text
    });
    let key = machine.kept.key.reveal();
    let text = if asking.revealed {
        printable(key)
    } else {
        "•".repeat(key.chars().count())
    };
    screen
        .item(Item::Entry {
            id: "key".to_owned(),
            label: texts.key_label.to_owned(),
            hint: texts.key_hint.to_owned(),
            text,
            secret: true,
            revealed: asking.revealed,
        })
        .default("next", texts.key_log_on, true)
        .action("back", texts.back)
        .action("cancel", texts.cancel)
}

fn log_on_screen(logging_on: &log_on::LoggingOn, texts: &Catalogue) -> Screen {
    let place = logging_on.asking.reached.address.to_string();
    let mut screen = Screen::new(Step::LogOn, 6, texts.log_on_title)
        .text(fill(texts.log_on_text, &[("address", &place)]));
    for (stage, state) in LogOnStage::ALL.into_iter().zip(logging_on.lines) {
        let label = match stage {
            LogOnStage::Connect => texts.log_on_connect,
            LogOnStage::Prove => texts.log_on_prove,
            LogOnStage::Store => texts.log_on_store,
            LogOnStage::Online => texts.log_on_online,
        };
        screen = screen.item(Item::Progress {
            id: stage.id().to_owned(),
            label: label.to_owned(),
            state,
            sentence: String::new(),
        });
    }
    screen.busy = logging_on.is_running();
    screen = match logging_on.refused {
        None => {
            let mut screen = screen.action("back", texts.back);
            // The server may have taken the device on already.
            if let Some(back) = screen.actions.last_mut() {
                back.enabled = false;
            }
            screen
        }
        Some(Again::Key) => screen
            .default("key", texts.log_on_other_key, true)
            .action("again", texts.again)
            .action("back", texts.back),
        Some(Again::Later) => screen
            .default("again", texts.again, true)
            .action("back", texts.back)
            .action("address", texts.check_other),
        Some(Again::Address) => screen
            .default("address", texts.check_other, true)
            .action("again", texts.again)
            .action("back", texts.back),
    };
    screen.action("cancel", texts.cancel)
}

fn ready(taken: &TakenOn, trust: Trust, authority: Option<&str>, texts: &Catalogue) -> Screen {
    let (title, more) = match taken.online {
        Some(true) => (texts.ready_title, None),
        Some(false) => (texts.ready_not_yet_title, Some(texts.ready_not_yet)),
        None => (texts.ready_title, Some(texts.ready_no_agent)),
    };
    let mut screen = Screen::new(Step::Ready, 7, title).text(texts.ready_text);
    if let Some(more) = more {
        screen = screen.text(more);
    }
    screen = screen
        .item(fact(texts.ready_server, taken.address.to_string()))
        .item(fact(texts.ready_device, taken.device_name.as_str()));
    screen = match (trust, authority) {
        (Trust::Fingerprint(root), _) => {
            let parts = root.parts().map(|part| grouped(&part));
            screen.item(fact(texts.ready_fingerprint, parts.join(" – ")))
        }
        (Trust::PublicCa, Some(name)) => screen.item(fact(texts.ready_public_ca, name)),
        (Trust::PublicCa, None) => screen,
    };
    screen.default("finish", texts.finish, true)
}

fn leave(machine: &Machine, texts: &Catalogue) -> Screen {
    let mut screen = Screen::new(Step::Leave, 0, texts.leave_title).text(texts.leave_text);
    if let At::LogOn(logging_on) = &machine.at
        && logging_on.is_running()
    {
        screen = screen.text(texts.leave_logging_on);
    }
    screen
        .default("stay", texts.leave_stay, true)
        .action("leave", texts.leave_keep)
        .action("forget", texts.leave_forget)
}

fn belongs(address: &Address, texts: &Catalogue) -> Screen {
    Screen::new(Step::Belongs, 0, texts.belongs_title)
        .text(fill(
            texts.belongs_text,
            &[("address", &address.to_string())],
        ))
        .default("finish", texts.finish, true)
}

fn taken_screen(who: &str, texts: &Catalogue) -> Screen {
    let who = printable(who);
    let who = if who.is_empty() {
        texts.taken_somebody
    } else {
        &who
    };
    Screen::new(Step::Taken, 0, texts.taken_title)
        .text(fill(texts.taken_text, &[("who", who)]))
        .default("finish", texts.finish, true)
}
