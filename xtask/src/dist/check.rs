//! The check of the binary as it ships: what the file is, how large, and that it does on its processor what it promises. It
//! looks at a file and never at how that came about, so that it holds for everybody's.

use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};

use super::auditable;
use super::crates::PACKAGE;
use super::elf::Facts;
use super::target::Target;
use crate::setup::on_path;
use crate::step::{say, succeeds, top};

/// How long a command of the agent may take that only says something, under emulation on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The number of the signal of an instruction that no processor has.
const SIGILL: i32 = 4;

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    what: &'static str,
    good: bool,
    seen: String,
}

impl Finding {
    fn new(what: &'static str, good: bool, seen: impl Into<String>) -> Self {
        Self {
            what,
            good,
            seen: seen.into(),
        }
    }
}

/// Looks at each file and says all that was found; anything bad is a failure.
pub(crate) fn run(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut bad = Vec::new();
    for path in files {
        say(&format!("==> check of {}", path.display()));
        let file =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        for finding in findings(path, &file)? {
            let verdict = if finding.good { "good" } else { "BAD " };
            say(&format!(
                "    {verdict}  {:<18} {}",
                finding.what, finding.seen
            ));
            if !finding.good {
                bad.push(format!(
                    "{}: {} ({})",
                    path.display(),
                    finding.what,
                    finding.seen
                ));
            }
        }
    }
    if !bad.is_empty() {
        bail!("not fit to ship:\n  {}", bad.join("\n  "));
    }
    Ok(())
}

fn findings(path: &Path, file: &[u8]) -> anyhow::Result<Vec<Finding>> {
    let facts = Facts::read(file).with_context(|| path.display().to_string())?;
    let target = Target::ALL
        .into_iter()
        .find(|target| target.machine() == facts.machine);
    let Some(target) = target else {
        return Ok(vec![Finding::new(
            "processor",
            false,
            "one that the agent isn't made for",
        )]);
    };
    let mut findings = vec![Finding::new("processor", true, target.processor())];
    findings.extend(of_file(&facts, file.len() as u64, target));
    findings.push(of_crates(file));
    findings.push(of_machine(file));
    // What wants a loader or is no program at all is not run: that would only say the same once more.
    if facts.interpreter.is_none() && facts.is_program {
        findings.extend(of_behaviour(path, target)?);
    }
    Ok(findings)
}

/// What can be said without running it.
fn of_file(facts: &Facts, size: u64, target: Target) -> Vec<Finding> {
    let said = |good: bool, yes: &str, no: &str| if good { yes } else { no }.to_owned();
    let mut findings = Vec::new();
    let mut look = |what, good, yes: &str, no: &str| {
        findings.push(Finding::new(what, good, said(good, yes, no)))
    };
    look("program", facts.is_program, "yes", "no program");
    look(
        "position",
        facts.position_independent,
        "loaded at another address each time",
        "always loaded at the same address",
    );
    look(
        "relro",
        facts.relro && facts.bind_now,
        "what the linker filled in is read-only",
        "what the linker filled in stays writable",
    );
    look(
        "stack",
        facts.stack_is_data,
        "never run as code",
        "may be run as code",
    );
    look(
        "memory",
        facts.writable_code == 0,
        "no part can be both written and run",
        "a part can be both written and run",
    );
    look(
        "library paths",
        !facts.search_path,
        "none",
        "has some of its own",
    );
    look(
        "symbols",
        !facts.symbols,
        "stripped",
        "has symbols or debugging information",
    );
    let interpreter = match (&facts.interpreter, facts.libraries) {
        (None, 0) => Finding::new("static", true, "no interpreter, no libraries"),
        (None, count) => Finding::new("static", false, format!("wants {count} libraries")),
        (Some(path), count) => Finding::new(
            "static",
            false,
            format!("wants {path} and {count} libraries"),
        ),
    };
    findings.push(interpreter);
    let budget = target.budget();
    let mut seen = format!("{size} bytes of {budget} ({} %)", size * 100 / budget);
    if size > budget {
        seen.push_str(": OVER BUDGET");
    }
    findings.push(Finding::new("size", size <= budget, seen));
    findings
}

fn of_crates(file: &[u8]) -> Finding {
    let what = "list of crates";
    match auditable::read(file) {
        Ok(list) => {
            let root = list.packages.iter().find(|package| package.root);
            let names = |name: &str| list.packages.iter().any(|package| package.name == name);
            let ours = root.is_some_and(|root| root.name == PACKAGE);
            let seen = format!("{} of them", list.packages.len());
            Finding::new(what, ours && names("rustls") && names("tokio"), seen)
        }
        Err(error) => Finding::new(what, false, error.to_string()),
    }
}

