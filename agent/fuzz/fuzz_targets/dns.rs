//! What DNS servers answer, what a gateway's record says, and what resolv.conf says. The first byte chooses the question. What holds:
//! every name and text that is read is bounded and can be asked for; a record that names a gateway reads back; a refusal shows
//! nothing that moves a cursor; and a question is only made of a name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_agent::discovery::fuzzing::{dns_answer, dns_question, gateway_record, hosts, is_name, resolv_conf};
use umbra_carrier::address::HostPort;

const RECORDS: usize = 64;

fuzz_target!(|data: &[u8]| {
    let Some((&kind, message)) = data.split_first() else { return };
    if let Some(records) = dns_answer(message, kind, RECORDS) {
        assert!(records.len() <= RECORDS);
        for record in records {
            assert!(is_name(&record.owner), "{:?}", record.owner);
            assert!(record.alias.as_ref().is_none_or(|alias| is_name(alias)));
            assert!(record.text.as_ref().is_none_or(|text| text.len() < message.len()));
            let said = [record.text.is_some(), record.address.is_some(), record.alias.is_some()];
            assert_eq!(said.iter().filter(|said| **said).count(), 1);
            assert!(record.address.is_none_or(|address| address.is_ipv4() == (kind % 3 == 1)));
            assert!(record.text.is_none() || kind % 3 == 0);
            if let Some(text) = record.text {
                record_reads(&text);
            }
        }
    }
    record_reads(message);
    if let Ok(text) = std::str::from_utf8(message) {
        let (servers, search) = resolv_conf(text);
        assert!(servers <= 3 && search <= 4);
        // Whatever stands before it, a line of ours counts.
        let ours = "192.0.2.1".parse().expect("an address");
        assert!(hosts(&format!("{text}\n192.0.2.1 ums.example"), "UMS.example").contains(&ours));
        if let Some(question) = dns_question(text, kind) {
            assert!(question.len() <= 12 + 255 + 4);
            if is_name(text) {
                // An answer that holds the question and nothing else reads.
                assert_eq!(dns_answer(&question, kind, RECORDS), Some(Vec::new()), "{text}");
            }
        }
    }
});

fn record_reads(text: &[u8]) {
    let (alone, among_others) = gateway_record(text);
    assert!(among_others.is_none_or(|among| among == alone));
    match alone {
        Ok(address) => assert_eq!(HostPort::parse(&address.to_string(), 1), Ok(address)),
        Err(sentence) => assert!(!sentence.chars().any(char::is_control) && sentence.len() < 2_048, "{sentence:?}"),
    }
}
