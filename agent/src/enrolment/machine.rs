//! The conversation of enrolment, step by step: each step is consumed to make the next, so that nothing that the server says is
//! believed before the step that checks it. No socket, no clock, no file.

use umbra_protocol::enrolment::{Challenge, Enrol, Enrolled};
use umbra_protocol::first_auth::{FirstAuthKey, Stretched, Transcript};
use umbra_protocol::ids::{from_hex, to_hex};
use umbra_protocol::{DeviceId, FromServer, Refusal, UnitId, limits, version};

/// Why the conversation ended without a result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversationError {
    /// The server refused, with a code.
    #[error("{0}")]
    Refused(Refusal),
    /// The server does not know the key either: it is not the server that the key is from.
    #[error(
        "the server could not prove that it knows the first-authentication key, so this device does not trust it; \
         make sure that address, fingerprint and key are from the same server"
    )]
    ServerNotProven,
    /// The server breaks the rules.
    #[error("the server does not keep to the protocol: {0}")]
    Protocol(String),
}

/// What the device brings.
pub struct Candidate {
    /// The first-authentication key.
    pub key: FirstAuthKey,
    /// The label that people read.
    pub unit_id: UnitId,
    /// The device's ID.
    pub device_id: DeviceId,
    /// The certificate that the device presented on this connection, DER.
    pub certificate: Vec<u8>,
    /// 32 bytes from this connection's TLS exporter.
    pub exporter: [u8; 32],
    /// 32 fresh random bytes.
    pub nonce: [u8; 32],
}

/// The hello was sent; a challenge is expected.
pub struct ExpectChallenge {
    candidate: Candidate,
}

/// The proof was sent; an answer is expected.
pub struct ExpectEnrolled {
    stretched: Stretched,
    transcript: Transcript,
    device_id: DeviceId,
}

impl ExpectChallenge {
    /// After the hello.
    pub fn new(candidate: Candidate) -> Self {
        Self { candidate }
    }

    /// Takes the server's answer to the hello. Stretching the key takes a while (up to a second): call it where that is allowed.
    pub fn take(self, frame: FromServer) -> Result<(Enrol, ExpectEnrolled), ConversationError> {
        let FromServer::Challenge(challenge) = frame else {
            return Err(unexpected(frame, "a challenge"));
        };
        self.answer(&challenge)
    }

    fn answer(self, challenge: &Challenge) -> Result<(Enrol, ExpectEnrolled), ConversationError> {
        let protocol = |text: &str| ConversationError::Protocol(text.to_owned());
        if !version::SUPPORTED.contains(&challenge.version) {
            return Err(ConversationError::Protocol(format!(
                "it wants to speak version {}, which this device did not offer",
                challenge.version
            )));
        }
        // Fewer rounds would make the key cheap to guess for whoever sees the proof, more would hold the device up.
        if !limits::STRETCH_ROUNDS.contains(&challenge.rounds) {
            return Err(protocol(
                "it asks for a number of stretching rounds that is not accepted",
            ));
        }
        let salt =
            from_hex::<16>(&challenge.salt).ok_or_else(|| protocol("its salt cannot be read"))?;
        let candidate = self.candidate;
        let stretched = candidate.key.stretch(&salt, challenge.rounds);
        let key_id = stretched.key_id();
        let nonce = to_hex(&candidate.nonce);
        let transcript = Transcript::new(
            &candidate.exporter,
            &candidate.certificate,
            key_id,
            &candidate.unit_id,
            &challenge.nonce,
            &nonce,
        );
        let enrol = Enrol {
            key_id,
            proof: stretched.client_proof(&transcript),
            nonce,
        };
        let next = ExpectEnrolled {
            stretched,
            transcript,
            device_id: candidate.device_id,
        };
        Ok((enrol, next))
    }
}

