//! What a stranger with a scanner finds at each port that speaks TLS, and what OpenSSL and this product agree on. Scanner and OpenSSL are
//! real ones, from PyPI; nothing here is asked of the product itself.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use umbra_tests::program::{Program, run};
use umbra_tests::python::{interpreter, script};
use umbra_tests::scratch::{Scratch, scenario};
use umbra_tests::world::{Device, PATIENCE};

use crate::site::Site;

const ENVIRONMENT: &str = ".tls-env";

/// IANA's number of X25519MLKEM768.
const HYBRID: &str = "0x11ec";

/// Everything older than TLS 1.3, as the scanner calls it.
const OUTDATED: [&str; 5] = [
    "ssl_2_0_cipher_suites",
    "ssl_3_0_cipher_suites",
    "tls_1_0_cipher_suites",
    "tls_1_1_cipher_suites",
    "tls_1_2_cipher_suites",
];

const STRONG: [&str; 3] = [
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];

/// The product's TLS ports.
struct Ports<'s> {
    site: Site<'s>,
    device: SocketAddr,
    /// Its port is open for as long as it runs.
    _device: Device<'s>,
}

impl<'s> Ports<'s> {
    async fn open(scratch: &'s Scratch) -> anyhow::Result<Self> {
        let site = Site::start(scratch).await?;
        let (device, _) = site.device(scratch, None).await?;
        let address = device.shadow_address().await?;
        Ok(Self {
            site,
            device: address,
            _device: device,
        })
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

fn judge(scan: &Value) -> anyhow::Result<()> {
    ensure!(
        scan["connectivity_status"] == "COMPLETED",
        "the scanner was not let in: {scan}"
    );
    for version in OUTDATED {
        let accepted = suites(scan, version)?;
        ensure!(accepted.is_empty(), "{version}: {accepted:?}");
    }
    let mut accepted = suites(scan, "tls_1_3_cipher_suites")?;
    accepted.sort();
    ensure!(accepted == STRONG, "{accepted:?}");

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
            judge(&scan).with_context(|| name)?;
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
