//! A file from a stick: whatever is in it, what was read is written back in both forms and read again, and a refusal shows
//! nothing that moves a cursor.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_protocol::credentials::Credentials;

fuzz_target!(|data: &[u8]| {
    match Credentials::read(data) {
        Ok(credentials) => {
            assert!(!credentials.endpoints.is_empty());
            let (text, xml) = (credentials.to_text(), credentials.to_xml());
            assert_eq!(Credentials::from_text(&text).as_ref(), Ok(&credentials));
            assert_eq!(Credentials::from_xml(&xml).as_ref(), Ok(&credentials));
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
});
