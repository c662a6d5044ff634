//! Uplinks: the server's own connections to its gateways, through which devices come that cannot reach it directly. One
//! task for each gateway on file; `machine` decides, `driver` carries bytes. A gateway is believed nothing but which bytes
//! belong together: every device proves who it is inside, and the management API is never offered through a gateway.

mod connection;
mod devices;
mod driver;
pub mod machine;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use umbra_carrier::crowd::Crowd;

use crate::gateways::Wanted;
use crate::serve::Tls;
use crate::server::Server;
use crate::shutdown::{self, Shutdown, Stop};
use crate::store::gateways::GatewayOnFile;
use crate::throttle::Source;

/// Devices behind gateways that have not said who they are.
const STRANGERS: usize = 1_024;

/// One uplink's task.
struct Running {
    gateway: Arc<GatewayOnFile>,
    limit: watch::Sender<Option<u32>>,
    retire: Stop,
    stop: Arc<Stop>,
    task: JoinHandle<()>,
}

/// What all uplinks need.
struct Keeper {
    server: Arc<Server>,
    tls: Arc<Tls>,
    strangers: Crowd<Source>,
    begun: u64,
}

/// Keeps an uplink to every gateway on file until shutdown; gateways may come, change and go meanwhile. Where a gateway's
/// settings change, its uplink stands until the one with the new settings does, so that nobody waits for a mistake.
pub async fn keep(server: Arc<Server>, tls: Arc<Tls>, mut shutdown: Shutdown) {
    let mut wanted = server.gateways.watch();
    let mut keeper = Keeper {
        server,
        tls,
        strangers: Crowd::new(STRANGERS),
        begun: 0,
    };
    // Of each gateway the newest one last.
    let mut running: HashMap<i64, Vec<Running>> = HashMap::new();
    let mut leaving: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let present = Arc::clone(&wanted.borrow_and_update());
        leaving.retain(|task| !task.is_finished());
        for (row, ones) in running.extract_if(|row, _| !is_wanted(*row, &present)) {
            for one in ones {
                tracing::info!(gateway = one.gateway.name, row, "uplink given up");
                one.stop.stop();
                leaving.push(one.task);
            }
        }
        for gateway in &present.gateways {
            let ones = running.entry(gateway.row).or_default();
            keeper.follow(ones, gateway, present.limit_of(gateway));
        }
        tokio::select! {
            biased;
            () = shutdown.wait() => break,
            changed = wanted.changed() => if changed.is_err() { break },
        }
    }
    for one in running.into_values().flatten() {
        one.stop.stop();
        leaving.push(one.task);
    }
    for task in leaving {
        // All of them end at the same time; what is waited for is the slowest.
        let _ = task.await;
    }
}

fn is_wanted(row: i64, wanted: &Wanted) -> bool {
    wanted.gateways.iter().any(|gateway| gateway.row == row)
}

impl Keeper {
    /// Brings the uplinks to one gateway in line with what is on file.
    fn follow(
        &mut self,
        ones: &mut Vec<Running>,
        gateway: &Arc<GatewayOnFile>,
        limit: Option<u32>,
    ) {
        ones.retain(|one| !one.task.is_finished());
        for one in ones.iter() {
            one.limit
                .send_if_modified(|told| std::mem::replace(told, limit) != limit);
        }
        if let Some(newest) = ones.last_mut()
            && newest.goes_on(gateway)
        {
            newest.gateway = Arc::clone(gateway);
            return;
        }
        for one in ones.iter() {
            tracing::info!(
                gateway = gateway.name,
                "a gateway's settings have changed: a new uplink takes the place of the old one once it stands"
            );
            one.retire.stop();
        }
        let (limit_in, limit) = watch::channel(limit);
        let (retire, retired) = shutdown::channel();
        let (stop, stopping) = shutdown::channel();
        self.begun += 1;
        let uplink = driver::Uplink {
            server: Arc::clone(&self.server),
            tls: Arc::clone(&self.tls),
            gateway: Arc::clone(gateway),
            number: self.begun,
            older: ones.iter().map(|one| Arc::clone(&one.stop)).collect(),
            strangers: self.strangers.clone(),
            limit,
            retired,
            stop: stopping,
        };
        ones.push(Running {
            gateway: Arc::clone(gateway),
            limit: limit_in,
            retire,
            stop: Arc::new(stop),
            task: tokio::spawn(uplink.run()),
        });
    }
}

impl Running {
    /// Whether an uplink can go on: nothing was changed but the limit, and what only devices are told.
    fn goes_on(&self, wanted: &GatewayOnFile) -> bool {
        wanted.internal == self.gateway.internal && wanted.roots == self.gateway.roots
    }
}
