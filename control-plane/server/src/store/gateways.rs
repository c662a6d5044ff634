//! The gateways on file. A gateway's key is made, handed out once and forgotten: nothing here lets anybody pose as one.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};
use umbra_carrier::address::HostPort;
use umbra_protocol::gateway::DEFAULT_PORT;

use super::{StoreError, from_json, to_json};

/// A gateway as it is on file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOnFile {
    /// Its number; never used twice.
    pub row: i64,
    /// Its name.
    pub name: String,
    /// Where the server, and consoles of the internal network, reach it.
    pub internal: HostPort,
    /// Where devices, and consoles outside, reach it.
    pub external: HostPort,
    /// Further names and addresses for its certificate.
    pub hosts: Vec<String>,
    /// How many devices it may connect.
    pub limit: Option<u32>,
    /// PEM roots of a chain of its own; none for a chain that this server made.
    pub roots: Vec<String>,
    /// Until when the certificate is valid that this server made.
    pub certificate_until: Option<i64>,
}

impl GatewayOnFile {
    /// All names and addresses that its certificate has to cover.
    pub fn certificate_hosts(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let addresses = [&self.internal, &self.external].map(|address| address.host().to_owned());
        for host in addresses.into_iter().chain(self.hosts.iter().cloned()) {
            if !all.iter().any(|known| known.eq_ignore_ascii_case(&host)) {
                all.push(host);
            }
        }
        all
    }
}

/// A gateway that is about to be filed.
#[derive(Clone, Debug)]
pub struct NewGateway {
    /// Its name.
    pub name: String,
    /// Where the server reaches it.
    pub internal: HostPort,
    /// Where devices reach it.
    pub external: HostPort,
    /// Further names and addresses for its certificate.
    pub hosts: Vec<String>,
    /// How many devices it may connect.
    pub limit: Option<u32>,
    /// PEM roots of a chain of its own.
    pub roots: Vec<String>,
    /// Until when the certificate is valid that this server made.
    pub certificate_until: Option<i64>,
}

fn address(text: &str) -> Result<HostPort, StoreError> {
    HostPort::parse(text, DEFAULT_PORT)
        .map_err(|error| StoreError::Unreadable(format!("a gateway's address: {error}")))
}

fn on_file(row: &SqliteRow) -> Result<GatewayOnFile, StoreError> {
    Ok(GatewayOnFile {
        row: row.try_get("row")?,
        name: row.try_get("name")?,
        internal: address(row.try_get("internal")?)?,
        external: address(row.try_get("external")?)?,
        hosts: from_json("a gateway's hosts", row.try_get("hosts")?)?,
        limit: row.try_get("devices_most")?,
        roots: from_json("a gateway's roots", row.try_get("roots")?)?,
        certificate_until: row.try_get("certificate_until")?,
    })
}

/// Files a gateway; false if there is one of that name.
pub async fn add(
    tx: &mut SqliteConnection,
    now: i64,
    by: &str,
    gateway: &NewGateway,
) -> Result<bool, StoreError> {
    let done = sqlx::query(
        "INSERT INTO gateways (name, internal, external, hosts, devices_most, roots, certificate_until, created_at, \
         created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&gateway.name)
    .bind(gateway.internal.to_string())
    .bind(gateway.external.to_string())
    .bind(to_json(&gateway.hosts))
    .bind(gateway.limit)
    .bind(to_json(&gateway.roots))
    .bind(gateway.certificate_until)
    .bind(now)
    .bind(by)
    .execute(tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// All gateways, in the order in which they were made.
pub async fn list(tx: &mut SqliteConnection) -> Result<Vec<GatewayOnFile>, StoreError> {
    let rows = sqlx::query("SELECT * FROM gateways ORDER BY row")
        .fetch_all(tx)
        .await?;
    rows.iter().map(on_file).collect()
}

/// One gateway, by name.
pub async fn find(
    tx: &mut SqliteConnection,
    name: &str,
) -> Result<Option<GatewayOnFile>, StoreError> {
    let found = sqlx::query("SELECT * FROM gateways WHERE name = ?")
        .bind(name)
        .fetch_optional(tx)
        .await?;
    found.as_ref().map(on_file).transpose()
}

/// Changes where a gateway is reached and how many devices it may connect.
pub async fn change(tx: &mut SqliteConnection, gateway: &GatewayOnFile) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE gateways SET internal = ?, external = ?, devices_most = ?, certificate_until = ? WHERE row = ?",
    )
    .bind(gateway.internal.to_string())
    .bind(gateway.external.to_string())
    .bind(gateway.limit)
    .bind(gateway.certificate_until)
    .bind(gateway.row)
    .execute(tx)
    .await?;
    Ok(())
}

/// Takes a gateway off the file.
pub async fn remove(tx: &mut SqliteConnection, row: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM gateways WHERE row = ?")
        .bind(row)
        .execute(tx)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    fn gateway(name: &str) -> NewGateway {
        NewGateway {
            name: name.into(),
            internal: HostPort::new("10.0.0.5", 8443).expect("an address"),
            external: HostPort::new("gw.example.com", 443).expect("an address"),
            hosts: vec!["GW.example.com".into(), "2001:db8::5".into()],
            limit: Some(500),
            roots: vec!["a root".into()],
            certificate_until: None,
        }
    }

    #[tokio::test]
    async fn a_gateway_reads_back_and_its_name_is_taken_in_any_case() {
        let (_folder, store) = Store::for_tests().await;
        let mut tx = store.begin().await.expect("begins");
        assert!(
            add(&mut tx, 1, "anna", &gateway("dmz"))
                .await
                .expect("filed")
        );
        assert!(
            !add(&mut tx, 1, "anna", &gateway("DMZ"))
                .await
                .expect("looked")
        );
        let found = find(&mut tx, "Dmz").await.expect("read").expect("there");
        assert_eq!(found.external.to_string(), "gw.example.com:443");
        assert_eq!(found.limit, Some(500));
        assert_eq!(found.roots, ["a root"]);
        assert_eq!(
            found.certificate_hosts(),
            ["10.0.0.5", "gw.example.com", "2001:db8::5"]
        );
    }

    #[tokio::test]
    async fn a_number_is_not_used_again_and_the_oldest_comes_first() {
        let (_folder, store) = Store::for_tests().await;
        let mut tx = store.begin().await.expect("begins");
        for name in ["b", "a"] {
            add(&mut tx, 1, "anna", &gateway(name))
                .await
                .expect("filed");
        }
        let last = find(&mut tx, "a").await.expect("read").expect("there").row;
        remove(&mut tx, last).await.expect("removed");
        add(&mut tx, 1, "anna", &gateway("c")).await.expect("filed");
        let all = list(&mut tx).await.expect("read");
        assert_eq!(all[0].name, "b");
        assert_eq!(all[1].name, "c");
        assert!(all[1].row > last);
    }
}
