use super::*;

struct Device {
    root: tempfile::TempDir,
    paths: Paths,
}

impl Device {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        Self { root, paths }
    }

    async fn run(&self, line: &str) -> (Result<Exit, Problem>, String) {
        let root = self.root.path().to_str().expect("a plain path");
        let words = ["umbra-agent", "--root", root]
            .into_iter()
            .chain(line.split_whitespace());
        let arguments = parse(words.map(OsString::from)).expect("it can be typed");
        let mut out = Vec::new();
        let result = run(arguments, &mut out).await;
        (result, String::from_utf8(out).expect("text"))
    }

    async fn done(&self, line: &str) -> String {
        let (result, out) = self.run(line).await;
        assert_eq!(result.expect("it works"), Exit::Ok, "{out}");
        out
    }

    async fn fails(&self, line: &str) -> Problem {
        self.run(line).await.0.expect_err("it fails")
    }
}

fn exit(line: &str) -> Option<Exit> {
    parse(line.split_whitespace().map(OsString::from)).err()
}

#[test]
fn every_command_says_what_it_does_and_has_an_example() {
    let mut names = std::collections::BTreeSet::new();
    for command in GRAMMAR.commands {
        let name = command.name;
        assert!(names.insert(name), "{name} is there twice");
        assert!(!command.about.is_empty(), "{name} says nothing");
        let example = format!("umbra-agent {name}");
        assert!(
            command
                .examples
                .iter()
                .any(|line| line.starts_with(&example)),
            "{name} has no example"
        );
    }
    assert_eq!(names.len(), 12);
}

#[test]
fn every_example_of_the_help_can_be_typed() {
    fn examples(command: &Grammar, into: &mut Vec<&'static str>) {
        into.extend(command.examples);
        command
            .commands
            .iter()
            .for_each(|inner| examples(inner, into));
    }
    let mut lines = Vec::new();
    examples(&GRAMMAR, &mut lines);
    assert!(lines.len() > 15, "only {} examples", lines.len());
    for line in lines {
        let typed = line.split(" < ").next().unwrap_or_default();
        assert_eq!(exit(typed), None, "{line}");
    }
}

#[test]
fn options_name_only_options_that_are_there() {
    fn check(command: &Grammar) {
        let there = |name: &&str| command.options.iter().any(|option| option.name == *name);
        for option in command.options {
            let name = option.name;
            assert!(option.excludes.iter().all(there), "{name}");
            assert!(
                option.requires.is_empty() || there(&option.requires),
                "{name}"
            );
            assert!(
                option.words.is_empty() || !option.value.is_empty(),
                "{name}"
            );
        }
        command.commands.iter().for_each(check);
    }
    check(&GRAMMAR);
}

#[test]
fn mistakes_and_help_have_their_exit_codes() {
    assert_eq!(exit("umbra-agent --help"), Some(Exit::Ok));
    assert_eq!(exit("umbra-agent --version"), Some(Exit::Ok));
    for mistake in [
        "umbra-agent",
        "umbra-agent dance",
        "umbra-agent enroll --credentials f --address x",
        "umbra-agent enroll --unattended --address x",
        "umbra-agent enroll --discover --address x",
        "umbra-agent setup --plain --face json",
        "umbra-agent registry list --json --markdown",
        "umbra-agent registry set network.vncserver.port 1 --stdin",
        "umbra-agent doctor --fingerprint x",
        "umbra-agent identity --new-unit-id",
        "umbra-agent run --log loud",
        "umbra-agent registry set network.vncserver.port",
    ] {
        assert_eq!(exit(mistake), Some(Exit::Usage), "{mistake}");
    }
}

#[tokio::test]
async fn identity_is_made_once_and_shown_by_all_who_are_asked() {
    let device = Device::new();
    assert_eq!(device.fails("cert show").await.exit, Exit::Unavailable);
    let made = device.done("identity").await;
    assert!(made.starts_with("Key and certificate were made."), "{made}");
    let kept = device.done("identity").await;
    assert!(
        kept.starts_with("Key and certificate are in order."),
        "{kept}"
    );
    let id = identity_line(&made);
    assert_eq!(id, identity_line(&kept));
    assert!(device.done("cert show").await.contains(id));
    assert!(
        device
            .done("cert show --pem")
            .await
            .starts_with("-----BEGIN CERTIFICATE-----")
    );
    let replaced = device.done("identity --replace").await;
    assert_ne!(identity_line(&replaced), id);
    std::fs::write(device.paths.key(), "rubbish").expect("written");
    let problem = device.fails("identity").await;
    assert_eq!(problem.exit, Exit::Data);
    assert!(
        problem.to_string().contains("identity --replace"),
        "{problem}"
    );
}

fn identity_line(text: &str) -> &str {
    text.lines()
        .find_map(|line| line.strip_prefix("device ID    "))
        .expect("a device ID")
}

