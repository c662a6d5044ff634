//! What the device can check of a ticket by itself, before it asks its server: the signature, that it is for this device and this
//! certificate, and that it was not seen before. The device's clock has no say.

use std::collections::{HashSet, VecDeque};

use umbra_protocol::hello::TicketKey;
use umbra_protocol::ticket::{self, Ticket, TicketError};
use umbra_protocol::{DeviceId, Fingerprint, Refusal, RefusalCode};

/// How many tickets are remembered. Each came with the server's signature, and the server answers for each only once, so a
/// stranger can neither fill the memory nor use what it has forgotten.
const MEMORY: usize = 4_096;

/// Tickets that were presented.
#[derive(Debug, Default)]
pub struct Seen {
    order: VecDeque<[u8; 32]>,
    set: HashSet<[u8; 32]>,
}

impl Seen {
    /// Remembers a ticket by its nonce and session; `false` if it was there already.
    fn first_time(&mut self, ticket: &Ticket) -> bool {
        let mut text = ticket.session.to_string();
        text.push(' ');
        text.push_str(&ticket.nonce);
        let key = *Fingerprint::of_certificate(text.as_bytes()).as_bytes();
        if !self.set.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
        true
    }
}

/// Whom a ticket must be for.
#[derive(Clone, Copy, Debug)]
pub struct Bearer {
    /// This device.
    pub device: DeviceId,
    /// The certificate that this device presents.
    pub certificate: Fingerprint,
}

/// Checks a ticket; afterwards it counts as used, whatever comes of it.
pub fn check(
    compact: &str,
    keys: &[TicketKey],
    bearer: Bearer,
    seen: &mut Seen,
) -> Result<Ticket, Refusal> {
    let ticket = ticket::verify(compact, keys).map_err(|error| {
        let sentence = match error {
            TicketError::UnknownKey => {
                "The device does not know the key that the ticket is signed with; it may be linked to another server."
            }
            TicketError::TooLong
            | TicketError::Malformed
            | TicketError::Algorithm
            | TicketError::Signature => "The ticket is not one of this device's server.",
        };
        Refusal::new(RefusalCode::TicketInvalid, sentence)
    })?;
    if ticket.device != bearer.device || ticket.certificate != bearer.certificate {
        return Err(Refusal::new(
            RefusalCode::TicketForOtherDevice,
            "The ticket is for another device, or for an earlier certificate of this one.",
        ));
    }
    if !seen.first_time(&ticket) {
        return Err(Refusal::new(
            RefusalCode::TicketUsed,
            "The ticket was used before; ask the server for a new session.",
        ));
    }
    Ok(ticket)
}

#[cfg(test)]
mod tests {
    use umbra_protocol::SessionId;
    use umbra_protocol::session::Permissions;
    use umbra_protocol::ticket::TicketSigner;

    use super::*;

    const BEARER: Bearer = Bearer {
        device: DeviceId::from_bytes([2; 32]),
        certificate: Fingerprint::from_bytes([3; 32]),
    };

    fn ticket(nonce: usize) -> Ticket {
        Ticket {
            session: SessionId::from_bytes([1; 16]),
            device: BEARER.device,
            certificate: BEARER.certificate,
            operator: "Ada".into(),
            permissions: Permissions {
                control: true,
                clipboard: true,
            },
            nonce: format!("{nonce:032x}"),
            iat: 0,
            exp: 1,
        }
    }

    fn code(result: Result<Ticket, Refusal>) -> RefusalCode {
        result.expect_err("refused").code
    }

    #[test]
    fn a_ticket_is_good_once_and_only_for_this_device_and_certificate() {
        let (signer, _) = TicketSigner::generate();
        let keys = [signer.public()];
        let mut seen = Seen::default();
        let compact = signer.sign(&ticket(1));
        assert_eq!(check(&compact, &keys, BEARER, &mut seen), Ok(ticket(1)));
        assert_eq!(
            code(check(&compact, &keys, BEARER, &mut seen)),
            RefusalCode::TicketUsed
        );
        let elsewhere = [
            Bearer {
                device: DeviceId::from_bytes([9; 32]),
                ..BEARER
            },
            Bearer {
                certificate: Fingerprint::from_bytes([9; 32]),
                ..BEARER
            },
        ];
        for bearer in elsewhere {
            let compact = signer.sign(&ticket(2));
            assert_eq!(
                code(check(&compact, &keys, bearer, &mut seen)),
                RefusalCode::TicketForOtherDevice
            );
        }
        assert!(check(&signer.sign(&ticket(2)), &keys, BEARER, &mut seen).is_ok());
    }

    #[test]
    fn a_ticket_of_another_server_is_refused_and_not_remembered() {
        let (server, _) = TicketSigner::generate();
        let (stranger, _) = TicketSigner::generate();
        let mut seen = Seen::default();
        let forged = stranger.sign(&ticket(1));
        assert_eq!(
            code(check(&forged, &[server.public()], BEARER, &mut seen)),
            RefusalCode::TicketInvalid
        );
        assert!(
            check(
                &server.sign(&ticket(1)),
                &[server.public()],
                BEARER,
                &mut seen
            )
            .is_ok()
        );
    }

    #[test]
    fn the_memory_of_tickets_is_bounded() {
        let mut seen = Seen::default();
        for nonce in 0..MEMORY + 50 {
            assert!(seen.first_time(&ticket(nonce)));
        }
        assert_eq!(seen.set.len(), MEMORY);
        assert_eq!(seen.order.len(), MEMORY);
        assert!(!seen.first_time(&ticket(MEMORY)));
    }
}