impl ExpectEnrolled {
    /// Takes the server's answer to the proof. What it returns comes from a server that knows the key.
    pub fn take(self, frame: FromServer) -> Result<Enrolled, ConversationError> {
        let FromServer::Enrolled(enrolled) = frame else {
            return Err(unexpected(frame, "the end of the enrolment"));
        };
        if !self
            .stretched
            .server_proof_is_right(&enrolled.proof, &self.transcript)
        {
            return Err(ConversationError::ServerNotProven);
        }
        let protocol = |text: &str| Err(ConversationError::Protocol(text.to_owned()));
        if enrolled.device_id != self.device_id {
            return protocol("it filed another device than this one");
        }
        if enrolled.anchors.roots.is_empty() {
            return protocol("it names no root certificate");
        }
        if enrolled.anchors.ticket_keys.is_empty() {
            return protocol("it names no key that signs session tickets");
        }
        Ok(enrolled)
    }
}

/// Anything but the message that was expected; a refusal or a goodbye speaks for itself.
fn unexpected(frame: FromServer, expected: &str) -> ConversationError {
    match frame {
        FromServer::Refusal(refusal) => ConversationError::Refused(refusal),
        FromServer::Goodbye(goodbye) => ConversationError::Refused(Refusal {
            code: umbra_protocol::RefusalCode::ShuttingDown,
            sentence: goodbye.sentence,
            retry_after_seconds: goodbye.retry_after_seconds,
        }),
        other @ (FromServer::Challenge(_)
        | FromServer::Enrolled(_)
        | FromServer::Welcome(_)
        | FromServer::Pong(_)
        | FromServer::Ping(_)
        | FromServer::Settings(_)
        | FromServer::Command(_)
        | FromServer::ResultFiled(_)
        | FromServer::SessionRequest(_)
        | FromServer::SessionTunnel(_)
        | FromServer::SessionVerdict(_)
        | FromServer::SessionEnd(_)
        | FromServer::RecordFiled(_)
        | FromServer::Anchors(_)
        | FromServer::CertificateFiled(_)
        | FromServer::Left(_)) => ConversationError::Protocol(format!(
            "it said “{}” where {expected} was expected",
            other.kind()
        )),
    }
}

#[cfg(test)]
mod tests {
    use umbra_protocol::RefusalCode;
    use umbra_protocol::first_auth::Verifier;
    use umbra_protocol::hello::{TicketKey, TrustAnchors};
    use umbra_protocol::link::Beat;

    use super::*;

    const SALT: [u8; 16] = [3; 16];
    const ROUNDS: u32 = 10_000;
    const EXPORTER: [u8; 32] = [9; 32];

    fn key() -> FirstAuthKey {
        FirstAuthKey::parse("AB3DE-FGHJK-MNPQR-STVWX").expect("a key")
    }

    fn candidate() -> Candidate {
        Candidate {
            key: key(),
            unit_id: "00E0C5A1B2C3".parse().expect("a unit ID"),
            device_id: DeviceId::from_bytes([2; 32]),
            certificate: b"certificate".to_vec(),
            exporter: EXPORTER,
            nonce: [5; 32],
        }
    }

    fn challenge() -> Challenge {
        Challenge {
            version: 1,
            nonce: "ab".repeat(32),
            salt: to_hex(&SALT),
            rounds: ROUNDS,
        }
    }

    /// What a server does with the proof, on a connection with this exporter.
    fn answer(verifier: &Verifier, exporter: &[u8; 32], enrol: &Enrol) -> (bool, Enrolled) {
        let candidate = candidate();
        let transcript = Transcript::new(
            exporter,
            &candidate.certificate,
            enrol.key_id,
            &candidate.unit_id,
            &challenge().nonce,
            &enrol.nonce,
        );
        let right = verifier.client_proof_is_right(&enrol.proof, &transcript);
        let enrolled = Enrolled {
            proof: verifier.server_proof(&transcript),
            device_id: candidate.device_id,
            device_name: "Reception".into(),
            anchors: TrustAnchors {
                roots: vec!["pem".into()],
                ticket_keys: vec![TicketKey {
                    kid: "k".into(),
                    ed25519: "00".repeat(32),
                }],
            },
            connectors: Vec::new(),
        };
        (right, enrolled)
    }