#[tokio::test]
async fn parameters_can_be_changed_while_no_agent_runs() {
    let device = Device::new();
    let out = device
        .done("registry set network.vncserver.port 5901")
        .await;
    assert_eq!(
        out,
        "network.vncserver.port is 5901 now: it was set on this device.\n"
    );
    let list = device.done("registry list network.vncserver.p").await;
    assert_eq!(
        list,
        "network.vncserver.port = 5901  (device)\nnetwork.vncserver.promptuser = true  (default)\n"
    );
    let get = device.done("registry get network.vncserver.port").await;
    assert!(get.contains("a whole number from 0 to 65535"), "{get}");
    let json: serde_json::Value = serde_json::from_str(
        &device
            .done("registry get --json network.vncserver.port")
            .await,
    )
    .expect("JSON");
    assert_eq!(json[0]["value"], 5901);
    let out = device.done("registry reset network.vncserver.port").await;
    assert!(out.contains("5900 now: that is the default"), "{out}");
    let problem = device.fails("registry set network.vncserver.prot 1").await;
    assert_eq!(problem.exit, Exit::Usage);
    assert!(
        problem.to_string().contains("network.vncserver.port"),
        "{problem}"
    );
}

#[tokio::test]
async fn secrets_are_not_taken_from_the_command_line() {
    let device = Device::new();
    let problem = device
        .fails("registry set network.vncserver.crypt_password hunter2")
        .await;
    assert_eq!(problem.exit, Exit::Usage);
    let sentence = problem.to_string();
    assert!(
        sentence.contains("--stdin") && !sentence.contains("hunter2"),
        "{sentence}"
    );
    assert!(!device.paths.registry().exists());
}

#[tokio::test]
async fn without_an_agent_the_status_says_so_and_shows_what_is_on_the_disk() {
    let device = Device::new();
    device.done("identity").await;
    let (result, out) = device.run("status").await;
    assert_eq!(result.expect("it works"), Exit::Unavailable);
    assert!(
        out.contains("agent is not running")
            && out.contains("device ID")
            && out.contains("No server"),
        "{out}"
    );
    let (_, out) = device.run("status --json").await;
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(json["running"], false);
    assert!(json["identity"]["unit_id"].is_string(), "{json}");
    for line in ["consent accept", "end-session", "status --watch"] {
        assert_eq!(device.fails(line).await.exit, Exit::Unavailable, "{line}");
    }
    assert_eq!(device.fails("leave").await.exit, Exit::Unavailable);
    for line in ["consent accept not-a-session", "end-session 12"] {
        assert_eq!(device.fails(line).await.exit, Exit::Usage, "{line}");
    }
}

#[tokio::test]
async fn enrolment_tells_what_is_wrong_with_what_was_given_before_it_asks_anybody() {
    let device = Device::new();
    let file = device.root.path().join("key.txt");
    std::fs::write(&file, "ABCDE-FGHJK-MNPQR-STVWX\n").expect("written");
    let key = file.to_str().expect("a plain path");
    let print = "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210";
    for (line, word) in [
        (
            format!("enroll --address https://x --fingerprint {print} --key-file {key}"),
            "URL",
        ),
        (
            format!("enroll --address x --fingerprint 0011 --key-file {key}"),
            "four parts",
        ),
        (
            format!("enroll --address x --fingerprint {print} --key-file /nowhere/key"),
            "no file",
        ),
        (format!("enroll --credentials {key}"), "Host"),
    ] {
        let problem = device.fails(&line).await;
        assert!(problem.to_string().contains(word), "{line}: {problem}");
    }
    // Nobody listens on this port: it was just given back.
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let line = format!("enroll --address 127.0.0.1:{port} --fingerprint {print} --key-file {key}");
    let problem = device.fails(&line).await;
    assert_eq!(problem.exit, Exit::Unavailable, "{problem}");
    assert!(!device.paths.enrolment().exists());
}

#[tokio::test]
async fn the_doctor_says_with_its_exit_code_whether_something_is_bad() {
    let device = Device::new();
    let (result, out) = device.run("doctor --json").await;
    assert_eq!(result.expect("it works"), Exit::Failed);
    let json: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(json.as_array().expect("a list").len() >= 9, "{json}");
    assert!(
        json[0]["id"].is_string() && json[0]["verdict"].is_string(),
        "{json}"
    );
}

#[test]
fn a_problem_names_each_cause_once() {
    let error = crate::registry::RegistryError::File(crate::files::FileError::Full {
        path: "/x".into(),
        source: std::io::Error::from_raw_os_error(nix::libc::ENOSPC),
    });
    let text = Problem::from(error).to_string();
    assert_eq!(text.matches("disk is full").count(), 1, "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn output_that_nobody_reads_is_no_failure() {
    let problem = Problem::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
    assert_eq!((problem.exit, problem.to_string().as_str()), (Exit::Ok, ""));
}