/// Folders of this machine have no business in a file that ships.
fn of_machine(file: &[u8]) -> Finding {
    let home = std::env::home_dir().map(|home| home.join(".cargo"));
    let folders = [Some(top()), home];
    let found = folders.into_iter().flatten().find(|folder| {
        let folder = folder.as_os_str().as_encoded_bytes();
        file.windows(folder.len()).any(|part| part == folder)
    });
    match found {
        None => Finding::new("builder's folders", true, "none is named"),
        Some(folder) => Finding::new(
            "builder's folders",
            false,
            format!("names {}", folder.display()),
        ),
    }
}

/// What it does when it is run.
fn of_behaviour(path: &Path, target: Target) -> anyhow::Result<Vec<Finding>> {
    if let Some(emulator) = target.emulator()
        && !on_path(&emulator)
    {
        let seen = format!("{emulator} is not there (Debian: qemu-user-static)");
        return Ok(vec![Finding::new("runs", false, seen)]);
    }
    let device = tempfile::tempdir().context("no folder for a device")?;
    let said = |arguments: &[&str]| ended(path, target, device.path(), arguments);
    let mut findings = Vec::new();

    let help = said(&["--help"])?;
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    // It calls itself what the file is called.
    let whole = ["Usage: ", "identity", "enroll", "Exit codes:"];
    let whole = whole.iter().all(|words| text.contains(words));
    findings.push(code("--help", &help, 0, whole));

    let version = said(&["--version"])?;
    let expected = format!("{PACKAGE} {}", env!("CARGO_PKG_VERSION"));
    let whole = String::from_utf8_lossy(&version.stdout).trim() == expected;
    findings.push(code("--version", &version, 0, whole));

    // A key, a certificate and files: the cryptography works on this processor.
    let identity = said(&["identity"])?;
    let whole = device.path().join("wfs/ca-certs/tc_ca.crt").is_file();
    findings.push(code("identity", &identity, 0, whole));

    // Those that need neither a server nor a broken disk; the rest is the scenarios' business.
    let documented = |number: &str| {
        let mut lines = text
            .lines()
            .skip_while(|line| *line != "Exit codes:")
            .skip(1);
        lines.any(|line| line.trim_start().starts_with(number))
    };
    let wrong = said(&["--no-such-option"])?;
    findings.push(code("wrong option", &wrong, 64, documented("64 ")));
    let absent = said(&["status"])?;
    findings.push(code("absent agent", &absent, 69, documented("69 ")));
    let unknown = said(&["registry", "set", "no.such.parameter", "1"])?;
    findings.push(code("wrong parameter", &unknown, 64, documented("64 ")));
    findings.push(of_last_words(path, target, device.path())?);
    Ok(findings)
}