    fn proven() -> (Enrol, ExpectEnrolled, Verifier) {
        let (enrol, next) = ExpectChallenge::new(candidate())
            .take(challenge().into())
            .expect("a proof");
        (enrol, next, key().stretch(&SALT, ROUNDS).verifier())
    }

    fn error<T>(result: Result<T, ConversationError>) -> ConversationError {
        match result {
            Ok(_) => panic!("it was believed"),
            Err(error) => error,
        }
    }

    #[test]
    fn both_convince_each_other_and_the_device_is_taken_on() {
        let (enrol, next, server) = proven();
        let (right, enrolled) = answer(&server, &EXPORTER, &enrol);
        assert!(right);
        assert_eq!(next.take(enrolled.clone().into()), Ok(enrolled));
    }

    #[test]
    fn a_server_that_does_not_know_the_key_is_not_believed() {
        let (enrol, next, _) = proven();
        let stranger = FirstAuthKey::parse("AB3DE-FGHJK-MNPQR-STVWY").expect("a key");
        let (_, enrolled) = answer(
            &stranger.stretch(&SALT, ROUNDS).verifier(),
            &EXPORTER,
            &enrol,
        );
        assert_eq!(
            error(next.take(enrolled.into())),
            ConversationError::ServerNotProven
        );
    }

    #[test]
    fn somebody_in_between_who_passes_messages_on_convinces_neither_side() {
        let (enrol, next, server) = proven();
        let (right, enrolled) = answer(&server, &[8; 32], &enrol);
        assert!(!right, "the server took a proof from another connection");
        assert_eq!(
            error(next.take(enrolled.into())),
            ConversationError::ServerNotProven
        );
    }

    #[test]
    fn too_few_and_too_many_rounds_are_refused_before_the_key_is_touched() {
        for rounds in [
            0,
            1,
            *limits::STRETCH_ROUNDS.start() - 1,
            *limits::STRETCH_ROUNDS.end() + 1,
            u32::MAX,
        ] {
            let asked = Challenge {
                rounds,
                ..challenge()
            };
            let refused = error(ExpectChallenge::new(candidate()).take(asked.into()));
            assert!(
                refused.to_string().contains("rounds"),
                "{rounds}: {refused}"
            );
        }
    }

    #[test]
    fn a_refusal_comes_through_with_its_code() {
        let refusal = Refusal::new(RefusalCode::KeyUsed, "This key was used before.");
        let (_, next, _) = proven();
        assert_eq!(
            error(next.take(refusal.clone().into())),
            ConversationError::Refused(refusal)
        );
    }

    #[test]
    fn what_does_not_fit_the_step_is_named_with_what_was_expected() {
        let refused = error(ExpectChallenge::new(candidate()).take(Beat { number: 1 }.into()));
        let ConversationError::Protocol(text) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            text.contains("pong") && text.contains("challenge"),
            "{text}"
        );
        let (enrol, _, server) = proven();
        let (_, early) = answer(&server, &EXPORTER, &enrol);
        let refused = error(ExpectChallenge::new(candidate()).take(early.into()));
        assert!(refused.to_string().contains("enrolled"), "{refused}");
    }

    #[test]
    fn another_device_no_roots_or_no_ticket_keys_are_refused_even_from_the_right_server() {
        let damages: [fn(&mut Enrolled); 3] = [
            |enrolled| enrolled.device_id = DeviceId::from_bytes([1; 32]),
            |enrolled| enrolled.anchors.roots.clear(),
            |enrolled| enrolled.anchors.ticket_keys.clear(),
        ];
        for (index, damage) in damages.into_iter().enumerate() {
            let (enrol, next, server) = proven();
            let (_, mut enrolled) = answer(&server, &EXPORTER, &enrol);
            damage(&mut enrolled);
            let refused = error(next.take(enrolled.into()));
            assert!(
                matches!(refused, ConversationError::Protocol(_)),
                "{index}: {refused:?}"
            );
        }
    }
}
