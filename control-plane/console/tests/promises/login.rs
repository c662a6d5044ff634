//! Whom this machine trusts, and who is logged in.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};
use umbra_console::failure::{Exit, Failure};

use crate::lab::{Api, Authority, Desk, Reaction, TOKEN, problem, told, with_login};

fn nothing() -> impl Fn(&crate::lab::Seen) -> Reaction + Send + Sync + 'static {
    with_login(|_| problem(404, "not_found", "There is nothing at this address."))
}

#[tokio::test]
async fn a_person_who_types_the_missing_part_pins_the_root_and_is_asked_only_once() {
    let authority = Authority::new();
    let api = Api::start(&authority, nothing()).await;
    let mut desk = Desk::new();
    let missing = authority.fingerprint().parts()[2].to_lowercase();
    desk.person.answers = ["not a part".to_owned(), missing.clone(), "anna".to_owned()].into();
    desk.person.secrets = ["correct horse".to_owned()].into();
    let exit = desk
        .run(&format!("login {}", api.address))
        .await
        .expect("logged in");
    assert_eq!(exit, Exit::Done);
    let shown = desk.notes.text();
    assert!(
        shown.contains(&authority.fingerprint().parts()[0]),
        "{shown}"
    );
    assert!(
        !shown.to_lowercase().contains(&missing),
        "the missing part was shown: {shown}"
    );
    assert!(
        desk.out.text().contains("as Anna (operator)"),
        "{}",
        desk.out.text()
    );
    let seen = api.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        seen[0].body,
        json!({"user": "anna", "password": "correct horse"})
    );
    assert_eq!(seen[0].token, None);

    // Again, with neither fingerprint, part nor account.
    desk.person.secrets = ["correct horse".to_owned()].into();
    desk.person.asked.clear();
    desk.run(&format!("login {}", api.address))
        .await
        .expect("logged in again");
    assert_eq!(
        desk.person.asked.len(),
        1,
        "only the password is asked: {:?}",
        desk.person.asked
    );

    let kept = std::fs::read_to_string(desk.config()).expect("kept");
    assert!(kept.contains(TOKEN));
    assert!(!kept.contains("correct horse"), "a password is never kept");
    let mode = std::fs::metadata(desk.config())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!desk.out.text().contains(TOKEN) && !desk.notes.text().contains(TOKEN));
}

#[tokio::test]
async fn without_the_missing_part_nothing_is_sent_and_nothing_is_kept() {
    let authority = Authority::new();
    let api = Api::start(&authority, nothing()).await;
    let mut desk = Desk::new();
    let shown_part = authority.fingerprint().parts()[0].clone();
    desk.person.answers = ["yes".to_owned(), shown_part.clone(), shown_part].into();
    desk.person.secrets = ["correct horse".to_owned()].into();
    let failure = desk
        .run(&format!("login {}", api.address))
        .await
        .expect_err("not confirmed");
    assert_eq!(failure.exit(), Exit::NotTrusted);
    assert_eq!(api.lines(), Vec::<String>::new());
    assert_eq!(
        desk.person.secrets.len(),
        1,
        "the password was not asked for"
    );
    assert!(!desk.config().exists());
}

