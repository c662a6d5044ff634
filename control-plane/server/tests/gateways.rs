//! Gateways: uplinks, devices that come through them, probes, moves, and where device and console meet. The gateway is
//! scripted; the server and its TLS are real.
#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "tests name what they expect"
)]

mod site;

use rcgen::KeyPair;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use site::gateway::{Gateway, Uplink};
use site::{Api, Device, Link, Site, device_certificate, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use umbra_carrier::tls::{DatePolicy, EnvelopeTrust, ServerTrust, envelope_config};
use umbra_protocol::command::Action;
use umbra_protocol::enrolment::ConnectorKind;
use umbra_protocol::gateway::{
    Draining, Limit, OpenRendezvous, RendezvousEnded, RendezvousReady, ToGateway, TunnelEnd,
    token_hash,
};
use umbra_protocol::hello::Intent;
use umbra_protocol::ids::ServerRoot;
use umbra_protocol::link::Goodbye;
use umbra_protocol::{FromServer, Refusal, RefusalCode};

async fn attached(site: &Site, api: &Api) -> (Gateway, Uplink) {
    let gateway = Gateway::new(api, "dmz", json!({ "external": "gw.example.com" })).await;
    let uplink = gateway.attached().await;
    api.until("/gateways/dmz", |gateway| gateway["attached"] == true)
        .await;
    assert_eq!(
        uplink.certificate,
        *site.server.authority.uplink.certificate()
    );
    (gateway, uplink)
}

/// Lets a device link through the gateway; says its stream's number.
async fn through(
    site: &Site,
    uplink: &mut Uplink,
    device: &Device,
) -> Result<(u64, Link), Refusal> {
    let (number, door) = uplink.door("198.51.100.7").await;
    let mut link = device.connect_to(door, site.root()).await;
    link.say(device.hello(Intent::Link)).await;
    match link.hear().await {
        FromServer::Welcome(_) => {}
        FromServer::Refusal(refusal) => return Err(refusal),
        other => panic!("{other:?}"),
    }
    admitted(uplink, number).await;
    Ok((number, link))
}

async fn admitted(uplink: &mut Uplink, number: u64) {
    match uplink.hear().await {
        ToGateway::Admit(admit) => assert_eq!(admit.stream, number),
        other => panic!("{other:?}"),
    }
}

async fn dropped(uplink: &mut Uplink, number: u64) -> Refusal {
    match uplink.hear().await {
        ToGateway::Drop(drop) => {
            assert_eq!(drop.stream, number);
            drop.refusal
        }
        other => panic!("{other:?}"),
    }
}

/// A device on file, whose link is not up.
async fn filed(site: &Site, api: &Api, unit: &str) -> Device {
    let device = Device::new(unit);
    let key = api.key(json!({})).await;
    device.enrol(site, &key).await.expect("taken on");
    device
}

fn ask_for(device: &str) -> Value {
    json!({
        "device": device, "reason": "printer", "legacy": false,
        "permissions": { "control": true, "clipboard": false },
    })
}

#[tokio::test]
async fn a_device_behind_a_gateway_is_taken_on_welcomed_and_online() {
    let site = Site::new().await;
    let api = site.api().await;
    let (gateway, mut uplink) = attached(&site, &api).await;
    let ToGateway::Attach(attach) = &uplink.first else {
        panic!("{:?}", uplink.first);
    };
    assert_eq!(attach.versions, [1]);
    assert_eq!(attach.server_root, ServerRoot::of_certificate(&site.root()));

    let device = Device::new("A1");
    let key = api.key(json!({})).await;
    let (number, door) = uplink.door("198.51.100.7").await;
    let link = device.connect_to(door, site.root()).await;
    let enrolled = device.enrol_on(link, &key).await.expect("taken on");
    admitted(&mut uplink, number).await;
    let kinds: Vec<ConnectorKind> = enrolled.connectors.iter().map(|way| way.kind).collect();
    assert_eq!(kinds, [ConnectorKind::Ums, ConnectorKind::Icg]);
    assert_eq!(enrolled.connectors[1].address, "gw.example.com");
    assert_eq!(enrolled.connectors[1].port, 8443);

    let (_, mut link) = through(&site, &mut uplink, &device).await.expect("welcome");
    assert!(link.is_quiet().await);
    let shown = api.get("/devices/A1").await;
    assert_eq!(shown["online"], true);
    assert_eq!(shown["gateway"], "dmz");
    assert_eq!(
        shown["shadow_addresses"],
        json!([]),
        "nothing there is reached"
    );
    let shown = api.get("/gateways/dmz").await;
    assert_eq!(shown["internal"], gateway.address.to_string());
    assert_eq!(shown["external"], "gw.example.com:8443");
    assert_eq!(shown["devices"], 1);
    assert_eq!(shown["version"], "7.7.7");
    assert_eq!(shown["trouble"], Value::Null);
    let audit = api.audit().await;
    for action in ["gateway.created", "gateway.attached", "device.enrolled"] {
        assert!(audit.contains(&(action.into(), "ok".into())), "{action}");
    }
    let lines = api.get("/audit").await;
    let enrolled = lines.as_array().expect("lines").iter();
    let mut enrolled = enrolled.filter(|line| line["action"] == "device.enrolled");
    let detail = enrolled.next().expect("a line")["detail"].to_string();
    assert!(detail.contains("198.51.100.7 via gateway dmz"), "{detail}");
}

#[tokio::test]
async fn a_lost_uplink_takes_its_devices_offline_says_why_and_is_made_anew() {
    let site = Site::new().await;
    let api = site.api().await;
    let (gateway, mut uplink) = attached(&site, &api).await;
    let device = filed(&site, &api, "A1").await;
    let (_, _link) = through(&site, &mut uplink, &device).await.expect("welcome");
    uplink
        .say(Draining {
            retry_after_seconds: 1,
        })
        .await;
    uplink
        .closer
        .close_with(1012, "shutting_down retry=1: The gateway restarts.");
    api.until("/devices/A1", |device| device["online"] == false)
        .await;
    let shown = api
        .until("/gateways/dmz", |gateway| gateway["attached"] == false)
        .await;
    let trouble = shown["trouble"].as_str().expect("a sentence");
    assert!(trouble.contains("The gateway restarts."), "{trouble}");
    eventually(async || {
        let audit = api.audit().await;
        audit
            .contains(&("gateway.lost".into(), "lost".into()))
            .then_some(())
    })
    .await;
    drop(uplink);
    let mut uplink = gateway.attached().await;
    let (_, mut link) = through(&site, &mut uplink, &device).await.expect("welcome");
    assert!(link.is_quiet().await);
    assert_eq!(api.get("/devices/A1").await["gateway"], "dmz");
}

#[tokio::test]
async fn device_and_console_are_told_where_to_meet_and_the_gateway_only_hashes() {
    let site = Site::new().await;
    let api = site.api().await;
    let (gateway, mut uplink) = attached(&site, &api).await;
    let mut device = Device::new("A1");
    // No port: behind a gateway that is enough.
    device.facts.shadow_port = None;
    let key = api.key(json!({})).await;
    device.enrol(&site, &key).await.expect("taken on");
    let (_, mut link) = through(&site, &mut uplink, &device).await.expect("welcome");

    let serve = async {
        let ToGateway::Rendezvous(open) = uplink.hear().await else {
            panic!("no rendezvous");
        };
        uplink.say(RendezvousReady { id: open.id }).await;
        open
    };
    let (offer, open) = tokio::join!(api.offer("A1", false), serve);
    let open: OpenRendezvous = open;
    assert_eq!(open.expires_in_seconds, 30);
    let meeting = &offer["rendezvous"];
    assert_eq!(meeting["gateway"], "dmz");
    let addresses = json!([gateway.address.to_string(), "gw.example.com:8443"]);
    assert_eq!(meeting["addresses"], addresses, "the console is inside");
    assert_eq!(
        meeting["roots"],
        json!([site.server.authority.root_pem.clone()])
    );
    assert_eq!(offer["addresses"], json!([]));
    let token = meeting["token"].as_str().expect("a token");
    assert_eq!(token_hash(token), open.console);
    let FromServer::SessionRequest(request) = link.hear().await else {
        panic!("the session comes first");
    };
    let FromServer::SessionTunnel(tunnel) = link.hear().await else {
        panic!("then where to meet");
    };
    assert_eq!(tunnel.session, request.session);
    assert_eq!(token_hash(tunnel.token.reveal()), open.device);
    assert_ne!(open.device, open.console);

    // Nobody came.
    let ended = RendezvousEnded {
        id: open.id,
        code: TunnelEnd::Expired,
        sentence: "Neither end came in time.".into(),
        bytes_to_device: 0,
        bytes_to_console: 0,
    };
    uplink.say(ended).await;
    let FromServer::SessionEnd(end) = link.hear().await else {
        panic!("the device forgets it");
    };
    assert_eq!(end.session, request.session);
    let session = api.get(&format!("/sessions/{}", request.session)).await;
    assert_eq!(session["state"], "refused");
    assert_eq!(session["end_code"], "tunnel_expired");
    assert_eq!(session["end_sentence"], "Neither end came in time.");
    let audit = api.audit().await;
    assert!(audit.contains(&("session.not_met".into(), "tunnel_expired".into())));
}

#[tokio::test]
async fn a_session_that_is_withdrawn_is_withdrawn_at_the_gateway_and_a_lost_gateway_ends_it() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_gateway, mut uplink) = attached(&site, &api).await;
    let device = filed(&site, &api, "A1").await;
    let (_, _link) = through(&site, &mut uplink, &device).await.expect("welcome");
    for withdrawn in [true, false] {
        let serve = async {
            let ToGateway::Rendezvous(open) = uplink.hear().await else {
                panic!("no rendezvous");
            };
            uplink.say(RendezvousReady { id: open.id }).await;
            open.id
        };
        let (offer, id) = tokio::join!(api.offer("A1", false), serve);
        let path = format!("/sessions/{}", offer["session"].as_str().expect("an ID"));
        if withdrawn {
            assert_eq!(api.ask("DELETE", &path, None).await.0, 204);
            match uplink.hear().await {
                ToGateway::Withdraw(withdraw) => assert_eq!(withdraw.id, id),
                other => panic!("{other:?}"),
            }
        } else {
            uplink.closer.close_with(1001, "bye");
            let session = api
                .until(&path, |session| session["state"] == "refused")
                .await;
            assert_eq!(session["end_code"], "tunnel_lost");
        }
    }
}

