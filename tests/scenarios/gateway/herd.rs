//! Two hundred devices behind one gateway that dies: all come back, each once, spread out, at a bounded cost. The devices are
//! the agent's own code in this process; server and gateway are the programs that ship.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use umbra_agent::control::client::Client;
use umbra_agent::control::{Request, Response, TrustGiven};
use umbra_agent::os::fake::Fake;
use umbra_agent::paths::Paths;
use umbra_agent::run::{Config, run_with};
use umbra_agent::status::{Board, Stage};
use umbra_protocol::secret::Secret;
use umbra_tests::eventually::{eventually, eventually_is};
use umbra_tests::scratch::scenario;
use umbra_tests::world::{Console, PATIENCE};

use super::metrics::Metrics;
use super::site::Site;

/// How many devices there are.
const HERD: usize = 200;
/// How many of them are taken on at the same time.
const AT_ONCE: usize = 8;

/// One device, running in this process.
struct Member {
    board: Board,
    paths: Paths,
    _stop: oneshot::Sender<()>,
}

/// When which device came online.
type Arrivals = Arc<Mutex<Vec<(usize, Instant)>>>;

impl Member {
    fn start(root: &Path, number: usize, arrivals: &Arrivals) -> anyhow::Result<Self> {
        let paths = Paths::new(root);
        std::fs::create_dir_all(paths.kept())?;
        std::fs::write(
            paths.registry(),
            "[system.remotemanager]\nreconnect_interval = 10\nconnectorranking = \"icg\"\n",
        )?;
        let mut os = Fake::default();
        let digits = u16::try_from(number)?.to_be_bytes();
        for adapter in &mut os.adapters {
            adapter.mac[4..].copy_from_slice(&digits);
        }
        let board = Board::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let (config, shown) = (Config::new(paths.clone()), board.clone());
        tokio::spawn(async move {
            let shutdown = async move { drop(stopped.await) };
            run_with(config, Arc::new(os), shown, shutdown).await
        });
        let (mut watching, arrivals) = (board.subscribe(), Arc::clone(arrivals));
        tokio::spawn(async move {
            // Since when it was online last. Two looks may be further apart than an end of the link and the next one.
            let mut last = None;
            while watching.changed().await.is_ok() {
                let now = watching.borrow_and_update().clone();
                if now.stage == Stage::Online && last != Some(now.since) {
                    last = Some(now.since);
                    let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
                    arrivals.push((number, Instant::now()));
                }
            }
        });
        Ok(Self {
            board,
            paths,
            _stop: stop,
        })
    }

    async fn until(&self, what: &str, stage: impl Fn(Stage) -> bool) -> anyhow::Result<()> {
        let mut watching = self.board.subscribe();
        let found = timeout(PATIENCE, watching.wait_for(|status| stage(status.stage))).await;
        match found {
            Ok(found) => found.map(drop).context("the board is gone"),
            Err(_) => bail!("{what} did not come about: {:?}", self.board.now()),
        }
    }

    async fn enrol(&self, address: &str, fingerprint: &str, key: &str) -> anyhow::Result<()> {
        self.until("an identity", |stage| stage == Stage::NotEnrolled)
            .await?;
        let mut client = Client::connect(&self.paths).await?;
        let request = Request::Enrol {
            address: address.to_owned(),
            trust: TrustGiven::Fingerprint(fingerprint.to_owned()),
            key: Secret::new(key),
        };
        let answer = client.ask(&request, PATIENCE).await?;
        ensure!(matches!(answer, Response::Done { .. }), "{answer:?}");
        self.until("a link", |stage| stage == Stage::Online).await
    }
}

fn raise_the_limit_of_files() -> anyhow::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