#[tokio::test]
async fn another_fingerprint_than_the_given_one_is_refused_and_both_are_shown() {
    let (authority, other) = (Authority::new(), Authority::new());
    let api = Api::start(&authority, nothing()).await;
    let mut desk = Desk::new();
    desk.person.input = b"correct horse\n".to_vec();
    let line = format!(
        "login {} --user anna --password-file - --fingerprint {}",
        api.address,
        other.fingerprint()
    );
    let failure = desk.run(&line).await.expect_err("another root");
    assert_eq!(failure.exit(), Exit::NotTrusted);
    let told = told(&failure);
    assert!(
        told.contains(&authority.fingerprint().to_string()),
        "{told}"
    );
    assert!(told.contains(&other.fingerprint().to_string()), "{told}");
    assert_eq!(api.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn nobody_there_and_no_fingerprint_means_no_trust() {
    let authority = Authority::new();
    let api = Api::start(&authority, nothing()).await;
    let mut desk = Desk::new();
    desk.person.input = b"correct horse\n".to_vec();
    let failure = desk
        .run(&format!(
            "login {} --user anna --password-file -",
            api.address
        ))
        .await
        .expect_err("nobody confirmed");
    assert!(matches!(failure, Failure::NotConfirmed(_)), "{failure}");
    assert!(told(&failure).contains("--fingerprint"));
    assert_eq!(api.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn whoever_answers_in_the_servers_place_gets_neither_password_nor_token() {
    let (authority, impostor) = (Authority::new(), Authority::new());
    let api = Api::start(&authority, nothing()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let address = api.address;
    drop(api);
    let listener = loop {
        // The aborted task gives the port back a moment later.
        match tokio::net::TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    let false_api = Api::on(listener, &impostor, nothing());
    let devices = desk.run("devices").await.expect_err("not our server");
    assert_eq!(devices.exit(), Exit::NotTrusted);
    assert!(
        told(&devices).contains("nothing was sent"),
        "{}",
        told(&devices)
    );
    desk.person.input = b"correct horse\n".to_vec();
    let login = desk
        .run(&format!("login {address} --password-file -"))
        .await
        .expect_err("not our server");
    assert_eq!(login.exit(), Exit::NotTrusted);
    assert_eq!(false_api.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_password_is_the_servers_sentence_and_no_talk_of_logging_in_again() {
    let authority = Authority::new();
    let api = Api::start(&authority, |_| {
        problem(
            401,
            "wrong_password",
            "The account name or the password is wrong.",
        )
    })
    .await;
    let mut desk = Desk::new();
    desk.person.input = b"wrong\n".to_vec();
    let line = format!(
        "login {} --user anna --password-file - --fingerprint {}",
        api.address,
        authority.fingerprint()
    );
    let failure = desk.run(&line).await.expect_err("wrong password");
    assert_eq!(
        told(&failure),
        "umbra: The account name or the password is wrong.\n"
    );
    assert_eq!(failure.exit(), Exit::Failed);
    assert!(!desk.config().exists());
}

#[tokio::test]
async fn an_ended_log_in_says_how_to_log_in_again() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| problem(401, "token_expired", "The log-in has ended.")),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let failure = desk.run("devices").await.expect_err("the token is unknown");
    assert_eq!(failure.exit(), Exit::NotLoggedIn);
    let told = told(&failure);
    assert!(
        told.contains(&format!("log in again: umbra login {}", api.address)),
        "{told}"
    );
    assert_eq!(api.seen()[1].token, Some(format!("Bearer {TOKEN}")));
}

#[tokio::test]
async fn a_token_whose_time_is_over_is_not_even_sent() {
    let authority = Authority::new();
    let api = Api::start(&authority, nothing()).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    let kept = std::fs::read_to_string(desk.config()).expect("kept");
    let mut kept: Value = serde_json::from_str(&kept).expect("JSON");
    let server = api.address.to_string();
    kept["servers"][&server]["login"]["expires_at"] = json!(crate::lab::NOW);
    std::fs::write(desk.config(), kept.to_string()).expect("written");
    let failure = desk.run("devices").await.expect_err("over");
    assert_eq!(failure.exit(), Exit::NotLoggedIn);
    assert!(told(&failure).contains("umbra login"));
    assert_eq!(api.lines(), ["POST /api/v1/login"]);
}

#[tokio::test]
async fn logging_out_is_told_to_the_server_and_forgotten_here_even_if_it_is_gone() {
    let authority = Authority::new();
    let api = Api::start(&authority, with_login(|_| Reaction::Raw(204, Vec::new()))).await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("logout").await.expect("logged out");
    assert_eq!(api.lines(), ["POST /api/v1/login", "POST /api/v1/logout"]);
    let failure = desk.run("whoami").await.expect_err("nobody is logged in");
    assert_eq!(failure.exit(), Exit::NotLoggedIn);

    let mut desk = Desk::logged_in(&authority, &api).await;
    drop(api);
    let failure = desk.run("logout").await.expect_err("the server is gone");
    assert_eq!(failure.exit(), Exit::Unreachable);
    assert!(
        desk.notes.text().contains("This machine has forgotten"),
        "{}",
        desk.notes.text()
    );
    assert!(
        !std::fs::read_to_string(desk.config())
            .expect("kept")
            .contains(TOKEN)
    );
}

#[tokio::test]
async fn whoami_asks_the_server_whether_the_log_in_still_holds() {
    let authority = Authority::new();
    let api = Api::start(
        &authority,
        with_login(|_| Reaction::Answer(200, crate::keys::credentials())),
    )
    .await;
    let mut desk = Desk::logged_in(&authority, &api).await;
    desk.run("whoami --json").await.expect("logged in");
    let said: Value = serde_json::from_str(&desk.out.text()).expect("one document");
    assert_eq!(said["user"], "anna");
    assert_eq!(said["role"], "operator");
    assert_eq!(
        said["root_fingerprint"],
        authority.fingerprint().to_string()
    );
    assert!(!desk.out.text().contains(TOKEN));
    assert_eq!(api.lines()[1], "GET /api/v1/credentials");
}