#[tokio::test]
async fn a_gateway_that_opens_no_rendezvous_makes_no_session() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_gateway, mut uplink) = attached(&site, &api).await;
    let device = filed(&site, &api, "A1").await;
    let (_, mut link) = through(&site, &mut uplink, &device).await.expect("welcome");
    let serve = async {
        let ToGateway::Rendezvous(open) = uplink.hear().await else {
            panic!("no rendezvous");
        };
        let ended = RendezvousEnded {
            id: open.id,
            code: TunnelEnd::NotOpened,
            sentence: "Too many are open.".into(),
            bytes_to_device: 0,
            bytes_to_console: 0,
        };
        uplink.say(ended).await;
    };
    let ((status, body), ()) =
        tokio::join!(api.ask("POST", "/sessions", Some(ask_for("A1"))), serve);
    assert_eq!(status, 409);
    assert_eq!(body["code"], "gateway_unavailable");
    let detail = body["detail"].as_str().expect("a sentence");
    assert!(detail.contains("Too many are open."), "{detail}");
    assert!(link.is_quiet().await, "the device hears nothing of it");
    let sessions = api.get("/sessions").await;
    assert_eq!(sessions[0]["state"], "refused");
    assert_eq!(sessions[0]["end_code"], "gateway_unavailable");
}

