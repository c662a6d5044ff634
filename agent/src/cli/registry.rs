//! `umbra-agent registry`: through the running agent, so that a change counts at once, or on the files where none runs.

use std::io::{Read as _, Write};

use umbra_protocol::Secret;
use umbra_protocol::settings::Value;

use super::grammar::{Count, Grammar, Line, Opt, Positional};
use super::{Problem, agent, tell};
use crate::control::client::{ANSWER_DEADLINE, ClientError};
use crate::control::{Request, Response};
use crate::exit::Exit;
use crate::files::Files;
use crate::paths::Paths;
use crate::registry::{self, Entry, Registry};

/// More than any value.
const STDIN_MAX: u64 = 8 * 1024;

const NAME: Positional = Positional {
    name: "NAME",
    about: "Full name.",
    count: Count::One,
};

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "registry",
    about: "Show and change the device's parameters.",
    examples: &[
        "umbra-agent registry list network.vncserver",
        "umbra-agent registry set network.vncserver.enabled true",
    ],
    commands: &[
        Grammar {
            name: "get",
            about: "Show one parameter: value, where the value comes from, what would be accepted.",
            examples: &["umbra-agent registry get network.vncserver.secure_mode"],
            options: &[Opt::JSON],
            positionals: &[NAME],
            ..Grammar::NEW
        },
        Grammar {
            name: "set",
            about: "Set a parameter on this device; it counts at once.",
            examples: &[
                "umbra-agent registry set network.vncserver.port 5901",
                "umbra-agent registry set umbra.vncserver.command /usr/bin/x11vnc -- -inetd -quiet",
                "umbra-agent registry set network.vncserver.crypt_password --stdin < password.txt",
            ],
            options: &[Opt {
                name: "stdin",
                about: "Read the value from standard input, one line: for secrets.",
                ..Opt::FLAG
            }],
            positionals: &[
                NAME,
                Positional {
                    name: "VALUE",
                    about: "The value; several for a list. Secrets are not accepted here.",
                    count: Count::ManyUnless("stdin"),
                },
            ],
            ..Grammar::NEW
        },
        Grammar {
            name: "list",
            about: "Show all parameters, or those whose name begins with PREFIX.",
            examples: &[
                "umbra-agent registry list",
                "umbra-agent registry list umbra.",
            ],
            options: &[
                Opt {
                    excludes: &["markdown"],
                    ..Opt::JSON
                },
                Opt {
                    name: "markdown",
                    about: "The table of all parameters with defaults and meanings, for the documentation.",
                    ..Opt::FLAG
                },
            ],
            positionals: &[Positional {
                name: "PREFIX",
                about: "Beginning of the names.",
                count: Count::Optional,
            }],
            ..Grammar::NEW
        },
        Grammar {
            name: "reset",
            about: "Forget what was set on this device for a parameter.",
            examples: &["umbra-agent registry reset network.vncserver.port"],
            positionals: &[NAME],
            ..Grammar::NEW
        },
    ],
    ..Grammar::NEW
};

pub(super) async fn run(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let name = line.word().unwrap_or_default().to_owned();
    match line.command(1) {
        "list" => list(line, name, paths, out).await,
        "get" => {
            let (entries, _) = read(Request::RegistryGet { name }, paths).await?;
            if line.has("json") {
                print_json(&entries, out)?;
                return Ok(Exit::Ok);
            }
            for entry in &entries {
                writeln!(out, "{}", entry.in_force())?;
                writeln!(out, "{}", entry.doc)?;
                let who = if entry.local_only {
                    ", on the device only"
                } else {
                    ""
                };
                writeln!(out, "Accepts {}{who}.", entry.accepts)?;
            }
            Ok(Exit::Ok)
        }
        "set" => {
            let values = line.words().get(1..).unwrap_or_default();
            let words = words(&name, values, line.has("stdin"))?;
            match agent(paths).await? {
                Some(client) => tell(client, &Request::RegistrySet { name, words }, out).await,
                None => {
                    let words: Vec<String> =
                        words.iter().map(|word| word.reveal().to_owned()).collect();
                    let entry = Registry::open(paths, &Files::new()).set(&name, &words)?;
                    writeln!(out, "{}", entry.in_force())?;
                    Ok(Exit::Ok)
                }
            }
        }
        _ => match agent(paths).await? {
            Some(client) => tell(client, &Request::RegistryReset { name }, out).await,
            None => {
                let entry = Registry::open(paths, &Files::new()).reset(&name)?;
                writeln!(out, "{}", entry.in_force())?;
                Ok(Exit::Ok)
            }
        },
    }
}

