//! A device that does what a test wrote down.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use umbra_protocol::Fingerprint;

use super::*;

/// What the scripted server is.
#[derive(Debug)]
pub(crate) struct Scripted {
    /// The root behind every address but `down.example.com`.
    pub(crate) root: Fingerprint,
    /// The key that is right.
    pub(crate) key: String,
    /// What lies on a stick.
    pub(crate) stick: Mutex<Vec<Found>>,
    /// What was kept, in its order; nothing for forgotten.
    pub(crate) kept: Mutex<Vec<Option<Progress>>>,
    /// Whether somebody else had the device taken on.
    pub(crate) belongs: AtomicBool,
    /// Whether the check never ends.
    pub(crate) silent: AtomicBool,
    /// How many checks are under way.
    pub(crate) checks: AtomicUsize,
}

/// A check under way, until it ends or is given up.
struct Check<'a>(&'a AtomicUsize);

impl<'a> Check<'a> {
    fn begin(checks: &'a AtomicUsize) -> Self {
        checks.fetch_add(1, Ordering::SeqCst);
        Self(checks)
    }
}

impl Drop for Check<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Scripted {
    pub(crate) fn new() -> Self {
        Self {
            root: Fingerprint::from_bytes([0xA7; 32]),
            key: "ABCDE-FGHJK-MNPQR-STVWX".into(),
            stick: Mutex::default(),
            kept: Mutex::default(),
            belongs: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            checks: AtomicUsize::new(0),
        }
    }
}

fn address() -> Address {
    Address {
        host: "gw.example.com".into(),
        port: 8443,
    }
}

impl Device for Scripted {
    async fn discover(&self) -> Findings {
        (Vec::new(), Vec::new())
    }

    async fn resolve_mail(&self, domain: String) -> Findings {
        let found = Found {
            source: umbra_setup::Source::Record { domain },
            endpoints: vec![Endpoint {
                address: address(),
                root: None,
            }],
            key: None,
        };
        (vec![found], Vec::new())
    }

    fn sticks(&self) -> Findings {
        (self.stick.lock().expect("not poisoned").clone(), Vec::new())
    }

    async fn check(
        &self,
        endpoint: Endpoint,
        stages: mpsc::Sender<StageNote>,
    ) -> Result<Reached, Report> {
        let _check = Check::begin(&self.checks);
        let is_down = endpoint.address.host == "down.example.com";
        for stage in Stage::ALL {
            let _ = stages.send((stage, State::Running, Report::from(""))).await;
            if self.silent.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            if is_down && stage == Stage::Tcp {
                let _ = stages
                    .send((stage, State::Failed, "Nobody answers there.".into()))
                    .await;
                return Err("Nobody answers there.".into());
            }
            let _ = stages.send((stage, State::Good, "Works.".into())).await;
        }
        Ok(Reached {
            address: endpoint.address,
            root: Some(self.root),
            public_ca: None,
        })
    }

    async fn log_on(
        &self,
        plan: Plan,
        stages: mpsc::Sender<LogOnStage>,
    ) -> Result<TakenOn, (Report, Again)> {
        for stage in LogOnStage::ALL {
            let _ = stages.send(stage).await;
        }
        if plan.key.reveal() != self.key {
            return Err((
                "The server does not know this key. [bad_key]".into(),
                Again::Key,
            ));
        }
        Ok(TakenOn {
            address: plan.address,
            device_name: "reception".into(),
            online: Some(true),
        })
    }

    fn store(&self, progress: &Progress) -> Result<(), Report> {
        self.kept
            .lock()
            .expect("not poisoned")
            .push(Some(progress.clone()));
        Ok(())
    }

    fn forget(&self) -> Result<(), Report> {
        self.kept.lock().expect("not poisoned").push(None);
        Ok(())
    }

    fn belongs(&self) -> Option<Address> {
        self.belongs.load(Ordering::SeqCst).then(address)
    }
}
