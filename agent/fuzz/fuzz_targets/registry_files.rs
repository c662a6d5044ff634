//! The device's parameters: the file by hand, the server's settings, and what somebody sets. What holds: whatever the file holds, a
//! change is kept and nothing that was in force is lost by it; what is in force is within what the parameter accepts; the server
//! never sets what only the device may; and every problem is a sentence without a cursor in it.
#![no_main]

use std::collections::BTreeMap;
use std::path::PathBuf;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use umbra_agent::files::Files;
use umbra_agent::paths::Paths;
use umbra_agent::registry::{Layer, Registry, TABLE};
use umbra_protocol::settings::Value;

#[derive(Arbitrary, Debug)]
struct Run {
    file: String,
    kept: Option<String>,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Set(u8, Vec<String>),
    Reset(u8),
    Server(u8, Vec<(u8, Any)>),
    Forget,
}

#[derive(Arbitrary, Debug)]
enum Any {
    Bool(bool),
    Int(i64),
    Text(String),
    List(Vec<String>),
}

/// A folder in memory, of this process.
fn root() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
    base.join(format!("umbra-fuzz-registry-{}", std::process::id()))
}

/// A parameter's name; one of which there are several with a number that it has and, for a few, one that it has not.
fn name(index: u8) -> String {
    let number = if index > 250 { "9" } else { "3" };
    TABLE[usize::from(index) % TABLE.len()].name.replace('%', number)
}

/// Whether a name is one of this parameter's.
fn fits(pattern: &str, name: &str) -> bool {
    pattern == name || (0..8).any(|number| pattern.replace('%', &number.to_string()) == name)
}

fn check(registry: &Registry) {
    for entry in registry.list("") {
        let parameter = TABLE.iter().find(|known| fits(known.name, &entry.name)).expect("a parameter");
        assert!(parameter.kind.check(&entry.value).is_ok(), "{} is {:?}", entry.name, entry.value);
        assert!(!(entry.local_only && entry.layer == Layer::Server), "{} was set by the server", entry.name);
    }
    for problem in registry.problems() {
        assert!(!problem.chars().any(char::is_control), "{problem:?}");
    }
    // All of it has a meaning.
    let _ = registry.snapshot();
}

fn on_device(registry: &Registry) -> BTreeMap<String, Value> {
    let set = registry.list("").into_iter().filter(|entry| entry.layer == Layer::Device);
    set.map(|entry| (entry.name, entry.value)).collect()
}

fuzz_target!(|run: Run| {
    let paths = Paths::new(root());
    std::fs::create_dir_all(paths.kept()).expect("a folder");
    for file in [paths.registry(), paths.registry_good(), paths.registry_broken(), paths.server_settings()] {
        let _ = std::fs::remove_file(file);
    }
    std::fs::write(paths.registry(), &run.file).expect("written");
    if let Some(kept) = &run.kept {
        std::fs::write(paths.server_settings(), kept).expect("written");
    }
    let files = Files::new();
    let registry = Registry::open(&paths, &files);
    check(&registry);
    for step in run.steps.iter().take(8) {
        match step {
            Step::Set(which, words) => {
                let name = &name(*which);
                let mut before = on_device(&registry);
                before.remove(name);
                if let Ok(entry) = registry.set(name, words) {
                    assert_eq!(entry.name, *name);
                    let mut after = on_device(&Registry::open(&paths, &files));
                    after.remove(name);
                    for (name, value) in &before {
                        // A server may overrule it from the very moment; what the device says is kept.
                        assert_eq!(after.get(name), Some(value), "{name} was lost by setting another");
                    }
                }
            }
            Step::Reset(which) => {
                let _ = registry.reset(&name(*which));
            }
            Step::Server(revision, values) => {
                let values = values
                    .iter()
                    .take(16)
                    .map(|(which, value)| {
                        let value = match value {
                            Any::Bool(value) => Value::Bool(*value),
                            Any::Int(number) => Value::Int(*number),
                            Any::Text(text) => Value::Text(text.clone()),
                            Any::List(items) => Value::List(items.clone()),
                        };
                        (name(*which), value)
                    })
                    .collect();
                if let Ok(refused) = registry.apply_server((*revision).into(), values) {
                    assert!(refused.values().all(|sentence| !sentence.chars().any(char::is_control)));
                }
            }
            Step::Forget => {
                let _ = registry.forget_server();
                assert!(registry.list("").iter().all(|entry| entry.layer != Layer::Server));
            }
        }
        check(&registry);
    }
});
