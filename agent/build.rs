//! Tells the program when it was built: the earliest moment that its device's clock can truly show. `SOURCE_DATE_EPOCH`
//! decides where it is set, so that the same source gives the same binary.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
    let told = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .and_then(|text| text.parse::<u64>().ok());
    let seconds = told.unwrap_or_else(|| {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
    });
    println!("cargo:rustc-env=UMBRA_BUILD_DATE={seconds}");
}
