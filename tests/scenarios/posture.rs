//! What a stranger with a scanner finds at each port that speaks TLS, and what OpenSSL and this product agree on. Scanner and OpenSSL are
//! real ones, from PyPI; nothing here is asked of the product itself.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use umbra_tests::eventually::eventually;
use umbra_tests::program::{Program, run};
use umbra_tests::python::{interpreter, script};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, PATIENCE};

use crate::site::Site;

const ENVIRONMENT: &str = ".tls-env";

/// IANA's number of X25519MLKEM768.
const HYBRID: &str = "0x11ec";

/// Everything older than TLS 1.2, as the scanner calls it.
const OUTDATED: [&str; 4] = [
    "ssl_2_0_cipher_suites",
    "ssl_3_0_cipher_suites",
    "tls_1_0_cipher_suites",
    "tls_1_1_cipher_suites",
];

const STRONG: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// What a device's port speaks besides where it is told to let TLS 1.2 in, as OpenSSL calls it.
const STRONG_OF_TLS12: [&str; 3] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
];

/// The one of them that the scanner sees: for the others it takes an OpenSSL that does not know the extended master secret.
const SEEN_OF_TLS12: [&str; 1] = ["TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"];

/// The product's TLS ports.
struct Ports<'s> {
    site: Site<'s>,
    device: SocketAddr,
    /// Its port is open for as long as it runs.
    agent: Device<'s>,
    name: String,
}

impl<'s> Ports<'s> {
    async fn open(scratch: &'s Scratch) -> anyhow::Result<Self> {
        let site = Site::start(scratch).await?;
        let (device, name) = site.device(scratch, None).await?;
        let address = device.shadow_address().await?;
        Ok(Self {
            site,
            device: address,
            agent: device,
            name,
        })
    }

    /// Lets TLS 1.2 in at the device's port, or no longer, and waits until the device warns of it, or no longer.
    async fn let_tls12_in(&self, on: bool) -> anyhow::Result<()> {
        let value = if on { "true" } else { "false" };
        self.agent.set("umbra.vncserver.tls12", value).await?;
        eventually("the warning to follow", PATIENCE, || async {
            let status = self
                .agent
                .status()
                .await
                .map_err(|error| error.to_string())?;
            let told = status["warnings"].to_string().contains("TLS 1.2 only");
            if told == on {
                Ok(())
            } else {
                Err(status["warnings"].to_string())
            }
        })
        .await?;
        Ok(())
    }

