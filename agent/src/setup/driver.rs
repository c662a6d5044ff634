//! Joins the machine, a face and the device: what the person does goes in, what is asked for is done, what is to be seen goes out.
//! It decides nothing. However it ends, the face is left in order.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use umbra_setup::{Effect, Event, Input, Job, Machine, Outcome, Rules, Start, View};

use super::device::{Device, StageNote};

/// How often the disk is asked whether the device was taken on by somebody else.
const LOOK: Duration = Duration::from_secs(2);
/// Notes that may wait to be shown.
const NOTES: usize = 64;

/// A way of showing views and of hearing people.
pub trait Face {
    /// What comes from the person, before it is understood: a line, a key.
    type Raw: Send;

    /// Shows a view; the one before is over.
    fn show(&mut self, view: &View) -> io::Result<()>;
    /// Takes in what came from the person; nothing more comes after `None`.
    fn hear(&mut self, raw: Option<Self::Raw>) -> io::Result<()>;
    /// What the person wants, as far as it is understood. It is asked again until it has nothing more.
    fn next(&mut self, view: &View) -> io::Result<Option<Input>>;
}

/// The work under way.
struct Work<D> {
    device: Arc<D>,
    events: mpsc::Sender<Event>,
    tasks: JoinSet<()>,
    looking: Arc<tokio::sync::Semaphore>,
}

/// Runs the assistant to its end. `stop` ends it as if the face had gone.
///
/// # Errors
/// What the face could not write or read.
pub async fn run<D: Device, F: Face>(
    start: Start,
    rules: Rules,
    device: Arc<D>,
    face: &mut F,
    raws: &mut mpsc::Receiver<F::Raw>,
    stop: impl Future<Output = ()>,
) -> io::Result<Outcome> {
    let begun = Instant::now();
    let (sender, mut events) = mpsc::channel(NOTES);
    let mut work = Work {
        device,
        events: sender,
        tasks: JoinSet::new(),
        looking: Arc::new(tokio::sync::Semaphore::new(1)),
    };
    let mut stop = std::pin::pin!(stop);
    let mut stopped = false;
    let mut is_open = true;
    let mut shown: Option<View> = None;
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut machine, effects) = Machine::new(start, rules, begun.elapsed());
    let mut todo = work.carry_out(effects);
    loop {
        while let Some(event) = todo.pop() {
            let effects = machine.handle(event, begun.elapsed());
            if let Some(outcome) = outcome(&effects) {
                work.carry_out(effects);
                work.tasks.abort_all();
                return Ok(outcome);
            }
            todo.extend(work.carry_out(effects));
        }
        let now = begun.elapsed();
        let view = machine.view(now);
        if shown.as_ref() != Some(&view) {
            face.show(&view)?;
        }
        let wanted = face.next(&view)?;
        shown = Some(view);
        if let Some(input) = wanted {
            todo.push(Event::Input(input));
            continue;
        }
        let due = machine
            .next_deadline(now)
            .map_or(begun + Duration::from_secs(3_600) + now, |due| begun + due);
        let event = tokio::select! {
            () = &mut stop, if !stopped => {
                stopped = true;
                Some(Event::Input(Input::Close))
            }
            raw = raws.recv(), if is_open => {
                is_open = raw.is_some();
                face.hear(raw)?;
                None
            }
            Some(event) = events.recv() => Some(event),
            () = sleep_until(due) => Some(Event::Tick),
            _ = look.tick() => work.device.belongs().map(|address| Event::Belongs { address }),
        };
        while work.tasks.try_join_next().is_some() {}
        todo.extend(event);
    }
}

fn outcome(effects: &[Effect]) -> Option<Outcome> {
    effects.iter().find_map(|effect| match effect {
        Effect::Finish(outcome) => Some(*outcome),
        Effect::Discover { .. }
        | Effect::LookAtSticks
        | Effect::ResolveMail { .. }
        | Effect::Check { .. }
        | Effect::LogOn { .. }
        | Effect::Stop
        | Effect::Store(_)
        | Effect::Forget => None,
    })
}

impl<D: Device> Work<D> {
    /// Does what is asked for, or begins it. What can be answered at once is.
    fn carry_out(&mut self, effects: Vec<Effect>) -> Vec<Event> {
        let mut events = Vec::new();
        for effect in effects {
            let (device, answers) = (self.device.clone(), self.events.clone());
            match effect {
                Effect::Discover { job } => {
                    self.tasks.spawn(crate::task::boxed(async move {
                        let (found, problems) = device.discover().await;
                        let _ = answers
                            .send(Event::Discovered {
                                job,
                                found,
                                problems,
                            })
                            .await;
                    }));
                }
                Effect::ResolveMail { job, domain } => {
                    self.tasks.spawn(crate::task::boxed(async move {
                        let (found, problems) = device.resolve_mail(domain).await;
                        let _ = answers
                            .send(Event::Discovered {
                                job,
                                found,
                                problems,
                            })
                            .await;
                    }));
                }
                Effect::LookAtSticks => self.look_at_sticks(),
                Effect::Check { job, endpoint } => {
                    let (sender, notes) = mpsc::channel(NOTES);
                    self.tasks.spawn(crate::task::boxed(async move {
                        let check = device.check(endpoint, sender);
                        let (result, ()) = tokio::join!(check, pass_on(job, notes, &answers));
                        let event = match result {
                            Ok(reached) => Event::Reached { job, reached },
                            Err(sentence) => Event::NotReached { job, sentence },
                        };
                        let _ = answers.send(event).await;
                    }));
                }
                Effect::LogOn { job, plan } => {
                    let (sender, mut notes) = mpsc::channel(NOTES);
                    self.tasks.spawn(crate::task::boxed(async move {
                        let log_on = device.log_on(plan, sender);
                        let pass_on = async {
                            while let Some(stage) = notes.recv().await {
                                let _ = answers.send(Event::LoggingOn { job, stage }).await;
                            }
                        };
                        let (result, ()) = tokio::join!(log_on, pass_on);
                        let event = match result {
                            Ok(taken) => Event::LoggedOn { job, taken },
                            Err((sentence, again)) => Event::Refused {
                                job,
                                sentence,
                                again,
                            },
                        };
                        let _ = answers.send(event).await;
                    }));
                }
                Effect::Stop => self.tasks.abort_all(),
                Effect::Store(progress) => {
                    if let Err(sentence) = device.store(&progress) {
                        events.push(Event::NotStored { sentence });
                    }
                }
                Effect::Forget => {
                    if let Err(sentence) = device.forget() {
                        events.push(Event::NotStored { sentence });
                    }
                }
                Effect::Finish(_) => {}
            }
        }
        events
    }

    /// One look at a time: a stick that hangs must not pile them up.
    fn look_at_sticks(&mut self) {
        let Ok(permit) = self.looking.clone().try_acquire_owned() else {
            return;
        };
        let (device, answers) = (self.device.clone(), self.events.clone());
        self.tasks.spawn(crate::task::boxed(async move {
            let looked = tokio::task::spawn_blocking(move || {
                let findings = device.sticks();
                drop(permit);
                findings
            });
            if let Ok((found, problems)) = looked.await {
                let _ = answers.send(Event::Sticks { found, problems }).await;
            }
        }));
    }
}

async fn pass_on(job: Job, mut notes: mpsc::Receiver<StageNote>, answers: &mpsc::Sender<Event>) {
    while let Some((stage, state, sentence)) = notes.recv().await {
        let _ = answers
            .send(Event::Checking {
                job,
                stage,
                state,
                sentence,
            })
            .await;
    }
}

#[cfg(test)]
mod tests;