async fn herd(
    root: &Path,
    site: &Site<'_>,
    arrivals: &Arrivals,
) -> anyhow::Result<Vec<Arc<Member>>> {
    let key = mass_key(&site.console).await?;
    let address = site.gateway.external().to_string();
    let fingerprint = site.server.fingerprint().to_owned();
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = JoinSet::new();
    let mut members = Vec::new();
    for number in 0..HERD {
        let member = Member::start(&root.join(number.to_string()), number, arrivals)?;
        let member = Arc::new(member);
        members.push(Arc::clone(&member));
        let (gate, address) = (Arc::clone(&gate), address.clone());
        let (fingerprint, key) = (fingerprint.clone(), key.clone());
        joining.spawn(async move {
            let _turn = gate.acquire().await?;
            member.enrol(&address, &fingerprint, &key).await
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined??;
    }
    Ok(members)
}

async fn mass_key(console: &Console<'_>) -> anyhow::Result<String> {
    let made = console.tell(&["keys", "create", "--mass"], "").await?;
    let key = made.pointer("/0/key").or_else(|| made.get("key"));
    let key = key.and_then(serde_json::Value::as_str);
    Ok(key.with_context(|| made.to_string())?.to_owned())
}

/// Waits until the gateway has exactly so many devices, all admitted.
async fn wait_until_back(site: &Site<'_>) -> anyhow::Result<Metrics> {
    let probe = || async {
        let metrics = Metrics::read(site.gateway.metrics())
            .await
            .map_err(|error| error.to_string())?;
        let (devices, waiting) = (
            metrics.get("umbra_gateway_devices"),
            metrics.get("umbra_gateway_devices_waiting"),
        );
        if (devices, waiting) == (HERD as f64, 0.0) {
            Ok(metrics)
        } else {
            Err(format!("{devices} devices, {waiting} waiting"))
        }
    };
    Ok(eventually("all devices to be back", PATIENCE, probe).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_gateways_death_two_hundred_devices_are_back_each_once_and_not_all_at_the_same_moment()
 {
    scenario(async |scratch| {
        raise_the_limit_of_files()?;
        let mut site = Site::start(scratch).await?;
        let arrivals = Arrivals::default();
        let root = scratch.folder("h")?;
        let members = herd(&root, &site, &arrivals).await?;
        wait_until_back(&site).await?;

        site.gateway.program().kill();
        for member in &members {
            member
                .until("an end of the link", |stage| stage != Stage::Online)
                .await?;
        }
        // Whoever writes them down is a task apart, and may be later than what is waited for here.
        let written = || {
            arrivals
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .len()
        };
        let until_written = |count: usize| {
            eventually_is("arrivals to be written down", PATIENCE, move || {
                if written() < count {
                    Err(written())
                } else {
                    Ok(())
                }
            })
        };
        until_written(HERD).await?;
        let seen = written();
        site.gateway.start_again().await?;
        let idle = site.gateway.program().resident_kib().unwrap_or(0);
        for member in &members {
            member
                .until("a link", |stage| stage == Stage::Online)
                .await?;
        }
        let metrics = wait_until_back(&site).await?;

        until_written(seen + HERD).await?;
        let back = arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .split_off(seen);
        let mut times: BTreeMap<usize, u32> = BTreeMap::new();
        for (number, _) in &back {
            *times.entry(*number).or_default() += 1;
        }
        ensure!(
            times.len() == HERD && times.values().all(|times| *times == 1),
            "how often each came back: {times:?}"
        );
        ensure!(
            busiest_second(&back) * 2 <= HERD,
            "{} of {HERD} came back in one second",
            busiest_second(&back)
        );
        let tries = metrics.get("umbra_gateway_connections_total");
        ensure!(
            tries <= (HERD * 6) as f64,
            "{tries} connections for {HERD} devices"
        );
        let grown = site
            .gateway
            .program()
            .resident_kib()
            .unwrap_or(u64::MAX)
            .saturating_sub(idle);
        ensure!(
            grown <= (HERD * 512) as u64,
            "the gateway grew by {grown} KiB for {HERD} devices"
        );
        let shown = site
            .console
            .tell(&["gateways", "show", site.gateway.name()], "")
            .await?;
        ensure!(
            shown.get("devices").and_then(serde_json::Value::as_u64) == Some(HERD as u64),
            "{shown}"
        );
        Ok(())
    })
    .await;
}

/// The most arrivals within any one second.
fn busiest_second(arrivals: &[(usize, Instant)]) -> usize {
    let within = |start: Instant| {
        arrivals
            .iter()
            .filter(|(_, at)| *at >= start && at.duration_since(start) < Duration::from_secs(1))
            .count()
    };
    arrivals
        .iter()
        .map(|(_, at)| within(*at))
        .max()
        .unwrap_or(0)
}
