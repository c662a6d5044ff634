//! The golden files of credentials: what is written is these bytes, and these bytes read back as what was written. A changed
//! file means that files out in the field, on sticks and in mails, may no longer be read: raise the version then.

use std::path::PathBuf;

use umbra_protocol::Fingerprint;
use umbra_protocol::credentials::{Credentials, Endpoint};
use umbra_protocol::first_auth::FirstAuthKey;

fn endpoint(host: &str, port: u16, first: u8) -> Endpoint {
    let mut bytes = [0; 32];
    for (byte, value) in bytes.iter_mut().zip(first..) {
        *byte = value;
    }
    Endpoint {
        host: host.to_owned(),
        port,
        root_fingerprint: Fingerprint::from_bytes(bytes),
    }
}

fn samples() -> [(&'static str, Credentials); 2] {
    let key = |text| FirstAuthKey::parse(text).expect("a key");
    [
        (
            "icg",
            Credentials {
                endpoints: vec![
                    endpoint("gw.example.com", 8443, 0xa0),
                    endpoint("203.0.113.5", 443, 0x10),
                    endpoint("2001:db8::1", 8443, 0x10),
                ],
                key: key("ABCDE-FGHJK-MNPQR-STVWX"),
            },
        ),
        (
            "chosen-key",
            Credentials {
                endpoints: vec![endpoint("ums.example.com", 8443, 0x00)],
                key: key("R&D <2026> \"Host:\" 'ok'"),
            },
        ),
    ]
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/credentials")).join(name)
}

fn same(name: &str, written: &str, read: impl Fn(&str) -> Credentials, wanted: &Credentials) {
    let path = golden(name);
    if std::env::var_os("UMBRA_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, written).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(&path).expect("the file is there");
    assert_eq!(kept, written, "{name}");
    assert_eq!(read(&kept), *wanted, "{name}");
    assert_eq!(
        Credentials::read(kept.as_bytes()).as_ref(),
        Ok(wanted),
        "{name}"
    );
}

#[test]
fn every_golden_file_is_read_and_written_byte_for_byte() {
    for (name, wanted) in samples() {
        let text = |text: &str| Credentials::from_text(text).expect("reads");
        let xml = |xml: &str| Credentials::from_xml(xml).expect("reads");
        same(&format!("{name}.txt"), &wanted.to_text(), text, &wanted);
        same(&format!("{name}.xml"), &wanted.to_xml(), xml, &wanted);
    }
}