async fn list(
    line: &Line,
    prefix: String,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    if line.has("markdown") {
        write!(out, "{}", registry::markdown())?;
        return Ok(Exit::Ok);
    }
    let (entries, problems) = read(Request::RegistryList { prefix }, paths).await?;
    if line.has("json") {
        print_json(&entries, out)?;
    } else {
        for entry in &entries {
            writeln!(
                out,
                "{} = {}  ({})",
                entry.name,
                shown(&entry.value),
                entry.layer.word()
            )?;
        }
        for problem in &problems {
            writeln!(out, "problem: {problem}")?;
        }
    }
    Ok(if problems.is_empty() {
        Exit::Ok
    } else {
        Exit::Data
    })
}

/// Arguments of a program can be read by every user of the machine: secrets come in another way.
fn words(name: &str, values: &[String], stdin: bool) -> Result<Vec<Secret>, Problem> {
    if stdin {
        let mut text = zeroize::Zeroizing::new(String::new());
        std::io::stdin()
            .lock()
            .take(STDIN_MAX)
            .read_to_string(&mut text)?;
        return Ok(vec![Secret::new(text.trim_end_matches(['\r', '\n']))]);
    }
    if registry::is_secret(name) {
        let sentence =
            format!("{name} is a secret: write it into a file and give it with “--stdin < FILE”");
        return Err(Problem::new(Exit::Usage, sentence));
    }
    Ok(values
        .iter()
        .map(|value| Secret::new(value.as_str()))
        .collect())
}

async fn read(request: Request, paths: &Paths) -> Result<(Vec<Entry>, Vec<String>), Problem> {
    if let Some(mut client) = agent(paths).await? {
        return match client.ask(&request, ANSWER_DEADLINE).await? {
            Response::Registry { entries, problems } => Ok((entries, problems)),
            Response::Failed(failure) => Err(Problem::from(failure)),
            Response::Status(_) | Response::Done { .. } => Err(Problem::from(ClientError::Answer)),
        };
    }
    let registry = Registry::open_quietly(paths);
    let entries = match &request {
        Request::RegistryGet { name } => vec![registry.get(name)?],
        Request::RegistryList { prefix } => registry.list(prefix),
        Request::Status {}
        | Request::Watch {}
        | Request::RegistrySet { .. }
        | Request::RegistryReset { .. }
        | Request::Enrol { .. }
        | Request::Leave {}
        | Request::Consent { .. }
        | Request::EndSession { .. } => Vec::new(),
    };
    Ok((entries, registry.problems()))
}

fn print_json(entries: &[Entry], out: &mut dyn Write) -> Result<(), Problem> {
    let json =
        serde_json::to_string(entries).map_err(|error| Problem::of(Exit::Internal, &error))?;
    writeln!(out, "{json}")?;
    Ok(())
}

fn shown(value: &Value) -> String {
    match value {
        Value::Text(text) if text.is_empty() => "(empty)".to_owned(),
        Value::List(items) if items.is_empty() => "(empty)".to_owned(),
        Value::List(items) => items.join(" "),
        Value::Bool(_) | Value::Int(_) | Value::Text(_) => value.to_string(),
    }
}
