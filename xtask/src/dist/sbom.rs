//! The list of parts that goes with a binary, as CycloneDX 1.5 in JSON. The same binary always has the same list: it names
//! no time and no machine, and its serial number is derived from what it says.

use serde_json::{Value, json};

use super::crates::{Crate, PACKAGE, Source};
use super::sha256;
use super::target::Target;

/// What is known of a binary beside its crates.
pub(crate) struct About<'a> {
    pub(crate) target: Target,
    /// SHA-256 of the file.
    pub(crate) sum: &'a str,
    /// What the compiler says of itself, and what linked.
    pub(crate) compiler: &'a str,
    pub(crate) linker: &'a str,
}

/// The whole document.
pub(crate) fn document(crates: &[Crate], about: &About<'_>) -> String {
    let mut root = Value::Null;
    let mut parts = Vec::new();
    for one in crates {
        if one.name == PACKAGE {
            root = component(one);
        } else {
            parts.push(component(one));
        }
    }
    root["type"] = json!("application");
    root["hashes"] = json!([{"alg": "SHA-256", "content": about.sum}]);
    let standard = standard_library(about.compiler);
    let std_reference = standard["bom-ref"].clone();
    parts.push(standard);
    let dependencies = crates.iter().map(|one| {
        let mut needs: Vec<_> = one
            .needs
            .iter()
            .filter_map(|place| crates.get(*place))
            .map(|needed| json!(reference(needed)))
            .collect();
        if one.name == PACKAGE {
            needs.push(std_reference.clone());
        }
        json!({"ref": reference(one), "dependsOn": needs})
    });
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": root,
            "tools": {"components": [{"type": "application", "name": "cargo xtask dist", "version": env!("CARGO_PKG_VERSION")}]},
            "properties": [
                {"name": "umbra:target", "value": about.target.triple()},
                {"name": "umbra:compiler", "value": about.compiler},
                {"name": "umbra:linker", "value": about.linker},
            ],
        },
        "components": parts,
        "dependencies": dependencies.collect::<Vec<_>>(),
    });
    document["serialNumber"] = json!(serial(&document.to_string()));
    format!("{document:#}\n")
}

fn component(one: &Crate) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": reference(one),
        "name": one.name,
        "version": one.version,
        "scope": "required",
    });
    if let Some(license) = &one.license {
        component["licenses"] = json!([{"expression": license}]);
    }
    if let Some(checksum) = &one.checksum {
        component["hashes"] = json!([{"alg": "SHA-256", "content": checksum}]);
    }
    if one.source == Source::CratesIo {
        component["purl"] = json!(reference(one));
    }
    component
}

/// Rust's own library is in every program, and no crate of the lock file.
fn standard_library(compiler: &str) -> Value {
    let version = compiler.split(' ').nth(1).unwrap_or("unknown");
    let reference = format!("pkg:generic/rust-std@{version}");
    json!({
        "type": "library",
        "bom-ref": reference,
        "name": "rust-std",
        "version": version,
        "scope": "required",
        "licenses": [{"expression": "MIT OR Apache-2.0"}],
        "purl": reference,
    })
}

fn reference(one: &Crate) -> String {
    match one.source {
        Source::CratesIo => format!("pkg:cargo/{}@{}", one.name, one.version.replace('+', "%2B")),
        Source::Local | Source::Other => format!("{}@{}", one.name, one.version),
    }
}

/// A UUID that says of itself that it was made by a rule of one's own (version 8).
fn serial(text: &str) -> String {
    let sum = sha256(text.as_bytes());
    let part = |from: usize, to: usize| sum.get(from..to).unwrap_or_default();
    format!(
        "urn:uuid:{}-{}-8{}-8{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 15),
        part(15, 18),
        part(18, 30)
    )
}

#[cfg(test)]
mod tests {
    use super::super::crates::tests::some;
    use super::*;

    fn read(crates: &[Crate]) -> Value {
        let about = About {
            target: Target::Aarch64,
            sum: "00ff",
            compiler: "rustc 1.95.0 (abc 2026-01-01)",
            linker: "zig 0.17.1",
        };
        serde_json::from_str(&document(crates, &about)).expect("JSON")
    }

    #[test]
    fn every_part_is_named_once_and_every_reference_leads_to_one() {
        let document = read(&some());
        assert_eq!(document["metadata"]["component"]["name"], PACKAGE);
        let mut references: Vec<&str> = document["components"]
            .as_array()
            .expect("a list")
            .iter()
            .chain([&document["metadata"]["component"]])
            .map(|part| part["bom-ref"].as_str().expect("a reference"))
            .collect();
        references.sort_unstable();
        assert_eq!(
            references,
            [
                "pkg:cargo/libc@0.2.1",
                "pkg:cargo/ring@0.17.14",
                "pkg:generic/rust-std@1.95.0",
                "umbra-agent@0.1.0",
                "umbra-carrier@0.1.0"
            ]
        );
        let dependencies = document["dependencies"].as_array().expect("a list");
        assert_eq!(dependencies.len(), some().len());
        for one in dependencies {
            for needed in one["dependsOn"]
                .as_array()
                .expect("a list")
                .iter()
                .chain([&one["ref"]])
            {
                assert!(
                    references.contains(&needed.as_str().expect("a text")),
                    "{needed}"
                );
            }
        }
    }

    #[test]
    fn the_serial_number_is_that_of_the_contents() {
        let first = read(&some());
        assert_eq!(first["serialNumber"], read(&some())["serialNumber"]);
        assert_ne!(first["serialNumber"], read(&some()[..3])["serialNumber"]);
        let serial = first["serialNumber"].as_str().expect("a text").to_owned();
        let parts: Vec<usize> = serial["urn:uuid:".len()..]
            .split('-')
            .map(str::len)
            .collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{serial}");
    }
}
