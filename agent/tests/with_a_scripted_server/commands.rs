//! Commands, which run once whatever happens in between.

use super::*;

#[tokio::test]
async fn commands_run_once_and_their_results_are_kept_until_they_are_filed() {
    let server = Server::start().await;
    let device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let id = CommandId::from_bytes([1; 16]);
    let command = Command {
        id,
        action: Action::Message {
            text: "Lunch\u{1b}[2J!".into(),
        },
    };
    link.say(command.clone()).await;
    let result = link.hear_kind("command_result").await;
    link.say(command.clone()).await;
    assert_eq!(link.hear_kind("command_result").await, result);
    drop(link);
    let (mut link, _) = server.welcome().await;
    assert_eq!(link.hear_kind("command_result").await, result);
    link.say(ResultFiled { id }).await;
    link.say(command).await;
    let inventory = Command {
        id: CommandId::from_bytes([2; 16]),
        action: Action::Inventory,
    };
    link.say(inventory.clone()).await;
    let FromDevice::CommandResult(second) = link.hear_kind("command_result").await else {
        panic!()
    };
    assert_eq!(
        (second.id, second.state),
        (inventory.id, CommandState::Done),
        "the first one was not answered again"
    );
    assert_eq!(
        second.facts.get("unit_id").map(String::as_str),
        Some("00E0C5A1B2C3")
    );
    let messages = device.board.now().messages;
    assert_eq!(messages.len(), 1, "the command ran twice: {messages:?}");
    assert_eq!(messages[0].text, "Lunch [2J!");
}

#[tokio::test]
async fn a_reboot_is_done_once_the_device_has_come_up_again() {
    let server = Server::start().await;
    let mut device = Device::start("").await;
    device.enrolled_by(&server).await;
    let (mut link, _) = server.welcome().await;
    let id = CommandId::from_bytes([1; 16]);
    link.say(Command {
        id,
        action: Action::Reboot,
    })
    .await;
    let journal = device.paths.commands();
    soon("the note", async {
        while !journal.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    device.cut_power().await;
    drop(link);
    let mut os = Fake::default();
    os.boot_id = "second-boot".into();
    device.boot(Files::new(), os).await;
    let (mut link, _) = server.welcome().await;
    let FromDevice::CommandResult(result) = link.hear_kind("command_result").await else {
        panic!()
    };
    assert_eq!((result.id, result.state), (id, CommandState::Done));
}
