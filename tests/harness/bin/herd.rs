//! Many devices in one program: the agent's own code, each on a folder of its own and a machine that is made up. What the benchmark puts in
//! front of a gateway or a server; it says in lines how far they are.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use umbra_agent::control::client::Client;
use umbra_agent::control::{Request, Response, TrustGiven};
use umbra_agent::os::fake::Fake;
use umbra_agent::paths::Paths;
use umbra_agent::run::{Config, run_with};
use umbra_agent::status::{Board, Stage};
use umbra_protocol::secret::Secret;

const USAGE: &str =
    "herd FOLDER [FIRST+]DEVICES ums|icg LONGEST-PAUSE ADDRESS FINGERPRINT KEY-FILE";
/// How many are taken on at the same time.
const AT_ONCE: usize = 8;
/// Longer than this, no device may take for a step.
const PATIENCE: Duration = Duration::from_secs(600);

/// How many devices have been online at least once, twice and so on.
type Arrivals = BTreeMap<u64, usize>;

struct Member {
    board: Board,
    paths: Paths,
    _stop: oneshot::Sender<()>,
}

impl Member {
    /// Starts a device that goes to its server by one `way` only, at least every `pause` seconds, and writes its arrivals down.
    fn start(
        root: &Path,
        number: usize,
        (way, pause): (&str, &str),
        arrivals: watch::Sender<Arrivals>,
    ) -> anyhow::Result<Self> {
        let paths = Paths::new(root);
        std::fs::create_dir_all(paths.kept())?;
        let registry = format!(
            "system.remotemanager.reconnect_interval = {pause}\nsystem.remotemanager.connectorranking = \"{way}\"\n\
             network.vncserver.enabled = true\nnetwork.vncserver.port = 0\n\
             umbra.vncserver.listen = [\"127.0.0.1\"]\n"
        );
        std::fs::write(paths.registry(), registry)?;
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
        let mut watching = board.subscribe();
        tokio::spawn(async move {
            // Since when it was online last: two looks may be further apart than an end of the link and the next one.
            let (mut last, mut times) = (None, 0);
            while watching.changed().await.is_ok() {
                let now = watching.borrow_and_update().clone();
                if now.stage == Stage::Online && last != Some(now.since) {
                    (last, times) = (Some(now.since), times + 1);
                    arrivals.send_modify(|arrivals| *arrivals.entry(times).or_default() += 1);
                }
            }
        });
        Ok(Self {
            board,
            paths,
            _stop: stop,
        })
    }

    async fn until(&self, wanted: Stage) -> anyhow::Result<()> {
        let mut watching = self.board.subscribe();
        let found = timeout(PATIENCE, watching.wait_for(|status| status.stage == wanted)).await;
        match found {
            Ok(found) => found.map(drop).context("the board is gone"),
            Err(_) => bail!("{wanted:?} was not reached: {:?}", self.board.now()),
        }
    }

    async fn enrol(&self, address: &str, fingerprint: &str, key: &str) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.paths).await?;
        let request = Request::Enrol {
            address: address.to_owned(),
            trust: TrustGiven::Fingerprint(fingerprint.to_owned()),
            key: Secret::new(key),
        };
        let answer = client.ask(&request, PATIENCE).await?;
        ensure!(matches!(answer, Response::Done { .. }), "{answer:?}");
        self.until(Stage::Online).await
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody is left to tell when stdout is closed.
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, devices, way, pause, address, fingerprint, key_file] = arguments.as_slice() else {
        bail!(USAGE);
    };
    // Two herds at one server must not have the same machines.
    let (first, devices): (usize, usize) = match devices.split_once('+') {
        Some((first, count)) => (first.parse()?, count.parse()?),
        None => (0, devices.parse()?),
    };
    let key = std::fs::read_to_string(key_file)?;
    let (arrivals, mut seen) = watch::channel(Arrivals::new());
    let mut members = Vec::new();
    for number in first..first + devices {
        let root = Path::new(folder).join(number.to_string());
        let member = Member::start(&root, number, (way, pause), arrivals.clone())?;
        members.push(Arc::new(member));
    }
    let start = Instant::now();
    for member in &members {
        member.until(Stage::NotEnrolled).await?;
    }
    say(&format!(
        "identities after {:.2}",
        start.elapsed().as_secs_f64()
    ));
    let start = Instant::now();
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut joining = JoinSet::new();
    for member in &members {
        let (member, gate) = (Arc::clone(member), Arc::clone(&gate));
        let (address, fingerprint) = (address.clone(), fingerprint.clone());
        let key = key.trim().to_owned();
        joining.spawn(async move {
            let _turn = gate.acquire().await?;
            member.enrol(&address, &fingerprint, &key).await
        });
    }
    while let Some(joined) = joining.join_next().await {
        joined??;
    }
    say(&format!("enrolled in {:.2}", start.elapsed().as_secs_f64()));
    for time in 1_u64.. {
        seen.wait_for(|arrivals| arrivals.get(&time) == Some(&devices))
            .await?;
        say(&format!("all online, time {time}."));
    }
    Ok(())
}
