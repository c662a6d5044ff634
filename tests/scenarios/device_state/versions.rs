//! What another version of the firmware left on the state partition: an older one before an update, a newer one before the way
//! back.

use umbra_tests::eventually::eventually;
use umbra_tests::scratch::scenario;
use umbra_tests::world::World;

use super::*;
use crate::enrolment::text;

/// The files that the agent keeps as JSON.
const KEPT: [&str; 4] = [
    "enrolment.json",
    "server-settings.json",
    "state/commands.json",
    "state/records.json",
];

/// Changes every object in every file that is kept.
fn rewrite(
    root: &Path,
    change: &dyn Fn(&mut serde_json::Map<String, Value>),
) -> anyhow::Result<()> {
    fn walk(value: &mut Value, change: &dyn Fn(&mut serde_json::Map<String, Value>)) {
        match value {
            Value::Object(object) => {
                change(object);
                object.values_mut().for_each(|inner| walk(inner, change));
            }
            Value::Array(items) => items.iter_mut().for_each(|inner| walk(inner, change)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    for name in KEPT {
        let file = root.join("wfs/umbra").join(name);
        let bytes = std::fs::read(&file).with_context(|| format!("{name} is not kept"))?;
        let mut value = serde_json::from_slice(&bytes)?;
        walk(&mut value, change);
        std::fs::write(&file, serde_json::to_vec(&value)?)?;
    }
    Ok(())
}

/// The device is killed during a session, finds its files changed, and is the one that it was: online, with the server's
/// settings and its own, and it tells how that session ended.
async fn lives_on(
    world: &mut World<'_>,
    change: &dyn Fn(&mut serde_json::Map<String, Value>),
) -> anyhow::Result<Value> {
    let before = world.device.status().await?;
    let mut shadow = world.shadow("before the update").await?;
    let mut viewer = shadow.view().await?;
    viewer.refresh().await?;
    world.device.kill();
    viewer.until_closed().await?;
    let session = text(&shadow.ended().await?, "/session");
    let root = world.device.root().to_owned();
    rewrite(&root, change)?;
    world.device.start()?;
    let status = world.device.wait_for_stage("online").await?;
    for part in ["/identity", "/server"] {
        ensure!(
            status.pointer(part) == before.pointer(part),
            "{before} {status}"
        );
    }
    let record = world.console.ended_session(&session).await?;
    ensure!(text(&record, "/end_code") == "agent_restarted", "{record}");
    let get = |name: &'static str| ["registry", "get", name, "--json"];
    let told = world
        .device
        .tell(&get("network.vncserver.instances"), "")
        .await?;
    ensure!(told.contains('3'), "{told}");
    let told = world
        .device
        .tell(&get("umbra.session.idle_limit"), "")
        .await?;
    ensure!(told.contains("4711"), "{told}");
    for name in KEPT {
        let damaged = root.join("wfs/umbra").join(format!("{name}.damaged"));
        ensure!(!damaged.exists(), "{name} was taken for damaged");
    }
    Ok(status)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_version_kept_is_used_and_what_a_newer_one_kept_outlives_the_way_back() {
    scenario(async |scratch| {
        let mut world = World::start(scratch).await?;
        let name = world.device_name().await?;
        world.device.set("network.vncserver.instances", "3").await?;
        let setting = [
            "devices",
            "settings",
            &name,
            "umbra.session.idle_limit=4711",
        ];
        world.console.tell(&setting, "").await?;
        let message = ["devices", "command", &name, "message", "hello", "--wait"];
        let answer = world.console.tell(&message, "").await?;
        ensure!(text(&answer, "/state") == "done", "{answer}");
        eventually("the setting to hold", PATIENCE, async || {
            let get = ["registry", "get", "umbra.session.idle_limit"];
            match world.device.tell(&get, "").await {
                Ok(told) if told.contains("4711") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;

        // What was added since the first version has a default each.
        let status = lives_on(&mut world, &|object| {
            for later in ["server_names", "last_good", "refused", "filed"] {
                object.remove(later);
            }
            // Names that other parts of the enrolment have had from the beginning.
            if object.contains_key("host") {
                object.remove("kind");
            }
            if object.contains_key("address") {
                object.remove("roots");
            }
        })
        .await?;
        ensure!(status["warnings"] == serde_json::json!({}), "{status}");

        // What this version doesn't know is passed over, wherever it is.
        let registry = world.device.root().join("wfs/umbra/registry.toml");
        let mut written = std::fs::read_to_string(&registry)?;
        written.push_str("umbra.later.list = [\"a\", \"b\"]\n");
        std::fs::write(&registry, written)?;
        let status = lives_on(&mut world, &|object| {
            object.insert("later".into(), "what nobody knows yet".into());
        })
        .await?;
        let warnings = status["warnings"].as_object().context("no warnings")?;
        ensure!(warnings.keys().all(|topic| topic == "registry"), "{status}");

        // And what the newer version had been told is there when it returns.
        world
            .device
            .set("network.vncserver.shared", "false")
            .await?;
        let written = std::fs::read_to_string(&registry)?;
        ensure!(
            written.contains("umbra.later.list = [\"a\", \"b\"]"),
            "{written}"
        );
        Ok(())
    })
    .await;
}
