//! Where the server is: typed, found around the device, named by a mail domain, or in credentials from a stick or the clipboard.

use umbra_protocol::Secret;
use umbra_protocol::credentials::Credentials;

use super::{At, FOUND_MAX, Machine, PASTE_MAX, clipped};
use crate::address::{Mistake, Typed};
use crate::catalogue::Language;
use crate::event::{Address, Effect, Endpoint, Found, Job, Moment, Source};
use crate::report::Report;
use crate::view::Tone;

/// The question for the address.
#[derive(Debug)]
pub(super) struct Asking {
    /// The search of the surroundings, while it runs.
    pub(super) search: Option<Job>,
    /// The question to a mail domain, while it runs.
    pub(super) mail: Option<(Job, String)>,
    /// When removable media are looked at next.
    pub(super) look_at: Moment,
    /// What was wrong on the way, as sentences.
    pub(super) problems: Vec<String>,
    /// Files on sticks that can't be used, as sentences.
    pub(super) unusable: Vec<String>,
}

impl Machine {
    pub(super) fn enter_address(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        self.go(At::Address(Asking {
            search: None,
            mail: None,
            look_at: now + super::STICKS_EVERY,
            problems: Vec::new(),
            unusable: Vec::new(),
        }));
        effects.push(Effect::LookAtSticks);
        if !self.kept.searched {
            self.search(effects);
        }
    }

    pub(super) fn back_to_address(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        effects.push(Effect::Stop);
        self.enter_address(now, effects);
        effects.push(Effect::Store(self.progress()));
    }

    /// Looks around the device.
    pub(super) fn search(&mut self, effects: &mut Vec<Effect>) {
        let job = self.job();
        if let At::Address(asking) = &mut self.at {
            asking.search = Some(job);
            asking.problems.clear();
            self.kept.searched = true;
            effects.push(Effect::Discover { job });
        }
    }

    pub(super) fn discovered(&mut self, job: Job, found: Vec<Found>, problems: &[Report]) {
        let At::Address(asking) = &mut self.at else {
            return;
        };
        let usable = usable(found);
        if asking.search == Some(job) {
            asking.search = None;
            asking.problems = shown(problems, self.language);
            // What was chosen stays chosen, even where it is not found this time.
            self.kept.found.retain(|known| match known.source {
                Source::Record { .. } | Source::Stick { .. } | Source::Pasted => true,
                Source::Configured | Source::Name { .. } | Source::Dhcp { .. } => false,
            });
            for (index, found) in usable.into_iter().enumerate() {
                self.kept.found.insert(index, found);
            }
            return;
        }
        let Some((_, domain)) = asking.mail.take_if(|(asked, _)| *asked == job) else {
            return;
        };
        asking.problems = shown(problems, self.language);
        let texts = self.texts();
        self.kept.found.retain(
            |known| !matches!(&known.source, Source::Record { domain: other } if *other == domain),
        );
        let first = usable.first().cloned();
        self.kept.found.extend(usable);
        match first {
            Some(found) => {
                let address = found.address().to_string();
                // The record came over a channel that nobody vouches for: it is a proposal, and the person sees it first.
                self.kept.chosen = Some(found);
                let text = self.filled(
                    texts.address_named,
                    &[
                        ("domain", &domain),
                        ("address", &address),
                        ("check", texts.address_check),
                    ],
                );
                self.say(Tone::Information, &text);
            }
            None => {
                let text = self.filled(texts.address_not_named, &[("domain", &domain)]);
                self.say(Tone::Problem, &text);
            }
        }
    }

    pub(super) fn sticks(&mut self, found: Vec<Found>, problems: &[Report]) {
        let At::Address(asking) = &mut self.at else {
            return;
        };
        asking.unusable = shown(problems, self.language);
        let mut found = usable(found);
        found.retain(|found| found.source.is_stick());
        let known = |list: &[Found], one: &Found| list.contains(one);
        let is_new = found.iter().any(|one| !known(&self.kept.found, one));
        self.kept.found.retain(|one| !one.source.is_stick());
        self.kept.found.extend(found);
        // A stick that was pulled out can't be chosen any more.
        if let Some(chosen) = &self.kept.chosen
            && chosen.source.is_stick()
            && !self.kept.found.contains(chosen)
        {
            self.kept.chosen = None;
        }
        if is_new {
            self.say(Tone::Information, self.texts().address_stick);
        }
    }

    pub(super) fn choose_found(&mut self, option: &str) {
        if option == "typed" {
            self.kept.chosen = None;
        } else if let Some(found) = option
            .strip_prefix("found-")
            .and_then(|index| index.parse::<usize>().ok())
            .and_then(|index| self.kept.found.get(index))
        {
            self.kept.chosen = Some(found.clone());
        }
    }

