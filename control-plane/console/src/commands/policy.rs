//! What holds for every device.

use umbra_protocol::api::Policy;

use super::Call;
use crate::api::Reply;
use crate::cli::{PolicyArgs, Switch};
use crate::failure::Failure;
use crate::table::Facts;

pub(super) async fn run(call: &mut Call<'_, '_>, args: PolicyArgs) -> Result<(), Failure> {
    let client = call.client()?;
    let before = client.policy().await?;
    let after = match args.enforce_secure_mode {
        None => before,
        Some(switch) => {
            let policy = Policy {
                enforce_secure_mode: switch == Switch::On,
                ..before.value
            };
            client.put_policy(&policy).await?
        }
    };
    show(call, &after)
}

fn show(call: &mut Call<'_, '_>, reply: &Reply<Policy>) -> Result<(), Failure> {
    if call.json {
        return call.write_json(&reply.json);
    }
    let mut facts = Facts::new();
    let said = if reply.value.enforce_secure_mode {
        "on: only encrypted shadowing, whatever a device is set to"
    } else {
        "off: each device's own setting decides"
    };
    facts.add("Enforce secure mode", said);
    call.write(|out| facts.write(out))
}
