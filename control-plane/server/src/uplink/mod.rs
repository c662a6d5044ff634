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

use crate::crowd::Crowd;
use crate::gateways::Wanted;
use crate::serve::Tls;
use crate::server::Server;
use crate::shutdown::{self, Shutdown, Stop};
use crate::store::gateways::GatewayOnFile;

/// Devices behind gateways that have not said who they are.
const STRANGERS: usize = 1_024;

/// One gateway's task.
struct Running {
    gateway: Arc<GatewayOnFile>,
    limit: watch::Sender<Option<u32>>,
    stop: Stop,
    task: JoinHandle<()>,
}

/// Keeps an uplink to every gateway on file until shutdown; gateways may come, change and go meanwhile.
pub async fn keep(server: Arc<Server>, tls: Arc<Tls>, mut shutdown: Shutdown) {
    let strangers = Crowd::new(STRANGERS);
    let mut wanted = server.gateways.watch();
    let mut running: HashMap<i64, Running> = HashMap::new();
    loop {
        let present = Arc::clone(&wanted.borrow_and_update());
        for (row, one) in running.extract_if(|_, one| !stays(one, &present)) {
            tracing::info!(gateway = one.gateway.name, row, "uplink given up");
            one.end().await;
        }
        for gateway in &present.gateways {
            let limit = present.limit_of(gateway);
            if let Some(one) = running.get_mut(&gateway.row) {
                one.gateway = Arc::clone(gateway);
                one.limit
                    .send_if_modified(|told| std::mem::replace(told, limit) != limit);
                continue;
            }
            let (limit_in, limit) = watch::channel(limit);
            let (stop, stopping) = shutdown::channel();
            let uplink = driver::Uplink {
                server: Arc::clone(&server),
                tls: Arc::clone(&tls),
                gateway: Arc::clone(gateway),
                strangers: strangers.clone(),
                limit,
                stop: stopping,
            };
            let one = Running {
                gateway: Arc::clone(gateway),
                limit: limit_in,
                stop,
                task: tokio::spawn(uplink.run()),
            };
            running.insert(gateway.row, one);
        }
        tokio::select! {
            biased;
            () = shutdown.wait() => break,
            changed = wanted.changed() => if changed.is_err() { break },
        }
    }
    for one in running.values() {
        one.stop.stop();
    }
    for one in running.into_values() {
        // All of them end at the same time; what is waited for is the slowest.
        let _ = one.task.await;
    }
}

/// Whether an uplink can go on: nothing was changed but the limit, and what only devices are told.
fn stays(one: &Running, wanted: &Wanted) -> bool {
    wanted.gateways.iter().any(|gateway| {
        gateway.row == one.gateway.row
            && gateway.internal == one.gateway.internal
            && gateway.roots == one.gateway.roots
    })
}

impl Running {
    async fn end(self) {
        self.stop.stop();
        // It ends by its own deadlines.
        let _ = self.task.await;
    }
}
