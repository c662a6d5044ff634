//! Whatever a person types or pastes: fingerprints, keys, unit IDs and host names read back what they print, and show nothing
//! that moves a cursor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_protocol::credentials::{Credentials, shown_host};
use umbra_protocol::first_auth::FirstAuthKey;
use umbra_protocol::{Fingerprint, UnitId};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(fingerprint) = text.parse::<Fingerprint>() {
        assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        assert!(fingerprint.part_is(2, &fingerprint.parts()[2]));
    }
    if let Ok(unit) = text.parse::<UnitId>() {
        assert_eq!(unit.as_str().parse(), Ok(unit));
    }
    if let Ok(key) = FirstAuthKey::parse(text) {
        assert_eq!(FirstAuthKey::parse(key.for_person().reveal()), Ok(key));
    }
    if let Ok(credentials) = Credentials::from_text(text) {
        assert_eq!(Credentials::from_text(&credentials.to_text()), Ok(credentials));
    }
    assert!(!shown_host(text).contains(char::is_control));
});