#[tokio::test]
async fn who_is_refused_hears_it_inside_and_is_dropped_outside() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_gateway, mut uplink) = attached(&site, &api).await;
    let stranger = Device::new("B9");
    let (number, door) = uplink.door("198.51.100.9").await;
    let mut link = stranger.connect_to(door, site.root()).await;
    link.say(stranger.hello(Intent::Link)).await;
    assert_eq!(link.refusal().await.code, RefusalCode::UnknownDevice);
    drop(link);
    let refusal = dropped(&mut uplink, number).await;
    assert_eq!(refusal.code, RefusalCode::UnknownDevice);
}

#[tokio::test]
async fn the_management_api_is_never_offered_through_a_gateway() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_gateway, mut uplink) = attached(&site, &api).await;
    let trust = || ServerTrust::PinnedRoots(vec![site.root()]);
    let browser =
        envelope_config(EnvelopeTrust::pinned(trust()), DatePolicy::Enforce).expect("a root");
    let mut silent = (*browser).clone();
    silent.alpn_protocols.clear();
    for config in [browser, silent.into()] {
        let (number, door) = uplink.door("198.51.100.9").await;
        let tcp = TcpStream::connect(door).await.expect("connects");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        // It may get as far as being asked for a certificate; it is not answered in any case.
        let stream = TlsConnector::from(config).connect(name, tcp).await;
        let refusal = dropped(&mut uplink, number).await;
        assert_eq!(refusal.code, RefusalCode::Malformed);
        drop(stream);
    }
}