    fn each(&self) -> [(&'static str, SocketAddr); 3] {
        [
            ("the device's port", self.device),
            ("the gateway's port", self.site.gateway.internal()),
            ("the server's port", self.site.server.address()),
        ]
    }
}

fn suites(scan: &Value, version: &str) -> anyhow::Result<Vec<String>> {
    let of = &scan["scan_result"][version];
    ensure!(of["status"] == "COMPLETED", "{version}: {of}");
    let accepted = of["result"]["accepted_cipher_suites"].as_array();
    let accepted = accepted.with_context(|| format!("{version}: {of}"))?;
    Ok(accepted
        .iter()
        .filter_map(|suite| Some(suite["cipher_suite"]["name"].as_str()?.to_owned()))
        .collect())
}

fn judge(scan: &Value, of_tls12: &[&str]) -> anyhow::Result<()> {
    ensure!(
        scan["connectivity_status"] == "COMPLETED",
        "the scanner was not let in: {scan}"
    );
    for version in OUTDATED {
        let accepted = suites(scan, version)?;
        ensure!(accepted.is_empty(), "{version}: {accepted:?}");
    }
    let versions: [(&str, &[&str]); 2] = [
        ("tls_1_2_cipher_suites", of_tls12),
        ("tls_1_3_cipher_suites", &STRONG),
    ];
    for (version, expected) in versions {
        let mut accepted = suites(scan, version)?;
        accepted.sort();
        ensure!(accepted == expected, "{version}: {accepted:?}");
    }

    let result = |what: &str| &scan["scan_result"][what]["result"];
    let bad = [
        ("tls_compression", "supports_compression"),
        (
            "session_renegotiation",
            "is_vulnerable_to_client_renegotiation_dos",
        ),
        ("heartbleed", "is_vulnerable_to_heartbleed"),
        ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection"),
    ];
    for (what, sign) in bad {
        ensure!(
            result(what)[sign] == json!(false),
            "{what}: {}",
            scan["scan_result"][what]
        );
    }
    Ok(())
}

/// The whole scan of a port.
async fn scan(scratch: &Scratch, port: SocketAddr) -> anyhow::Result<Value> {
    let mut command = std::process::Command::new(interpreter(ENVIRONMENT));
    command.args(["-m", "sslyze", "--mozilla_config=disable", "--json_out=-"]);
    command.args([
        "--sslv2",
        "--sslv3",
        "--tlsv1",
        "--tlsv1_1",
        "--tlsv1_2",
        "--tlsv1_3",
    ]);
    command.args(["--compression", "--reneg", "--heartbleed", "--openssl_ccs"]);
    // One connection at a time: a device lets few strangers in at once, and is right to.
    command.args(["--slow_connection", &port.to_string()]);
    let output = run(scratch, "sslyze", &mut command, b"", PATIENCE * 2).await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Value = serde_json::from_str(&said)
        .with_context(|| format!("{said}{}", String::from_utf8_lossy(&output.stderr)))?;
    let scan = said["server_scan_results"][0].clone();
    ensure!(!scan.is_null(), "{said}");
    Ok(scan)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_port_speaks_tls_1_3_with_strong_suites_and_nothing_else() {
    scenario(async |scratch| {
        let ports = Ports::open(scratch).await?;
        for (name, port) in ports.each() {
            let scan = scan(scratch, port).await?;
            judge(&scan, &[]).with_context(|| name)?;
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_lets_tls_1_2_in_speaks_it_with_strong_suites_and_nowhere_else() {
    scenario(async |scratch| {
        let ports = Ports::open(scratch).await?;
        ports.let_tls12_in(true).await?;
        for (name, port) in ports.each() {
            let of_tls12: &[&str] = if port == ports.device {
                &SEEN_OF_TLS12
            } else {
                &[]
            };
            let scan = scan(scratch, port).await?;
            judge(&scan, of_tls12).with_context(|| name)?;
            let mut command = script(ENVIRONMENT, "scenarios/posture_peer.py");
            command.arg("suites").arg(port.to_string());
            let output = run(scratch, "suites", &mut command, b"", PATIENCE * 2).await?;
            let mut spoken: Value = serde_json::from_slice(&output.stdout)
                .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
            ensure!(spoken["known"].as_u64() > Some(50), "{name}: {spoken}");
            if let Some(suites) = spoken["with_ems"].as_array_mut() {
                suites.sort_by_key(Value::to_string);
            }
            let expected = if port == ports.device {
                json!(STRONG_OF_TLS12)
            } else {
                json!([])
            };
            ensure!(spoken["with_ems"] == expected, "{name}: {spoken}");
            ensure!(spoken["without_ems"] == json!([]), "{name}: {spoken}");
        }
        ports.let_tls12_in(false).await?;
        let scan = scan(scratch, ports.device).await?;
        judge(&scan, &[]).context("the device's port, switched off again")?;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_of_the_field_sees_the_screen_through_tls_1_2_only_where_the_device_lets_it_in() {
    scenario(async |scratch| {
        let ports = Ports::open(scratch).await?;
        let site = &ports.site;
        for let_in in [false, true] {
            if let_in {
                ports.let_tls12_in(true).await?;
            }
            let offer = site.console.offer(&site.server, &ports.name, true).await?;
            let mut command = script(ENVIRONMENT, "scenarios/posture_peer.py");
            command.arg("tls12").arg(ports.device.to_string());
            // On its standard input, where no list of processes shows it.
            let password = offer.password.as_bytes();
            let output = run(scratch, "old-console", &mut command, password, PATIENCE).await?;
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            ensure!(output.status.success() == let_in, "{let_in}: {said}");
            if let_in {
                let seen: Value = serde_json::from_str(&said).context(said.clone())?;
                ensure!(
                    seen["version"] == "TLSv1.2" && seen["pixels"].as_u64() > Some(1000),
                    "{seen}"
                );
                let record = site.console.ended_session(&offer.session).await?;
                ensure!(record["bytes_to_console"].as_u64() > Some(1000), "{record}");
            } else {
                ensure!(said.contains("protocol version"), "{said}");
                ensure!(site.desktop.connections() == 0, "the screen was bothered");
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_agrees_with_every_port_on_a_secret_that_outlives_elliptic_curves() {
    scenario(async |scratch| {
        let ports = Ports::open(scratch).await?;
        for (name, port) in ports.each() {
            let mut command = script(ENVIRONMENT, "scenarios/posture_peer.py");
            command.arg("client").arg(port.to_string());
            let output = run(scratch, "openssl-client", &mut command, b"", PATIENCE).await?;
            let said = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            let agreed: Value =
                serde_json::from_str(&said).with_context(|| format!("{name}: {said}"))?;
            ensure!(
                agreed["group"] == HYBRID && agreed["version"] == "TLSv1.3",
                "{name}: {agreed}"
            );
        }
        // And the other way round: what a console of ours says first, to an OpenSSL that serves.
        let mut command = script(ENVIRONMENT, "scenarios/posture_peer.py");
        let mut peer = Program::start(scratch, "openssl-server", command.arg("server"))?;
        let line = peer.wait_for_line("port", PATIENCE).await?;
        let port = serde_json::from_str::<Value>(&line)?["port"].clone();
        let address = format!("127.0.0.1:{port}");
        // It is no server of ours, so nothing comes of it.
        let login = ["login", &address, "--user", "admin"];
        ports.site.console.output(&login, "").await?;
        let agreed: Value = serde_json::from_str(&peer.wait_for_line("group", PATIENCE).await?)?;
        ensure!(agreed["group"] == HYBRID, "{agreed}");
        Ok(())
    })
    .await;
}
