//! Credentials as they come out of editors, mails and sticks.

use super::*;

fn credentials() -> Credentials {
    let endpoint = |host: &str, byte| Endpoint {
        host: host.into(),
        port: 8443,
        root_fingerprint: Fingerprint::from_bytes([byte; 32]),
    };
    Credentials {
        endpoints: vec![
            endpoint("ums.example.com", 0xab),
            endpoint("10.0.0.1", 0x01),
        ],
        key: FirstAuthKey::parse("ABCDEFGHJKMNPQRSTVWX").expect("a key"),
    }
}

#[test]
fn the_text_has_the_fields_layout_and_reads_back() {
    let text = credentials().to_text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[2..6],
        [
            "Host: ums.example.com",
            "Port: 8443",
            "Root Certificate Fingerprint",
            "Part 1: ABABABABABABABAB"
        ]
    );
    assert!(text.contains("First-authentication key:\nABCDE-FGHJK-MNPQR-STVWX\n"));
    assert_eq!(Credentials::from_text(&text), Ok(credentials()));
    assert_eq!(
        Credentials::from_text(&text.replace('\n', "\r\n  ")),
        Ok(credentials())
    );
}