#[tokio::test]
async fn more_devices_than_a_gateway_or_all_may_connect_are_turned_away() {
    let site = Site::new().await;
    let api = site.api().await;
    let gateway = Gateway::new(&api, "dmz", json!({ "limit": 1 })).await;
    let mut uplink = gateway.attached().await;
    let ToGateway::Attach(attach) = &uplink.first else {
        panic!("{:?}", uplink.first);
    };
    assert_eq!(attach.limit, Some(1), "the gateway is told");
    let device = filed(&site, &api, "A1").await;
    let (_, _link) = through(&site, &mut uplink, &device).await.expect("welcome");
    let (second, _stream) = uplink.device_stream("198.51.100.8").await;
    let refusal = dropped(&mut uplink, second).await;
    assert_eq!(refusal.code, RefusalCode::ConnectionLimit);
    assert!(refusal.retry_after_seconds.is_some());

    let (status, body) = api
        .ask("PATCH", "/gateways/dmz", Some(json!({ "limit": 9 })))
        .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        uplink.hear().await,
        ToGateway::Limit(Limit { devices: Some(9) })
    );
    let policy = json!({ "enforce_secure_mode": false, "gateway_connections": 1 });
    assert_eq!(api.ask("PUT", "/policy", Some(policy)).await.0, 200);
    assert_eq!(
        uplink.hear().await,
        ToGateway::Limit(Limit { devices: Some(1) })
    );
    // The limit of all holds for another gateway too, which has no device yet.
    let other = Gateway::new(&api, "cloud", json!({})).await;
    let mut other_uplink = other.attached().await;
    let (number, _stream) = other_uplink.device_stream("198.51.100.8").await;
    let refusal = dropped(&mut other_uplink, number).await;
    assert_eq!(refusal.code, RefusalCode::ConnectionLimit);
}

#[tokio::test]
async fn a_device_that_was_just_taken_on_finds_room_for_its_link_at_the_limit() {
    let site = Site::new().await;
    let api = site.api().await;
    let gateway = Gateway::new(&api, "dmz", json!({ "limit": 1 })).await;
    let mut uplink = gateway.attached().await;
    let device = Device::new("A1");
    let key = api.key(json!({})).await;
    let (number, door) = uplink.door("198.51.100.7").await;
    let enrolling = device.connect_to(door, site.root()).await;
    device.enrol_on(enrolling, &key).await.expect("taken on");
    admitted(&mut uplink, number).await;
    let (_, _link) = through(&site, &mut uplink, &device).await.expect("welcome");
    let (second, _stream) = uplink.device_stream("198.51.100.8").await;
    let refusal = dropped(&mut uplink, second).await;
    assert_eq!(refusal.code, RefusalCode::ConnectionLimit);
}