    /// What is in the line now: an address, or a whole text of credentials that was pasted there.
    pub(super) fn set_address(&mut self, text: &Secret) {
        let text = text.reveal();
        self.notice = None;
        self.kept.chosen = None;
        if !is_more_than_a_line(text) {
            self.kept.typed = clipped(text.trim_start());
            return;
        }
        // It may hold a key: it is not kept as a line.
        self.kept.typed = String::new();
        let texts = self.texts();
        let Some(found) = pasted(text) else {
            self.say(Tone::Problem, texts.address_not_pasted);
            return;
        };
        self.kept
            .found
            .retain(|known| known.source != Source::Pasted);
        self.kept.found.push(found.clone());
        self.kept.chosen = Some(found);
        let text = self.filled(texts.address_pasted, &[("check", texts.address_check)]);
        self.say(Tone::Good, &text);
    }

    /// On to the check with what is chosen or typed.
    pub(super) fn take_address(&mut self, effects: &mut Vec<Effect>) {
        let (endpoints, key) = match &self.kept.chosen {
            Some(found) => (found.endpoints.clone(), found.key.clone()),
            None => match Typed::read(&self.kept.typed) {
                Ok(Typed::Address(address)) => (
                    vec![Endpoint {
                        address,
                        root: None,
                    }],
                    None,
                ),
                Ok(Typed::Mail(domain)) => {
                    self.ask_domain(domain, effects);
                    return;
                }
                Err(mistake) => {
                    self.say(Tone::Problem, &self.sentence(mistake));
                    return;
                }
            },
        };
        match key {
            Some(key) => {
                self.kept.key = key;
                self.kept.key_from_credentials = true;
            }
            // The key of other credentials is not for this server.
            None if self.kept.key_from_credentials => {
                self.kept.key = Secret::new("");
                self.kept.key_from_credentials = false;
            }
            None => {}
        }
        self.kept.endpoints = endpoints;
        if let At::Address(asking) = &self.at {
            // A search that is given up here is made anew when the person comes back.
            self.kept.searched &= asking.search.is_none();
        }
        effects.push(Effect::Stop);
        self.start_check(effects);
    }

    fn ask_domain(&mut self, domain: String, effects: &mut Vec<Effect>) {
        let job = self.job();
        if let At::Address(asking) = &mut self.at {
            asking.mail = Some((job, domain.clone()));
            self.notice = None;
            effects.push(Effect::ResolveMail { job, domain });
        }
    }

    fn sentence(&self, mistake: Mistake) -> String {
        let texts = self.texts();
        match mistake {
            Mistake::Empty => texts.address_empty.to_owned(),
            Mistake::Port => texts.address_bad_port.to_owned(),
            Mistake::Host => texts.address_bad_host.to_owned(),
            Mistake::Mail => texts.address_bad_mail.to_owned(),
            Mistake::Letters => {
                let name = umbra_protocol::credentials::shown_host(self.kept.typed.trim());
                // As it was written it stands in the line below; the words around that are English.
                let ascii = name.split(" (written").next().unwrap_or(&name);
                self.filled(texts.address_bad_letters, &[("name", ascii)])
            }
        }
    }
}

impl Found {
    /// Where it leads first.
    pub(super) fn address(&self) -> Address {
        self.endpoints.first().map_or_else(
            || Address {
                host: String::new(),
                port: 0,
            },
            |endpoint| endpoint.address.clone(),
        )
    }
}

/// Credentials as text or XML, pasted.
pub(super) fn pasted(text: &str) -> Option<Found> {
    if text.len() > PASTE_MAX {
        return None;
    }
    let credentials = Credentials::read(text.as_bytes()).ok()?;
    Some(Found::of_credentials(&credentials, Source::Pasted))
}

impl Found {
    /// The proposal that credentials are.
    pub fn of_credentials(credentials: &Credentials, source: Source) -> Self {
        let endpoint = |endpoint: &umbra_protocol::credentials::Endpoint| Endpoint {
            address: Address {
                host: endpoint.host.clone(),
                port: endpoint.port,
            },
            root: Some(endpoint.root_fingerprint),
        };
        Self {
            source,
            endpoints: credentials.endpoints.iter().map(endpoint).collect(),
            key: Some(credentials.key.for_person()),
        }
    }
}

/// Whether a text is more than anybody types into a line. Line ends around it come with pasting.
pub(super) fn is_more_than_a_line(text: &str) -> bool {
    let text = text.trim();
    text.chars().count() > super::LINE_MAX
        || text.contains(['\n', '\r', '<'])
        || text.contains("----")
}

fn usable(mut found: Vec<Found>) -> Vec<Found> {
    found.retain(|found| !found.endpoints.is_empty());
    found.truncate(FOUND_MAX);
    for found in &mut found {
        found.endpoints.truncate(FOUND_MAX);
    }
    found
}

fn shown(problems: &[Report], language: Language) -> Vec<String> {
    problems
        .iter()
        .take(4)
        .map(|problem| problem.shown(language).0)
        .filter(|problem| !problem.is_empty())
        .collect()
}
