//! Both sides on one folder, as a device has it.

use super::*;

fn device(registry: &str) -> (tempfile::TempDir, Paths) {
    let root = tempfile::tempdir().expect("a folder");
    let paths = Paths::new(root.path());
    let file = paths.image_registry();
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    std::fs::write(file, registry).expect("written");
    (root, paths)
}

fn touching(root: &std::path::Path, name: &str) -> String {
    format!(
        "\"umbra.hands.{name}_command\" = [\"/usr/bin/touch\", \"{}\"]\n",
        root.join(name).display()
    )
}

#[tokio::test]
async fn a_wish_is_done_once_by_the_program_of_the_image() {
    let (root, paths) = device("");
    let all: String = ["reboot", "shutdown", "update"]
        .map(|name| touching(root.path(), name))
        .concat();
    std::fs::write(paths.image_registry(), all).expect("written");
    for (wish, name) in [
        (Wish::Reboot, "reboot"),
        (Wish::Shutdown, "shutdown"),
        (Wish::Update, "update"),
    ] {
        let waiting = ask(&paths, wish, Duration::from_secs(60)).expect("left");
        assert!(waiting.look().is_none(), "nobody has looked at it yet");
        assert_eq!(serve(&paths).await.expect("served"), 1);
        waiting.look().expect("answered").expect("done");
        assert!(root.path().join(name).exists(), "{name}");
        std::fs::remove_file(root.path().join(name)).expect("removed");
        assert_eq!(serve(&paths).await.expect("served"), 0);
        assert!(!root.path().join(name).exists(), "{name}: not twice");
    }
}

#[tokio::test]
async fn what_the_agent_can_write_names_no_program_for_root() {
    let (root, paths) = device("");
    std::fs::create_dir_all(paths.kept()).expect("made");
    std::fs::write(paths.registry(), touching(root.path(), "update")).expect("written");
    let waiting = ask(&paths, Wish::Update, Duration::from_secs(60)).expect("left");
    serve(&paths).await.expect("served");
    let error = waiting.look().expect("answered").expect_err("refused");
    assert!(
        error.to_string().contains("umbra.hands.update_command"),
        "{error}"
    );
    assert!(!root.path().join("update").exists());
}

#[tokio::test]
async fn a_program_that_fails_is_told_in_its_own_words() {
    let (_root, paths) = device(
        "\"umbra.hands.update_command\" = [\"/bin/sh\", \"-c\", \"echo signed by a stranger; exit 3\"]\n",
    );
    let waiting = ask(&paths, Wish::Update, Duration::from_secs(60)).expect("left");
    serve(&paths).await.expect("served");
    let error = waiting.look().expect("answered").expect_err("failed");
    assert!(
        error.to_string().contains("signed by a stranger"),
        "{error}"
    );
}

#[tokio::test]
async fn links_and_nonsense_in_the_folder_are_not_followed_and_not_done() {
    let (root, paths) = device("");
    std::fs::write(paths.image_registry(), touching(root.path(), "reboot")).expect("written");
    std::fs::create_dir_all(paths.wishes()).expect("made");
    let outside = root.path().join("outside.json");
    std::fs::write(&outside, "{\"wish\":\"reboot\"}").expect("written");
    let named = |digit: char| {
        paths
            .wishes()
            .join(format!("{}.json", digit.to_string().repeat(16)))
    };
    std::os::unix::fs::symlink(&outside, named('1')).expect("linked");
    std::fs::write(named('2'), "reboot").expect("written");
    std::fs::write(named('3'), vec![b' '; 10_000]).expect("written");
    std::fs::write(paths.wishes().join("reboot.json"), "{\"wish\":\"reboot\"}").expect("written");
    assert_eq!(serve(&paths).await.expect("served"), 3);
    assert!(!root.path().join("reboot").exists());
    assert!(outside.exists(), "only the link was removed");
}

#[tokio::test]
async fn how_far_an_update_is_can_be_seen_while_it_runs_and_is_not_its_result() {
    let (root, paths) = device("");
    let go = root.path().join("go");
    let script = format!(
        "echo begun; echo ' 42% Copying  '; echo '101% of nothing'; while [ ! -e {} ]; do sleep 0.1; done; echo \"wish $UMBRA_WISH\"",
        go.display()
    );
    let command = serde_json::to_string(&["/bin/sh", "-c", &script]).expect("JSON is TOML here");
    std::fs::write(
        paths.image_registry(),
        format!("\"umbra.hands.update_command\" = {command}\n"),
    )
    .expect("written");
    let id = CommandId::from_bytes([0xab; 16]);
    let waiting = ask_update(&paths, id, Duration::from_secs(60)).expect("left");
    assert_eq!(waiting.progress(), None);
    let seen = async {
        loop {
            if let Some(progress) = waiting.progress() {
                std::fs::write(&go, "").expect("written");
                break progress;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (served, seen) = tokio::join!(serve(&paths), seen);
    served.expect("served");
    assert_eq!(
        (seen.percent, seen.sentence.as_str()),
        (Some(42), "Copying")
    );
    let said = waiting.look().expect("answered").expect("done");
    assert_eq!(said, "begun 101% of nothing wish abababababababab");
    assert_eq!(waiting.progress(), None, "it is over");
}

#[test]
fn an_outcome_is_that_of_the_command_that_asked_for_it() {
    use super::outcome::{Outcome, Word};
    let (_root, paths) = device("");
    let id = CommandId::from_bytes([0xab; 16]);
    assert_eq!(Outcome::of(&paths, id), None);
    let file = paths.update_noted();
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("made");
    let note = |text: &str| std::fs::write(&file, text).expect("written");
    note("back\nabababababababab\nboot-1\nA\nserver\nIt went \u{1b}[2Jback.\n");
    let outcome = Outcome::of(&paths, id).expect("noted");
    assert_eq!(
        (outcome.word, outcome.boot.as_str()),
        (Word::Failed, "boot-1")
    );
    assert_eq!(outcome.sentence, "It went  [2Jback.");
    assert_eq!(Outcome::of(&paths, CommandId::from_bytes([0xac; 16])), None);
    for nonsense in [
        "",
        "good",
        "good\nabababababababab",
        "splendid\nabababababababab\nb\n",
    ] {
        note(nonsense);
        assert_eq!(Outcome::of(&paths, id), None, "{nonsense:?}");
    }
    note(&"x".repeat(100_000));
    assert_eq!(Outcome::of(&paths, id), None);
}