#[tokio::test]
async fn a_probe_says_that_a_way_works_and_leaves_the_link_in_place() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_gateway, mut uplink) = attached(&site, &api).await;
    let (device, mut direct) = site.linked_device("A1").await;
    let (number, door) = uplink.door("198.51.100.7").await;
    let mut probe = device.connect_to(door, site.root()).await;
    probe.say(device.hello(Intent::Probe)).await;
    assert!(matches!(probe.hear().await, FromServer::Welcome(_)));
    admitted(&mut uplink, number).await;
    assert!(direct.is_quiet().await, "nobody took over");
    assert_eq!(api.get("/devices/A1").await["gateway"], Value::Null);
    let command = json!({ "action": "message", "text": "hello" });
    let given = api.ask("POST", "/devices/A1/commands", Some(command)).await;
    assert_eq!(given.0, 201);
    assert!(matches!(direct.hear().await, FromServer::Command(_)));
    probe
        .say(Goodbye {
            sentence: "It works.".into(),
            retry_after_seconds: None,
        })
        .await;
    assert!(probe.ends().await, "and nothing else was said");

    let stranger = Device::new("B9");
    let mut probe = stranger.connect(&site).await;
    probe.say(stranger.hello(Intent::Probe)).await;
    assert_eq!(probe.refusal().await.code, RefusalCode::UnknownDevice);
}

#[tokio::test]
async fn a_device_is_told_its_new_ways_and_keeps_a_way_back() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_gateway, mut uplink) = attached(&site, &api).await;
    let (device, mut direct) = site.linked_device("A1").await;
    let put = async |gateway: Value| {
        let body = Some(json!({ "gateway": gateway }));
        api.ask("PUT", "/devices/A1/gateway", body).await
    };
    let (status, body) = put(json!("dmz")).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(body["action"], "connectors");
    let ways = |message| match message {
        FromServer::Command(command) => match command.action {
            Action::Connectors { connectors } => connectors,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let told = ways(direct.hear().await);
    assert_eq!(told[0].kind, ConnectorKind::Icg);
    assert_eq!(told[0].address, "gw.example.com");
    assert!(told[0].roots.is_empty(), "the server's own root is known");
    assert_eq!(told.len(), 2);
    assert_eq!(told[1].kind, ConnectorKind::Ums);
    assert_eq!(told[1].port, site.address.port());
    let (status, _) = put(Value::Null).await;
    assert_eq!(status, 201, "it is linked directly");
    let told = ways(direct.hear().await);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].kind, ConnectorKind::Ums);

    let (_, _link) = through(&site, &mut uplink, &device).await.expect("welcome");
    let (status, body) = put(Value::Null).await;
    assert_eq!(status, 409);
    assert_eq!(body["code"], "device_not_direct");
    let (status, body) = put(json!("nowhere")).await;
    assert_eq!(status, 404, "{body}");
    let raw = json!({ "action": "connectors", "connectors": [] });
    let (status, _) = api.ask("POST", "/devices/A1/commands", Some(raw)).await;
    assert_eq!(status, 422, "ways are not given by hand");
    let audit = api.audit().await;
    for action in ["device.gateway_set", "device.gateway_removed"] {
        assert!(audit.contains(&(action.into(), "ok".into())), "{action}");
    }
}

