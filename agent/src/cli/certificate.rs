//! `umbra-agent cert`: the certificate that operators' consoles compare, for people and for other tools.

use std::io::Write;

use super::Problem;
use super::grammar::{Grammar, Line, Opt};
use crate::clock::date;
use crate::exit::Exit;
use crate::identity;
use crate::paths::Paths;

pub(super) const GRAMMAR: Grammar = Grammar {
    name: "cert",
    about: "Show the device's certificate.",
    examples: &["umbra-agent cert show", "umbra-agent cert show --pem"],
    commands: &[Grammar {
        name: "show",
        about: "Show the device's certificate.",
        options: &[Opt {
            name: "pem",
            about: "The certificate itself, PEM.",
            ..Opt::FLAG
        }],
        ..Grammar::NEW
    }],
    ..Grammar::NEW
};

pub(super) fn run(line: &Line, paths: &Paths, out: &mut dyn Write) -> Result<Exit, Problem> {
    let Some(certificate) = identity::load_certificate(paths)? else {
        let sentence = format!(
            "there is no certificate at {}; “umbra-agent identity” makes one",
            paths.certificate().display()
        );
        return Err(Problem::new(Exit::Unavailable, sentence));
    };
    if line.has("pem") {
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
