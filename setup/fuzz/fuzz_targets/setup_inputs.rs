//! What a face says, what is typed as an address, and the progress on the disk: it reads or it does not, what reads writes back to
//! the same value, and whatever reads is taken by the assistant.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use umbra_setup::address::Typed;
use umbra_setup::{Event, Input, Language, Machine, PROGRESS_VERSION, Progress, Rules, Start, View};

fuzz_target!(|data: &[u8]| {
    let now = Duration::from_secs(1);
    let (mut machine, _) = Machine::new(Start::Fresh(Language::En), Rules::default(), now);
    for line in data.split(|byte| *byte == b'\n').take(32) {
        if let Ok(input) = serde_json::from_slice::<Input>(line) {
            let written = serde_json::to_vec(&input).expect("writes");
            assert_eq!(serde_json::from_slice::<Input>(&written).ok().as_ref(), Some(&input));
            machine.handle(Event::Input(input), now);
            let view = machine.view(now);
            let written = serde_json::to_vec(&view).expect("writes");
            assert_eq!(serde_json::from_slice::<View>(&written).ok(), Some(view));
        }
        if let Ok(progress) = serde_json::from_slice::<Progress>(line) {
            let written = serde_json::to_vec(&progress).expect("writes");
            assert_eq!(serde_json::from_slice::<Progress>(&written).ok().as_ref(), Some(&progress));
            if progress.version == PROGRESS_VERSION {
                let (machine, _) = Machine::new(Start::Resume(progress), Rules::default(), now);
                let _ = machine.view(now);
            }
        }
        let Ok(text) = std::str::from_utf8(line) else { continue };
        match Typed::read(text) {
            Ok(Typed::Address(address)) => {
                assert!(!address.host.is_empty() && address.port > 0);
                let shown = address.to_string();
                assert!(!shown.chars().any(char::is_control));
                assert_eq!(Typed::read(&shown), Ok(Typed::Address(address)), "{text:?} is shown as {shown:?}");
            }
            Ok(Typed::Mail(domain)) => {
                assert!(domain.contains('.') && domain.is_ascii());
                assert_eq!(Typed::read(&format!("a@{domain}")), Ok(Typed::Mail(domain)));
            }
            Err(_) => {}
        }
    }
});