#[tokio::test]
async fn a_gateway_with_a_chain_of_its_own_is_trusted_by_that_alone() {
    let site = Site::new().await;
    let api = site.api().await;
    let mut root = rcgen::CertificateParams::new(Vec::new()).expect("no names");
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let root_key = KeyPair::generate().expect("a key");
    let root_certificate = root.self_signed(&root_key).expect("signed");
    let issuer = rcgen::Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let end = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let end = end.signed_by(&key, &issuer).expect("signed");
    let chain = end.pem() + &root_certificate.pem();
    let own = umbra_carrier::tls::TlsIdentity::from_pem(&chain, &key.serialize_pem());
    let own = own.expect("a pair");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let wanted = json!({ "name": "own", "internal": address, "root": root_certificate.pem() });
    let (status, keystore) = api.ask("POST", "/gateways", Some(wanted)).await;
    assert_eq!(status, 201, "{keystore}");
    assert_eq!(keystore["key"], Value::Null);
    assert_eq!(keystore["chain"], Value::Null);
    let server = site.server.authority.uplink.certificate().clone();
    let gateway = Gateway::with("own", listener, &own, vec![server]);
    let _uplink = gateway.attached().await;
    let shown = api
        .until("/gateways/own", |gateway| gateway["attached"] == true)
        .await;
    assert_eq!(shown["certificate_until"], Value::Null);
    let (_, mut link) = site.linked_device("A1").await;
    let moved = Some(json!({ "gateway": "own" }));
    assert_eq!(api.ask("PUT", "/devices/A1/gateway", moved).await.0, 201);
    match link.hear().await {
        FromServer::Command(command) => match command.action {
            Action::Connectors { connectors } => assert_eq!(connectors[0].roots.len(), 1),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
    for bad in ["", "no PEM", &end.pem(), &key.serialize_pem()] {
        let wanted = json!({ "name": "bad", "internal": "gw", "root": bad });
        let (status, body) = api.ask("POST", "/gateways", Some(wanted)).await;
        assert_eq!(status, 422, "{bad}: {body}");
    }
}

#[tokio::test]
async fn somebody_elses_gateway_gets_no_word_and_the_trouble_is_told() {
    let site = Site::new().await;
    let api = site.api().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let wanted = json!({ "name": "dmz", "internal": address });
    assert_eq!(api.ask("POST", "/gateways", Some(wanted)).await.0, 201);
    let (impostor, _) = device_certificate("127.0.0.1", &KeyPair::generate().expect("a key"));
    let server = site.server.authority.uplink.certificate().clone();
    let gateway = Gateway::with("dmz", listener, &impostor, vec![server]);
    let seen = async {
        api.until("/gateways/dmz", |gateway| {
            let trouble = gateway["trouble"].as_str();
            trouble.is_some_and(|trouble| trouble.contains("reached"))
        })
        .await
    };
    let shown = tokio::select! {
        _ = gateway.uplink() => panic!("it was trusted"),
        shown = seen => shown,
    };
    assert_eq!(shown["attached"], false);
}

#[tokio::test]
async fn a_gateway_that_knows_another_server_refuses_this_one() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_, keystore) = {
        let wanted = json!({ "name": "dmz", "internal": "127.0.0.1:1" });
        api.ask("POST", "/gateways", Some(wanted)).await
    };
    let text = |name: &str| keystore[name].as_str().expect("a PEM").to_owned();
    let own = umbra_carrier::tls::TlsIdentity::from_pem(&text("chain"), &text("key"));
    let own = own.expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let (other, _) = device_certificate("other", &KeyPair::generate().expect("a key"));
    let gateway = Gateway::with("dmz", listener, &own, vec![other.certificate().clone()]);
    let change = Some(json!({ "internal": address }));
    assert_eq!(api.ask("PATCH", "/gateways/dmz", change).await.0, 200);
    assert!(!gateway.judges().await, "it shows its own certificate only");
    let shown = api.get("/gateways/dmz").await;
    assert_eq!(shown["attached"], false);
}

#[tokio::test]
async fn a_gateway_that_moves_or_goes_is_followed_at_once() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_gateway, mut uplink) = attached(&site, &api).await;
    let (status, keystore) = api.ask("POST", "/gateways/dmz/certificate", None).await;
    assert_eq!(status, 201, "{keystore}");
    let text = |name: &str| keystore[name].as_str().expect("a PEM").to_owned();
    let renewed = umbra_carrier::tls::TlsIdentity::from_pem(&text("chain"), &text("key"));
    let renewed = renewed.expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let server = site.server.authority.uplink.certificate().clone();
    let moved = Gateway::with("dmz", listener, &renewed, vec![server]);
    let change = Some(json!({ "internal": address }));
    assert_eq!(api.ask("PATCH", "/gateways/dmz", change).await.0, 200);
    let mut newer = moved.uplink().await;
    // It answers nothing so far: the old place does its service.
    let device = filed(&site, &api, "A1").await;
    let (_, mut link) = through(&site, &mut uplink, &device).await.expect("welcome");
    assert_eq!(api.get("/gateways/dmz").await["attached"], true);
    newer.attach().await;
    assert!(
        matches!(link.hear().await, FromServer::Goodbye(_)),
        "its devices are told to come back"
    );
    drop(link);
    assert!(uplink.ends().await, "the old place is left");
    let (_, _link) = through(&site, &mut newer, &device).await.expect("welcome");
    let shown = api.get("/gateways/dmz").await;
    assert_eq!(shown["attached"], true);
    assert_eq!(shown["trouble"], Value::Null);
    let mut uplink = newer;
    assert_eq!(api.ask("DELETE", "/gateways/dmz", None).await.0, 204);
    assert!(uplink.ends().await, "the server lets go");
    assert_eq!(api.get("/gateways").await, json!([]));
    let audit = api.audit().await;
    for action in [
        "gateway.changed",
        "gateway.certificate_made",
        "gateway.removed",
    ] {
        assert!(audit.contains(&(action.into(), "ok".into())), "{action}");
    }
}

