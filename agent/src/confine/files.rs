//! Files (Landlock): what the agent may read, what it may write, and that it may run nothing where nothing is configured.
//! Where the kernel knows them, signals to others and other programs' abstract sockets are out of reach as well.

use std::path::PathBuf;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::{Confined, Hold, Layer, Plan, Starts};

/// The newest version whose rules are known here; older kernels hold what they know of it.
const KNOWN: ABI = ABI::V6;

pub(super) fn restrict(plan: &Plan) -> Confined {
    if plan.starts == Starts::System {
        return Confined::new(
            Layer::Files,
            Hold::None,
            "not restricted: the configuration names a program that updates the device or switches it off",
        );
    }
    // Without the last of these three, the partition that the first will lead to isn't mounted yet.
    if let Some(missing) = plan.written.iter().take(3).find(|path| !path.is_dir()) {
        return Confined::lacking(
            Layer::Files,
            Hold::None,
            format!(
                "not restricted: {} wasn't there when the agent started, and would have been shut out for good. Restart the agent \
                 once it is",
                missing.display()
            ),
        );
    }
    let what = match plan.starts {
        Starts::Nothing => "only its own folders can be written, and no program can be run",
        Starts::Programs | Starts::System => {
            "outside its own and temporary folders nothing can be written"
        }
    };
    match enforce(plan) {
        Ok(RulesetStatus::FullyEnforced) => Confined::new(Layer::Files, Hold::Full, what),
        Ok(RulesetStatus::PartiallyEnforced) => Confined::new(
            Layer::Files,
            Hold::Part,
            format!("{what}, as far as this kernel knows such rules"),
        ),
        Ok(RulesetStatus::NotEnforced) => Confined::lacking(
            Layer::Files,
            Hold::None,
            "not restricted: this kernel has no Landlock, or it is switched off",
        ),
        Err(error) => {
            Confined::lacking(Layer::Files, Hold::None, format!("not restricted: {error}"))
        }
    }
}

fn enforce(plan: &Plan) -> Result<RulesetStatus, RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)?;
    if plan.starts == Starts::Nothing && !speaks_to_an_abstract_socket() {
        ruleset = ruleset.scope(Scope::from_all(KNOWN))?;
    }
    let status = ruleset
        .create()?
        .add_rules(path_beneath_rules(&plan.read, reading(plan.starts)))?
        .add_rules(path_beneath_rules(&plan.written, writing(plan.starts)))?
        .add_rules(path_beneath_rules(
            [PathBuf::from("/dev/null")],
            AccessFs::ReadFile | AccessFs::WriteFile,
        ))?
        .restrict_self()?;
    Ok(status.ruleset)
}

fn reading(starts: Starts) -> BitFlags<AccessFs> {
    match starts {
        Starts::Nothing => AccessFs::ReadFile | AccessFs::ReadDir,
        Starts::Programs | Starts::System => AccessFs::from_read(KNOWN),
    }
}

fn writing(starts: Starts) -> BitFlags<AccessFs> {
    let own = AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::Refer
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSock
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir;
    match starts {
        Starts::Nothing => own,
        Starts::Programs | Starts::System => {
            AccessFs::from_all(KNOWN) & !(AccessFs::MakeBlock | AccessFs::MakeChar)
        }
    }
}

/// The service manager may listen on one.
fn speaks_to_an_abstract_socket() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|at| at.as_encoded_bytes().first() == Some(&b'@'))
}
