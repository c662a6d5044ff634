//! What holds for every device.

use umbra_protocol::api::Policy;

use super::Call;
use crate::api::Reply;
use crate::cli::{Limit, PolicyArgs, Switch};
use crate::failure::Failure;
use crate::table::Facts;

pub(super) async fn run(call: &mut Call<'_, '_>, args: PolicyArgs) -> Result<(), Failure> {
    let client = call.client()?;
    let before = client.policy().await?;
    let policy = Policy {
        enforce_secure_mode: args
            .enforce_secure_mode
            .map_or(before.value.enforce_secure_mode, |switch| {
                switch == Switch::On
            }),
        gateway_connections: args
            .gateway_connections
            .map_or(before.value.gateway_connections, |Limit(limit)| limit),
    };
    let after = if policy == before.value {
        before
    } else {
        client.put_policy(&policy).await?
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
    let limit = reply.value.gateway_connections;
    let said = limit.map_or("any number of devices".to_owned(), |limit| {
        format!("{limit} devices on all gateways together")
    });
    facts.add("Gateway connections", said);
    call.write(|out| facts.write(out))
}
