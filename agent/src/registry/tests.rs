use super::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

struct Device {
    _root: tempfile::TempDir,
    paths: Paths,
}

impl Device {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        std::fs::create_dir_all(paths.kept()).expect("a folder");
        std::fs::create_dir_all(root.path().join("usr/lib/umbra")).expect("a folder");
        Self { _root: root, paths }
    }

    fn registry(&self) -> Registry {
        Registry::open(&self.paths, &Files::new())
    }
}

fn from_server(pairs: &[(&str, Value)]) -> BTreeMap<String, Value> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect()
}

#[test]
fn the_stronger_layer_wins_and_falls_back_when_it_goes() {
    let device = Device::new();
    std::fs::write(
        device.paths.image_registry(),
        "network.vncserver.port = 1001\n",
    )
    .expect("written");
    let registry = device.registry();
    let layer = || registry.get("network.vncserver.port").expect("known").layer;
    assert_eq!(
        (registry.snapshot().vnc.port, layer()),
        (1001, Layer::Image)
    );
    registry
        .set("network.vncserver.port", &words("1002"))
        .expect("set");
    assert_eq!(
        (registry.snapshot().vnc.port, layer()),
        (1002, Layer::Device)
    );
    let refused = registry
        .apply_server(
            1,
            from_server(&[("network.vncserver.port", Value::Int(1003))]),
        )
        .expect("kept");
    assert!(refused.is_empty());
    assert_eq!(
        (registry.snapshot().vnc.port, layer()),
        (1003, Layer::Server)
    );
    registry.forget_server().expect("forgotten");
    registry.reset("network.vncserver.port").expect("reset");
    assert_eq!(
        (registry.snapshot().vnc.port, layer()),
        (1001, Layer::Image)
    );
}

#[test]
fn what_was_set_is_there_after_a_restart() {
    let device = Device::new();
    device
        .registry()
        .set("network.vncserver.enabled", &words("true"))
        .expect("set");
    device
        .registry()
        .apply_server(
            7,
            from_server(&[("umbra.session.idle_limit", Value::Int(0))]),
        )
        .expect("kept");
    let again = device.registry().snapshot();
    assert!(again.vnc.enabled);
    assert_eq!(again.session.idle, None);
    assert_eq!(again.server_revision, 7);
}

#[test]
fn the_server_cannot_set_what_runs_programs_and_hears_why() {
    let device = Device::new();
    let registry = device.registry();
    let before = registry.snapshot();
    let refused = registry
        .apply_server(
            3,
            from_server(&[
                (
                    "umbra.vncserver.command",
                    Value::List(vec!["/bin/sh".into()]),
                ),
                ("umbra.control.group", Value::Text("users".into())),
                ("network.vncserver.port", Value::Text("5900".into())),
                ("network.vncserver.prompt_user", Value::Bool(false)),
                ("network.vncserver.promptuser", Value::Bool(false)),
            ]),
        )
        .expect("kept");
    assert_eq!(refused.len(), 4);
    assert_eq!(
        refused["umbra.vncserver.command"],
        "umbra.vncserver.command can only be set on the device itself"
    );
    assert_eq!(
        refused["network.vncserver.port"],
        "network.vncserver.port must be a whole number from 0 to 65535"
    );
    assert!(refused["network.vncserver.prompt_user"].contains("“network.vncserver.promptuser”"));
    let now = registry.snapshot();
    assert_eq!(now.vnc.command, before.vnc.command);
    assert!(!now.consent.ask && before.consent.ask);
}

#[test]
fn a_planted_file_of_server_settings_is_held_to_the_same_rules() {
    let device = Device::new();
    std::fs::write(
        device.paths.server_settings(),
        r#"{"revision":5,"values":{"umbra.vncserver.command":["/bin/sh"],"network.vncserver.enabled":true}}"#,
    )
    .expect("written");
    let snapshot = device.registry().snapshot();
    assert!(snapshot.vnc.enabled);
    assert_ne!(snapshot.vnc.command, ["/bin/sh"]);
}

#[test]
fn an_older_revision_changes_nothing_and_the_same_one_twice_is_harmless() {
    let device = Device::new();
    let registry = device.registry();
    let port = |number| from_server(&[("network.vncserver.port", Value::Int(number))]);
    registry.apply_server(2, port(2002)).expect("kept");
    registry.apply_server(1, port(2001)).expect("ignored");
    assert_eq!(registry.snapshot().vnc.port, 2002);
    let mut changes = registry.subscribe();
    changes.mark_unchanged();
    registry.apply_server(2, port(2002)).expect("kept");
    assert!(
        !changes.has_changed().expect("open"),
        "nothing changed, but everybody was woken"
    );
    registry.apply_server(3, BTreeMap::new()).expect("kept");
    assert_eq!(registry.snapshot().vnc.port, 5900);
}

