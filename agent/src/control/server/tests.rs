use std::os::unix::fs::symlink;

use tokio::sync::Notify;

use super::super::client::{ANSWER_DEADLINE, Client};
use super::*;
use crate::control::TrustGiven;
use crate::files::Files;
use crate::status::Stage;

struct Agent {
    _root: tempfile::TempDir,
    paths: Paths,
    board: Board,
    actions: Option<mpsc::Receiver<Action>>,
    stop: Arc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Agent {
    fn start() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let paths = Paths::new(root.path());
        let board = Board::new();
        let (sender, receiver) = super::super::actions();
        let context = Context {
            board: board.clone(),
            registry: Registry::open(&paths, &Files::new()),
            actions: sender,
        };
        let listening = bind(&paths).expect("a socket");
        let stop = Arc::new(Notify::new());
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move { serve(listening, context, stopped.notified()).await });
        Self {
            _root: root,
            paths,
            board,
            actions: Some(receiver),
            stop,
            task,
        }
    }

    async fn ask(&self, request: &Request) -> Response {
        let mut client = Client::connect(&self.paths).await.expect("connected");
        client
            .ask(request, ANSWER_DEADLINE)
            .await
            .expect("answered")
    }
}

fn set(name: &str, word: &str) -> Request {
    Request::RegistrySet {
        name: name.into(),
        words: vec![umbra_protocol::Secret::new(word)],
    }
}

#[tokio::test]
async fn a_parameter_that_is_set_counts_at_once_and_wrong_ones_say_why() {
    let agent = Agent::start();
    let answer = agent.ask(&set("network.vncserver.port", "5901")).await;
    let Response::Done { sentence } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        sentence,
        "network.vncserver.port is 5901 now: it was set on this device."
    );
    let answer = agent.ask(&set("network.vncserver.port", "many")).await;
    let Response::Failed(failure) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(failure.code, ErrorCode::Usage);
    assert!(
        failure.sentence.contains("from 0 to 65535"),
        "{}",
        failure.sentence
    );
    let answer = agent
        .ask(&Request::RegistryGet {
            name: "network.vncserver.port".into(),
        })
        .await;
    let Response::Registry { entries, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(entries[0].value, umbra_protocol::settings::Value::Int(5901));
}

#[tokio::test]
async fn watching_shows_each_change_until_the_agent_stops() {
    let agent = Agent::start();
    let mut client = Client::connect(&agent.paths).await.expect("connected");
    client.send(&Request::Watch {}).await.expect("sent");
    let mut stages = Vec::new();
    for stage in [Stage::Connecting, Stage::Online] {
        let Response::Status(status) = client.next().await.expect("a status") else {
            panic!("no status")
        };
        stages.push(status.stage);
        agent.board.update(|status| status.go(stage));
    }
    let Response::Status(status) = client.next().await.expect("a status") else {
        panic!("no status")
    };
    stages.push(status.stage);
    assert_eq!(stages, [Stage::Starting, Stage::Connecting, Stage::Online]);
    agent.stop.notify_one();
    assert!(client.next().await.is_err());
    agent.task.await.expect("ended in order");
    assert!(!agent.paths.socket().exists());
}

