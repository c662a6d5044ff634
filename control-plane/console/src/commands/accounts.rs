//! Operator accounts.

use std::path::Path;

use serde_json::json;
use umbra_protocol::Secret;
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
            let password = new_password(call, &user, password_file.as_deref())?;
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
        AccountsCommand::Remove { user } => {
            client.remove_account(&user).await?;
            call.say(
                &format!("The account {user} is removed."),
                &json!({"removed": user}),
            )
        }
        AccountsCommand::Password {
            user,
            password_file,
        } => {
            let user = match user {
                Some(user) => user,
                None => call.known(&call.file.load()?)?.1.user.clone(),
            };
            let password = new_password(call, &user, password_file.as_deref())?;
            client.set_password(&user, password).await?;
            let sentence = format!("The password of {user} is set; log in with it from now on.");
            call.say(&sentence, &json!({"password_set": user}))
        }
    }
}

fn new_password(
    call: &mut Call<'_, '_>,
    user: &str,
    file: Option<&Path>,
) -> Result<Secret, Failure> {
    if let Some(file) = file {
        return secret_from(file, "password", call.around.person);
    }
    let first = ask_password(
        call,
        &format!("New password for {user}, at least 12 characters: "),
    )?;
    if ask_password(call, "The same again: ")? != first {
        return Err(Failure::Usage(
            "the two passwords are not the same; nothing was done".to_owned(),
        ));
    }
    Ok(first)
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Administrator => "administrator",
        Role::Operator => "operator",
        Role::Auditor => "auditor",
    }
}