#[test]
fn a_change_by_hand_is_taken_over_at_the_next_look() {
    let device = Device::new();
    let registry = device.registry();
    let mut changes = registry.subscribe();
    changes.mark_unchanged();
    std::fs::write(
        device.paths.registry(),
        "[network.vncserver]\nenabled = true\n",
    )
    .expect("written");
    registry.reload();
    assert!(changes.has_changed().expect("open"));
    assert!(registry.snapshot().vnc.enabled);
    std::fs::remove_file(device.paths.registry()).expect("removed");
    registry.reload();
    assert!(!registry.snapshot().vnc.enabled);
}

#[test]
fn a_broken_file_is_told_and_the_last_good_state_holds_even_after_a_restart() {
    let device = Device::new();
    let registry = device.registry();
    registry
        .set("network.vncserver.enabled", &words("true"))
        .expect("set");
    std::fs::write(
        device.paths.registry(),
        "network.vncserver.enabled = true\nthis is not TOML\n",
    )
    .expect("written");
    registry.reload();
    assert!(registry.snapshot().vnc.enabled);
    let restarted = device.registry();
    assert!(
        restarted.snapshot().vnc.enabled,
        "a restart forgot the last good state"
    );
    let problems = restarted.problems();
    assert_eq!(problems.len(), 1);
    assert!(
        problems[0].contains("registry.toml, line 2"),
        "{problems:?}"
    );
    // The next change keeps what was there aside.
    restarted
        .set("network.vncserver.port", &words("5901"))
        .expect("set");
    let aside = std::fs::read_to_string(device.paths.registry_broken()).expect("kept aside");
    assert!(aside.contains("this is not TOML"));
    assert!(restarted.problems().is_empty());
    let snapshot = device.registry().snapshot();
    assert!(snapshot.vnc.enabled && snapshot.vnc.port == 5901);
}

#[test]
fn wrong_names_and_values_change_nothing_and_say_what_would_be_accepted() {
    let device = Device::new();
    let registry = device.registry();
    let error = registry
        .set("network.vncserver.enable", &words("true"))
        .expect_err("unknown");
    assert_eq!(
        error.to_string(),
        "there is no parameter “network.vncserver.enable”; is “network.vncserver.enabled” meant?"
    );
    let error = registry
        .set("network.vncserver.instances", &words("0"))
        .expect_err("too small");
    assert_eq!(
        error.to_string(),
        "network.vncserver.instances must be a whole number from 1 to 16"
    );
    assert!(!device.paths.registry().exists());
}

#[test]
fn a_full_disk_changes_nothing() {
    let device = Device::new();
    let full = Files::watched(|_, _| Err(std::io::Error::from_raw_os_error(nix::libc::ENOSPC)));
    let registry = Registry::open(&device.paths, &full);
    let before = registry.snapshot();
    registry
        .set("network.vncserver.enabled", &words("true"))
        .expect_err("no space");
    registry
        .apply_server(
            9,
            from_server(&[("network.vncserver.enabled", Value::Bool(true))]),
        )
        .expect_err("no space");
    assert_eq!(registry.snapshot(), before);
    assert!(!device.paths.registry().exists() && !device.paths.server_settings().exists());
}

#[test]
fn secrets_are_masked_in_lists_but_reach_the_snapshot() {
    let device = Device::new();
    let registry = device.registry();
    registry
        .set("network.vncserver.crypt_password", &words("hunter2"))
        .expect("set");
    let shown = serde_json::to_string(&registry.list("")).expect("serialises");
    assert!(!shown.contains("hunter2") && shown.contains(MASK));
    let snapshot = registry.snapshot();
    assert_eq!(
        snapshot.vnc.password.as_ref().map(|p| p.reveal()),
        Some("hunter2")
    );
    assert!(!format!("{snapshot:?}").contains("hunter2"));
}

#[test]
fn required_consent_cannot_be_taken_back_by_the_server() {
    let device = Device::new();
    let registry = device.registry();
    let lax = from_server(&[
        ("network.vncserver.promptuser", Value::Bool(false)),
        ("umbra.consent.unattended", Value::Text("allow".into())),
    ]);
    registry.apply_server(1, lax).expect("kept");
    assert!(!registry.snapshot().consent.ask);
    assert_eq!(registry.snapshot().consent.unattended, Unattended::Allow);
    registry
        .set("umbra.consent.required", &words("true"))
        .expect("set");
    assert!(registry.snapshot().consent.ask);
    assert_eq!(registry.snapshot().consent.unattended, Unattended::Deny);
}

#[test]
fn connectors_are_those_with_an_address_in_their_order() {
    let device = Device::new();
    let registry = device.registry();
    registry
        .set(
            "system.remotemanager.connector3.address",
            &words("second.example.com"),
        )
        .expect("set");
    registry
        .set(
            "system.remotemanager.connector1.address",
            &words("10.0.0.1"),
        )
        .expect("set");
    registry
        .set("system.remotemanager.connector1.port", &words("443"))
        .expect("set");
    let snapshot = registry.snapshot();
    let shown: Vec<(&str, u16)> = snapshot
        .manager
        .connectors
        .iter()
        .map(|c| (c.address.as_str(), c.port))
        .collect();
    assert_eq!(shown, [("10.0.0.1", 443), ("second.example.com", 8443)]);
}