#[tokio::test]
async fn actions_reach_the_main_loop_and_its_answer_comes_back() {
    let mut agent = Agent::start();
    let mut actions = agent.actions.take().expect("the receiver");
    let session = umbra_protocol::ids::SessionId::from_bytes([7; 16]);
    let request = Request::Consent {
        session,
        accept: true,
    };
    let (answer, ()) = tokio::join!(agent.ask(&request), async {
        let Some(Action::Consent {
            session: asked,
            accept,
            reply,
        }) = actions.recv().await
        else {
            panic!("another action");
        };
        assert!(asked == session && accept);
        reply
            .send(Ok("the operator may see the screen".into()))
            .expect("somebody listens");
    });
    assert_eq!(
        answer,
        Response::Done {
            sentence: "the operator may see the screen".into()
        }
    );
    drop(actions);
    let answer = agent.ask(&Request::Leave {}).await;
    let Response::Failed(failure) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(failure.code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn what_enrolment_is_given_is_checked_before_the_main_loop_hears_of_it() {
    let agent = Agent::start();
    let enrol = |address: &str, fingerprint: &str, key: &str| Request::Enrol {
        address: address.into(),
        trust: TrustGiven::Fingerprint(fingerprint.into()),
        key: umbra_protocol::Secret::new(key),
    };
    let fingerprint = "00112233445566AA-8899AABBCCDDEEFF-0123456789ABCDEF-FEDCBA9876543210";
    for (request, word) in [
        (
            enrol("https://x/", fingerprint, "ABCDEFGHJKMNPQRSTVWX"),
            "URL",
        ),
        (
            enrol("x", "00112233445566AA", "ABCDEFGHJKMNPQRSTVWX"),
            "four parts",
        ),
        (enrol("x", fingerprint, ""), "key"),
    ] {
        let answer = agent.ask(&request).await;
        let Response::Failed(failure) = answer else {
            panic!("{answer:?}")
        };
        assert!(
            failure.code == ErrorCode::Usage && failure.sentence.contains(word),
            "{failure:?}"
        );
    }
}

#[tokio::test]
async fn rubbish_and_endless_lines_are_answered_and_bounded() {
    let agent = Agent::start();
    for (sent, word) in [
        (b"rubbish\n".to_vec(), "understood"),
        (b"{\"request\":\"leave\",\"x\":1}\n".to_vec(), "understood"),
        (
            vec![b'['; 20_000].into_iter().chain(*b"\n").collect(),
            "understood",
        ),
        (vec![b'x'; REQUEST_MAX], "at most"),
    ] {
        let mut stream = UnixStream::connect(agent.paths.socket())
            .await
            .expect("connected");
        stream.write_all(&sent).await.expect("sent");
        let mut answer = vec![0; 4096];
        let length = timeout(ANSWER_DEADLINE, stream.read(&mut answer))
            .await
            .expect("in time")
            .expect("answered");
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(
            answer.contains("\"failed\"") && answer.contains(word),
            "{answer}"
        );
    }
    assert!(matches!(
        agent.ask(&Request::Status {}).await,
        Response::Status(_)
    ));
}

#[test]
fn no_user_can_take_all_places_and_root_always_has_one() {
    let places = Places::default();
    let mut held: Vec<Place> = (0..STRANGERS_OF_ONE_USER_MAX)
        .filter_map(|_| places.take(1000, false))
        .collect();
    assert_eq!(held.len(), STRANGERS_OF_ONE_USER_MAX);
    assert!(places.take(1000, false).is_none());
    held.extend((1001..1100).filter_map(|uid| places.take(uid, false)));
    assert_eq!(held.len(), STRANGERS_MAX);
    assert!(places.take(0, true).is_some());
    held.clear();
    assert!(places.take(1000, false).is_some());
    assert!(
        places
            .taken
            .lock()
            .expect("not poisoned")
            .strangers
            .is_empty()
    );
}

#[tokio::test]
async fn a_running_agents_socket_is_not_taken_but_a_dead_ones_is() {
    let agent = Agent::start();
    assert!(matches!(
        bind(&agent.paths),
        Err(ControlError::Running { .. })
    ));
    let root = tempfile::tempdir().expect("a folder");
    let paths = Paths::new(root.path());
    std::fs::create_dir_all(paths.run()).expect("a folder");
    drop(std::os::unix::net::UnixListener::bind(paths.socket()).expect("a dead socket"));
    assert!(paths.socket().exists());
    let listening = bind(&paths).expect("taken over");
    let mode = std::fs::metadata(paths.socket())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o666);
    drop(listening);
    assert!(!paths.socket().exists());
}

#[tokio::test]
async fn links_and_files_in_the_sockets_place_are_not_touched() {
    let root = tempfile::tempdir().expect("a folder");
    let paths = Paths::new(root.path());
    std::fs::create_dir_all(paths.run()).expect("a folder");
    let victim = root.path().join("victim");
    std::fs::write(&victim, "precious").expect("written");
    symlink(&victim, paths.socket()).expect("a link");
    assert!(matches!(bind(&paths), Err(ControlError::Occupied { .. })));
    assert_eq!(std::fs::read_to_string(&victim).expect("there"), "precious");
    std::fs::remove_file(paths.socket()).expect("removed");
    std::fs::write(paths.socket(), "x").expect("written");
    assert!(matches!(bind(&paths), Err(ControlError::Occupied { .. })));
}
