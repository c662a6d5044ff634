//! Any viewer's messages under any policy: what passes is the same in all slices, and a second filter with the same policy finds nothing
//! more to take out of it. The first byte chooses policy and slices.
#![no_main]

use libfuzzer_sys::fuzz_target;
use umbra_vnc_proxy::input_filter::{InputFilter, Policy};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let policy = Policy {
        keyboard_and_pointer: choice & 1 != 0,
        clipboard: choice & 2 != 0,
    };
    let slice = usize::from(choice >> 2) + 1;

    let mut whole = Vec::new();
    let result = InputFilter::new(policy).feed(bytes, &mut whole);
    assert!(whole.len() <= bytes.len());

    let mut sliced = Vec::new();
    let mut filter = InputFilter::new(policy);
    let sliced_result = bytes
        .chunks(slice)
        .try_for_each(|chunk| filter.feed(chunk, &mut sliced));
    assert_eq!((&whole, result), (&sliced, sliced_result));

    let mut again = Vec::new();
    let mut filter = InputFilter::new(policy);
    assert_eq!(filter.feed(&whole, &mut again), Ok(()));
    assert_eq!(filter.dropped(), 0, "something forbidden had passed");
    assert!(whole.starts_with(&again));
});