#[tokio::test]
async fn a_gateway_whose_new_place_does_not_answer_stays_where_it_is_and_says_so() {
    let site = Site::new().await;
    let api = site.api().await;
    let (gateway, mut uplink) = attached(&site, &api).await;
    let device = filed(&site, &api, "A1").await;
    let (_, mut link) = through(&site, &mut uplink, &device).await.expect("welcome");
    let place = |port: u16| Some(json!({ "internal": format!("127.0.0.1:{port}") }));
    for port in [1, 2] {
        assert_eq!(api.ask("PATCH", "/gateways/dmz", place(port)).await.0, 200);
        let shown = api
            .until("/gateways/dmz", |gateway| gateway["trouble"].is_string())
            .await;
        assert_eq!(shown["attached"], true, "{shown}");
    }
    assert!(link.is_quiet().await, "nobody has to leave");
    // Lost now, the old place is not looked for again.
    uplink.closer.close_with(1001, "bye");
    api.until("/gateways/dmz", |gateway| gateway["attached"] == false)
        .await;
    let audit = eventually(async || {
        let audit = api.audit().await;
        let over = ("gateway.detached".into(), "ok".into());
        audit.contains(&over).then_some(audit)
    })
    .await;
    assert!(!audit.contains(&("gateway.lost".into(), "lost".into())));
    let back = place(gateway.address.port());
    assert_eq!(api.ask("PATCH", "/gateways/dmz", back).await.0, 200);
    let mut uplink = gateway.attached().await;
    let (_, _link) = through(&site, &mut uplink, &device).await.expect("welcome");
}

#[tokio::test]
async fn a_device_behind_a_gateway_hears_that_the_server_goes_down() {
    let site = Site::new().await;
    let api = site.api().await;
    let (_gateway, mut uplink) = attached(&site, &api).await;
    let device = filed(&site, &api, "A1").await;
    let (_, mut link) = through(&site, &mut uplink, &device).await.expect("welcome");
    let stop = tokio::spawn(site.stop());
    let FromServer::Goodbye(goodbye) = link.hear().await else {
        panic!("no goodbye");
    };
    assert!(goodbye.retry_after_seconds.is_some());
    drop(link);
    stop.await.expect("stops");
}

#[tokio::test]
async fn what_a_gateway_garbles_ends_the_uplink_and_nothing_else() {
    let site = Site::new().await;
    let api = site.api().await;
    let (gateway, mut uplink) = attached(&site, &api).await;
    let (_, mut direct) = site.linked_device("A1").await;
    // A type from a newer gateway is passed over.
    uplink.say_bytes(br#"{"type":"dance","steps":3}"#).await;
    let mut headless = uplink.stream().await;
    tokio::io::AsyncWriteExt::write_all(&mut headless, &u32::MAX.to_be_bytes())
        .await
        .expect("sent");
    let device = filed(&site, &api, "A2").await;
    let (_, _link) = through(&site, &mut uplink, &device).await.expect("welcome");
    uplink.say_bytes(b"{\"type\":\"pong\"").await;
    assert!(uplink.ends().await);
    drop(uplink);
    assert!(
        direct.is_quiet().await,
        "who is linked directly notices nothing"
    );
    let _again = gateway.attached().await;
    let trouble = eventually(async || {
        let shown = api.get("/gateways/dmz").await;
        (shown["attached"] == true).then_some(shown)
    })
    .await;
    assert_eq!(trouble["trouble"], Value::Null);
}
