//! `umbra-agent cert`: the certificate that operators' consoles compare, for people and for other tools.

use std::io::Write;

use clap::{Args, Subcommand};

use super::Problem;
use crate::clock::date;
use crate::exit::Exit;
use crate::identity;
use crate::paths::Paths;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the device's certificate.
    Show {
        /// The certificate itself, PEM.
        #[arg(long)]
        pem: bool,
    },
}

pub(super) fn run(
    arguments: &Arguments,
    paths: &Paths,
    out: &mut dyn Write,
) -> Result<Exit, Problem> {
    let Command::Show { pem } = &arguments.command;
    let Some(certificate) = identity::load_certificate(paths)? else {
        let sentence = format!(
            "there is no certificate at {}; “umbra-agent identity” makes one",
            paths.certificate().display()
        );
        return Err(Problem::new(Exit::Unavailable, sentence));
    };
    if *pem {
        write!(out, "{}", certificate.pem)?;
        return Ok(Exit::Ok);
    }
    let unit = certificate
        .unit_id
        .as_ref()
        .map_or_else(|| "unknown".to_owned(), ToString::to_string);
    writeln!(out, "unit ID      {unit}")?;
    writeln!(out, "device ID    {}", certificate.device_id)?;
    writeln!(out, "SHA-256      {}", certificate.fingerprint)?;
    writeln!(
        out,
        "valid        {} to {}",
        date(certificate.not_before),
        date(certificate.not_after)
    )?;
    writeln!(out, "file         {}", paths.certificate().display())?;
    Ok(Exit::Ok)
}
