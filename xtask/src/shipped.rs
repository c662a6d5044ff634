//! The core of the scenarios, with the agent as it ships instead of the one that was just built for debugging: on this
//! machine's processor, and a few of them on the other one, emulated.

use crate::dist::Shipped;
use crate::step::{cargo, step, succeeds};

/// A scenario that a shipped agent has to pass.
struct Core {
    name: &'static str,
    /// Also under emulation, where all takes several times as long.
    emulated: bool,
}

const fn core(name: &'static str) -> Core {
    Core {
        name,
        emulated: false,
    }
}

const fn everywhere(name: &'static str) -> Core {
    Core {
        name,
        emulated: true,
    }
}

/// From the first boot to the screen of a device, both ways; what it keeps; what it refuses; what it costs.
const CORE: [Core; 16] = [
    everywhere("an_identity_is_made_once_and_its_key_is_the_owners_alone"),
    everywhere("an_operator_sees_and_operates_the_screen_and_it_is_on_record"),
    everywhere("a_device_without_a_way_to_its_server_is_seen_and_operated_through_the_gateway"),
    everywhere("a_device_leaves_its_server_and_comes_back_as_the_one_that_it_was"),
    everywhere("credentials_on_a_stick_are_offered_and_bring_the_device_online"),
    everywhere("a_ticket_is_good_once"),
    core("x11vnc_is_started_for_the_session_and_gone_after_it"),
    core("who_may_only_see_moves_nothing"),
    core("a_killed_gateway_and_a_killed_server_come_back_to_a_device_that_comes_back_by_itself"),
    core("nothing_of_key_or_device_is_sent_to_a_server_with_another_fingerprint"),
    core("a_wrong_key_is_refused_and_the_device_can_be_taken_on_with_a_right_one"),
    core("settings_of_the_server_count_at_once_and_what_the_device_refuses_is_told"),
    core("a_file_in_the_image_brings_a_device_in_past_an_address_that_does_not_answer"),
    core("a_read_only_system_with_one_writable_folder_is_all_that_a_device_needs"),
    core("the_assistant_leads_to_a_connection_that_is_ready_in_german"),
    core("an_idle_agent_with_a_link_to_a_gateway_stays_within_its_memory"),
];

/// Runs them with each binary; the first failure ends it.
pub(crate) fn run(shipped: &[Shipped]) -> anyhow::Result<()> {
    for one in shipped {
        let mut command = cargo();
        let nextest = succeeds(cargo().args(["nextest", "--version"]));
        match nextest {
            true => command.args(["nextest", "run", "--profile", "shipped"]),
            false => command.arg("test"),
        };
        // The whole workspace's features, as the other tests have them: nothing is built again.
        command.args(["--workspace", "--locked", "--test", "scenarios", "--"]);
        command.args(if nextest {
            &[][..]
        } else {
            &["--nocapture"][..]
        });
        command.args(names(one.target.is_ours()));
        command.env("UMBRA_AGENT_BIN", &one.program);
        step(
            &format!("scenarios with the agent for {}", one.target.processor()),
            &mut command,
        )?;
    }
    Ok(())
}

fn names(natively: bool) -> impl Iterator<Item = &'static str> {
    CORE.iter()
        .filter(move |core| natively || core.emulated)
        .map(|core| core.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that no scenario has would be left out in silence.
    #[test]
    fn each_of_the_core_is_a_scenario() {
        let list = crate::step::top().join("tests/README.md");
        let list = std::fs::read_to_string(list).expect("the list of promises");
        for name in names(true) {
            let promise = format!("- {}", name.replace('_', " "));
            assert!(
                list.lines().any(|line| line == promise),
                "no scenario is called {name}"
            );
        }
        assert!(names(true).count() >= 10 && names(false).count() >= 5);
    }
}