fn code(what: &'static str, output: &Output, expected: i32, whole: bool) -> Finding {
    let good = output.status.code() == Some(expected) && whole;
    let mut seen = format!("{} as documented", output.status);
    if !good {
        seen = format!(
            "{} instead of {expected}, or not all that was promised; it said {:?}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Finding::new(what, good, seen)
}

/// What it says where a mistake in itself would end it. A program that ships has none that could be asked for, so its running agent
/// is sent the signal of one.
fn of_last_words(path: &Path, target: Target, root: &Path) -> anyhow::Result<Finding> {
    let mut child = started(path, target, root, &["run"])?;
    let mut said = child.stderr.take().context("its stderr is not a pipe")?;
    // Its first words: from then on it listens to signals.
    let mut first = [0; 1];
    if said.read_exact(&mut first).is_err() {
        // Its stderr is closed: it has ended, or ends with this.
        let _ = child.kill();
        child.wait()?;
        return Ok(Finding::new("last words", false, "it ends without a word"));
    }
    let id = child.id().to_string();
    let sent = succeeds(Command::new("kill").args(["-ILL", &id]));
    // Read on until it ends, which the limit below holds it to.
    let reader = std::thread::spawn(move || {
        let mut words = String::new();
        let whole = said.read_to_string(&mut words);
        whole.map(|_| words)
    });
    let output = within_patience(child, "run")?;
    let words = reader
        .join()
        .map_err(|_| anyhow!("its words cannot be read"))??;
    // An emulator has a last word of its own.
    let ours = format!("{PACKAGE} {}: ", env!("CARGO_PKG_VERSION"));
    let told = |line: &str| line.starts_with(&ours) && line.contains("the signal of a mistake");
    let good = sent && output.status.signal() == Some(SIGILL) && words.lines().any(told);
    let seen = match good {
        true => "say what ended it".to_owned(),
        false => format!("{}; it said {words:?}", output.status),
    };
    Ok(Finding::new("last words", good, seen))
}

/// Runs the agent to its end, on a device of its own.
fn ended(path: &Path, target: Target, root: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let child = started(path, target, root, arguments)?;
    within_patience(child, &arguments.join(" "))
}

fn started(path: &Path, target: Target, root: &Path, arguments: &[&str]) -> anyhow::Result<Child> {
    let path = std::path::absolute(path)?;
    let mut command = match target.emulator() {
        Some(emulator) => {
            let mut command = Command::new(emulator);
            command.arg(path);
            command
        }
        None => Command::new(path),
    };
    command.env_clear().arg("--root").arg(root).args(arguments);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // The emulator is looked for where this task finds it.
    command.envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.spawn().context("the program cannot be started")
}

fn within_patience(mut child: Child, arguments: &str) -> anyhow::Result<Output> {
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > PATIENCE {
            child.kill()?;
            bail!("{PACKAGE} {arguments} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child.wait_with_output()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bad(findings: &[Finding]) -> Vec<&'static str> {
        findings
            .iter()
            .filter(|finding| !finding.good)
            .map(|finding| finding.what)
            .collect()
    }

    fn fit() -> Facts {
        Facts {
            machine: Target::X86_64.machine(),
            is_program: true,
            position_independent: true,
            interpreter: None,
            libraries: 0,
            search_path: false,
            relro: true,
            bind_now: true,
            stack_is_data: true,
            writable_code: 0,
            symbols: false,
        }
    }

    #[test]
    fn each_single_fault_of_a_file_is_found_and_none_in_a_good_one() {
        let look = |change: &dyn Fn(&mut Facts)| {
            let mut facts = fit();
            change(&mut facts);
            bad(&of_file(&facts, 2_500_000, Target::X86_64))
        };
        assert!(look(&|_| {}).is_empty());
        assert_eq!(look(&|facts| facts.is_program = false), ["program"]);
        assert_eq!(
            look(&|facts| facts.position_independent = false),
            ["position"]
        );
        assert_eq!(
            look(&|facts| facts.interpreter = Some("/lib/ld.so".into())),
            ["static"]
        );
        assert_eq!(look(&|facts| facts.libraries = 1), ["static"]);
        assert_eq!(look(&|facts| facts.search_path = true), ["library paths"]);
        assert_eq!(look(&|facts| facts.relro = false), ["relro"]);
        assert_eq!(look(&|facts| facts.bind_now = false), ["relro"]);
        assert_eq!(look(&|facts| facts.stack_is_data = false), ["stack"]);
        assert_eq!(look(&|facts| facts.writable_code = 1), ["memory"]);
        assert_eq!(look(&|facts| facts.symbols = true), ["symbols"]);
        for target in Target::ALL {
            let budget = target.budget();
            assert_eq!(bad(&of_file(&fit(), budget + 1, target)), ["size"]);
            assert!(bad(&of_file(&fit(), budget, target)).is_empty());
            let said = |size| of_file(&fit(), size, target).pop().expect("the size").seen;
            assert!(said(budget + 1).contains("OVER BUDGET"));
            assert!(!said(budget).contains("OVER BUDGET"));
        }
    }

    #[test]
    fn a_program_of_the_distribution_is_not_fit_to_ship() {
        let failed = run(&["/bin/true".into()])
            .expect_err("it is linked dynamically")
            .to_string();
        for what in ["static (wants /", "list of crates (there is no"] {
            assert!(failed.contains(what), "{failed}");
        }
        assert!(run(&["/etc/passwd".into()]).is_err(), "no program at all");
    }

    /// A real program with every weakness that a linker can be asked for.
    #[test]
    fn a_program_with_a_runnable_stack_and_no_relro_is_seen_as_such() -> anyhow::Result<()> {
        let folder = tempfile::tempdir()?;
        let (source, program) = (folder.path().join("weak.c"), folder.path().join("weak"));
        std::fs::write(&source, "int main(void) { return 0; }\n")?;
        let mut command = Command::new("cc");
        command.args(["-static", "-no-pie", "-Wl,-z,execstack,-z,norelro", "-o"]);
        let built = command.arg(&program).arg(&source).output()?;
        anyhow::ensure!(
            built.status.success(),
            "{}",
            String::from_utf8_lossy(&built.stderr)
        );
        let file = std::fs::read(&program)?;
        let found = bad(&findings(&program, &file)?);
        for what in [
            "stack",
            "relro",
            "position",
            "symbols",
            "list of crates",
            "--help",
            "identity",
            "last words",
        ] {
            anyhow::ensure!(found.contains(&what), "{what} was not found: {found:?}");
        }
        anyhow::ensure!(!found.contains(&"static"), "{found:?}");
        Ok(())
    }

    #[test]
    fn folders_of_the_builder_are_seen() {
        let inside = format!("panicked at {}/agent/src/main.rs", top().display());
        assert!(!of_machine(inside.as_bytes()).good);
        assert!(of_machine(b"panicked at /umbra/agent/src/main.rs").good);
    }
}
