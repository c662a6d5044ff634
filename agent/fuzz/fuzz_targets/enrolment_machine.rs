//! The conversation of enrolment with a server that may be right, wrong, hostile or in between. What holds: the device is taken on
//! exactly if that server knows the key, speaks on the same connection, and says nothing that it must not; whatever else it says
//! ends in one error without a character that moves a cursor more than the server's own sentence; and the key is stretched as often
//! as is accepted, or not at all.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_agent::enrolment::machine::{Candidate, ConversationError, ExpectChallenge};
use umbra_protocol::enrolment::{Challenge, Enrol, Enrolled};
use umbra_protocol::first_auth::{FirstAuthKey, Transcript};
use umbra_protocol::hello::{TicketKey, TrustAnchors};
use umbra_protocol::link::{Beat, Goodbye};
use umbra_protocol::{DeviceId, FromServer, Refusal, RefusalCode, UnitId};

const SALT: [u8; 16] = [3; 16];
/// The fewest that are accepted: the proof is what is tried here, and not patience.
const ROUNDS: u32 = 10_000;

#[derive(Arbitrary, Debug)]
struct Run {
    version: Option<u16>,
    rounds: Option<u32>,
    salt: Option<String>,
    instead_of_challenge: Option<Instead>,
    instead_of_end: Option<Instead>,
    knows_the_key: bool,
    same_connection: bool,
    same_device: bool,
    roots: u8,
    ticket_keys: u8,
    bend_proof: Option<u8>,
}

#[derive(Arbitrary, Debug)]
enum Instead {
    Refused(u8, String),
    Goodbye(String),
    Pong,
    Early,
    Challenge,
}

fn key(text: &str) -> FirstAuthKey {
    FirstAuthKey::parse(text).expect("a key")
}

fn unit() -> UnitId {
    "00E0C5A1B2C3".parse().expect("a unit ID")
}

fn instead(what: &Instead) -> FromServer {
    match what {
        Instead::Refused(code, sentence) => {
            let code = RefusalCode::ALL[usize::from(*code) % RefusalCode::ALL.len()];
            Refusal::new(code, sentence.clone()).into()
        }
        Instead::Goodbye(sentence) => Goodbye { sentence: sentence.clone(), retry_after_seconds: None }.into(),
        Instead::Pong => Beat { number: 1 }.into(),
        Instead::Early => enrolled(String::new(), true, 1, 1).into(),
        Instead::Challenge => challenge(ROUNDS).into(),
    }
}

fn challenge(rounds: u32) -> Challenge {
    Challenge { version: 1, nonce: "ab".repeat(32), salt: "03".repeat(16), rounds }
}

fn enrolled(proof: String, same_device: bool, roots: u8, ticket_keys: u8) -> Enrolled {
    let ticket_key = TicketKey { kid: "k".into(), ed25519: "00".repeat(32) };
    Enrolled {
        proof,
        device_id: DeviceId::from_bytes([if same_device { 2 } else { 1 }; 32]),
        device_name: "Till".into(),
        anchors: TrustAnchors {
            roots: vec!["pem".into(); usize::from(roots % 3)],
            ticket_keys: vec![ticket_key; usize::from(ticket_keys % 3)],
        },
        connectors: Vec::new(),
    }
}

/// What the server computes, with what it knows.
fn proof(run: &Run, enrol: &Enrol) -> String {
    let known = if run.knows_the_key { "AB3DE-FGHJK-MNPQR-STVWX" } else { "AB3DE-FGHJK-MNPQR-STVWY" };
    let verifier = key(known).stretch(&SALT, ROUNDS).verifier();
    let exporter = [if run.same_connection { 9 } else { 8 }; 32];
    let transcript = Transcript::new(
        &exporter,
        b"certificate",
        enrol.key_id,
        &unit(),
        &challenge(ROUNDS).nonce,
        &enrol.nonce,
    );
    let right = verifier.client_proof_is_right(&enrol.proof, &transcript);
    assert_eq!(right, run.knows_the_key && run.same_connection, "the device's proof binds neither key nor connection");
    let mut proof = verifier.server_proof(&transcript);
    if let Some(at) = run.bend_proof {
        let at = usize::from(at) % proof.len();
        let other = if &proof[at..=at] == "0" { "1" } else { "0" };
        proof.replace_range(at..=at, other);
    }
    proof
}

fuzz_target!(|run: Run| {
    let candidate = Candidate {
        key: key("AB3DE-FGHJK-MNPQR-STVWX"),
        unit_id: unit(),
        device_id: DeviceId::from_bytes([2; 32]),
        certificate: b"certificate".to_vec(),
        exporter: [9; 32],
        nonce: [5; 32],
    };
    let first = match &run.instead_of_challenge {
        Some(what) => instead(what),
        None => {
            let mut asked = challenge(run.rounds.unwrap_or(ROUNDS));
            // More would be accepted, and take seconds.
            if (ROUNDS + 1..=1_000_000).contains(&asked.rounds) {
                asked.rounds = ROUNDS;
            }
            asked.version = run.version.unwrap_or(1);
            asked.salt = run.salt.clone().unwrap_or(asked.salt);
            asked.into()
        }
    };
    let asked = if let FromServer::Challenge(challenge) = &first { Some(challenge.clone()) } else { None };
    let (enrol, next) = match ExpectChallenge::new(candidate).take(first) {
        Ok(answered) => answered,
        Err(error) => return told(&error),
    };
    let asked = asked.expect("an answer to what was no challenge");
    assert!(asked.version == 1 && asked.rounds == ROUNDS && asked.salt.len() == 32);
    assert!(!format!("{enrol:?}").contains("AB3DE"));
    if asked.salt != "03".repeat(16) {
        return;
    }
    let proof = proof(&run, &enrol);
    let last = match &run.instead_of_end {
        Some(what) => instead(what),
        None => enrolled(proof, run.same_device, run.roots, run.ticket_keys).into(),
    };
    let right = run.instead_of_end.is_none()
        && run.knows_the_key
        && run.same_connection
        && run.bend_proof.is_none()
        && run.same_device
        && run.roots % 3 > 0
        && run.ticket_keys % 3 > 0;
    match next.take(last) {
        Ok(enrolled) => assert!(right, "taken on by a server that must not: {enrolled:?}"),
        Err(error) => {
            assert!(!right, "the right server is not believed: {error}");
            told(&error);
        }
    }
});

fn told(error: &ConversationError) {
    if let ConversationError::Protocol(text) = error {
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
}
