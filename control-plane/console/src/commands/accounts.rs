//! Operator accounts.

use umbra_protocol::api::{NewAccount, Role};

use super::Call;
use super::input::secret_from;
use super::login::ask_password;
use crate::cli::AccountsCommand;
use crate::failure::Failure;
use crate::table::Table;

pub(super) async fn run(call: &mut Call<'_, '_>, command: AccountsCommand) -> Result<(), Failure> {
    let client = call.client()?;
    match command {
        AccountsCommand::List => {
            let reply = client.accounts().await?;
            if call.json {
                return call.write_json(&reply.json);
            }
            let mut table = Table::new(&["ACCOUNT", "NAME", "ROLE"]);
            for account in &reply.value {
                table.row([
                    account.user.as_str(),
                    &account.display_name,
                    role_name(account.role),
                ]);
            }
            call.write(|out| table.write(out))
        }
        AccountsCommand::Add {
            user,
            display_name,
            role,
            password_file,
        } => {
            let password = match &password_file {
                Some(file) => secret_from(file, "password", call.around.person)?,
                None => {
                    let first = ask_password(
                        call,
                        &format!("Password for {user}, at least 12 characters: "),
                    )?;
                    if ask_password(call, "The same again: ")? != first {
                        return Err(Failure::Usage(
                            "the two passwords are not the same; nothing was done".to_owned(),
                        ));
                    }
                    first
                }
            };
            let display_name = display_name.unwrap_or_else(|| user.clone());
            let account = NewAccount {
                user,
                display_name,
                role: role.into(),
                password,
            };
            let reply = client.add_account(&account).await?;
            let sentence = format!(
                "The account {} ({}) is made.",
                reply.value.user,
                role_name(reply.value.role)
            );
            call.say(&sentence, &reply.json)
        }
    }
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Administrator => "administrator",
        Role::Operator => "operator",
        Role::Auditor => "auditor",
    }
}
