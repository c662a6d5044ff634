//! The audit log: who did what, and how it went.

use super::Call;
use crate::cli::AuditArgs;
use crate::failure::Failure;
use crate::table::Table;
use crate::text;

pub(super) async fn run(call: &mut Call<'_, '_>, args: AuditArgs) -> Result<(), Failure> {
    let reply = call.client()?.audit(args.limit).await?;
    if call.json {
        return call.write_json(&reply.json);
    }
    let mut table = Table::new(&["NUMBER", "AT", "WHO", "DID", "TO", "OUTCOME", "DETAIL"]);
    for entry in &reply.value {
        table.row([
            &entry.number.to_string(),
            &text::iso(entry.at),
            &entry.actor,
            &entry.action,
            &entry.subject,
            &entry.outcome,
            &entry.detail,
        ]);
    }
    call.write(|out| table.write(out))
}
