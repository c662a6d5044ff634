//! Tickets that are presented to a device: good ones, of other devices, of other servers, used ones, and altered ones. What holds: a
//! ticket is taken exactly once, only with the server's signature, and only by the device and for the certificate that it names.
#![no_main]

use std::collections::BTreeSet;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_agent::session::tickets::{Bearer, Seen, check};
use umbra_protocol::session::Permissions;
use umbra_protocol::ticket::{Ticket, TicketSigner};
use umbra_protocol::{DeviceId, Fingerprint, RefusalCode, SessionId};

#[derive(Arbitrary, Debug)]
struct Step {
    session: u8,
    nonce: u8,
    other_device: bool,
    other_certificate: bool,
    other_server: bool,
    bend: Option<(u16, u8)>,
    raw: Option<String>,
}

fn signers() -> &'static [TicketSigner; 2] {
    static SIGNERS: OnceLock<[TicketSigner; 2]> = OnceLock::new();
    SIGNERS.get_or_init(|| [TicketSigner::generate().0, TicketSigner::generate().0])
}

fuzz_target!(|steps: Vec<Step>| {
    let bearer = Bearer { device: DeviceId::from_bytes([2; 32]), certificate: Fingerprint::from_bytes([3; 32]) };
    let keys = [signers()[0].public()];
    let mut seen = Seen::default();
    let mut used: BTreeSet<(u8, u8)> = BTreeSet::new();
    for step in steps.iter().take(64) {
        let ticket = Ticket {
            session: SessionId::from_bytes([step.session % 4; 16]),
            device: DeviceId::from_bytes([if step.other_device { 9 } else { 2 }; 32]),
            certificate: Fingerprint::from_bytes([if step.other_certificate { 9 } else { 3 }; 32]),
            operator: "Ada".into(),
            permissions: Permissions { control: true, clipboard: true },
            nonce: format!("{:032x}", step.nonce % 8),
            iat: 0,
            exp: 60,
        };
        let good = signers()[usize::from(step.other_server)].sign(&ticket);
        let mut shown = good.clone();
        if let Some((at, byte)) = step.bend {
            let at = usize::from(at) % shown.len();
            let byte = char::from(b'!' + byte % 90).to_string();
            shown.replace_range(at..=at, &byte);
        }
        if let Some(raw) = &step.raw {
            shown.clone_from(raw);
        }
        let number = (step.session % 4, step.nonce % 8);
        match check(&shown, &keys, bearer, &mut seen) {
            Ok(taken) => {
                assert_eq!(taken, ticket, "another ticket than was signed");
                assert!(!step.other_server && !step.other_device && !step.other_certificate);
                // Base64 without padding has spare bits at its end only where a decoder lets them pass.
                assert_eq!(shown, good, "an altered ticket was taken");
                assert!(used.insert(number), "taken twice");
            }
            Err(refusal) => {
                assert!(!refusal.sentence.chars().any(char::is_control));
                if shown == good && !step.other_server && !step.other_device && !step.other_certificate {
                    assert!(refusal.code == RefusalCode::TicketUsed && used.contains(&number), "a good ticket is refused");
                }
            }
        }
    }
});
