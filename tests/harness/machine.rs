//! A machine in an emulator: QEMU as a child process with a kernel, disks in files and, if wanted, a USB stick. What it says on
//! its serial line is the program's output, and a power cut is a SIGKILL. From within, this machine's loopback is 10.0.2.2; into it
//! leads nothing but one port, forwarded from loopback.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::program::{Program, ProgramError};
use crate::scratch::Scratch;

/// Where a machine reaches the loopback of this one.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

/// How long the kernel may take to its first line before hardware acceleration counts as broken. It takes a moment where it works.
const PROBE: Duration = Duration::from_secs(10);
/// What every Linux says first.
const FIRST_LINE: &str = "Linux version";

/// A processor that machines are emulated for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// 64-bit PCs.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Processor {
    /// Its name, as the kernel has it.
    pub fn name(self) -> &'static str {
        match self {
            Processor::X86_64 => "x86_64",
            Processor::Aarch64 => "aarch64",
        }
    }

    /// The processor of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Processor::X86_64, Processor::Aarch64]
            .into_iter()
            .find(|processor| processor.name() == name)
    }

    fn serial(self) -> &'static str {
        match self {
            Processor::X86_64 => "ttyS0",
            Processor::Aarch64 => "ttyAMA0",
        }
    }
}

/// Who does the machine's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// This machine's own processor, through KVM.
    Kvm,
    /// QEMU, instruction by instruction.
    Emulation,
}

impl Engine {
    /// The quickest that really works: a machine may have `/dev/kvm` and still run nothing with it.
    pub async fn find(
        scratch: &Scratch,
        processor: Processor,
        kernel: &Path,
    ) -> Result<Self, ProgramError> {
        if processor.name() != std::env::consts::ARCH || !Path::new("/dev/kvm").exists() {
            return Ok(Engine::Emulation);
        }
        let mut command = emulator(processor, Engine::Kvm);
        command
            .args(["-m", "256", "-kernel"])
            .arg(kernel)
            .arg("-append")
            .arg(format!("console={} panic=-1", processor.serial()));
        let mut program = Program::start(scratch, "kvm-probe", &mut command)?;
        let works = program.wait_for_line(FIRST_LINE, PROBE).await.is_ok();
        Ok(if works {
            Engine::Kvm
        } else {
            Engine::Emulation
        })
    }
}

fn emulator(processor: Processor, engine: Engine) -> Command {
    let mut command = Command::new(format!("qemu-system-{}", processor.name()));
    match (processor, engine) {
        (Processor::X86_64, Engine::Kvm) => command.args(["-M", "q35", "-cpu", "host"]),
        // Five levels of page tables only cost time.
        (Processor::X86_64, Engine::Emulation) => {
            command.args(["-M", "q35", "-cpu", "max,la57=off"])
        }
        (Processor::Aarch64, Engine::Kvm) => {
            command.args(["-M", "virt,gic-version=host", "-cpu", "host"])
        }
        (Processor::Aarch64, Engine::Emulation) => {
            command.args(["-M", "virt,gic-version=3", "-cpu", "cortex-a57"])
        }
    };
    command.args(match engine {
        Engine::Kvm => ["-accel", "kvm"],
        Engine::Emulation => ["-accel", "tcg,thread=multi"],
    });
    // Restarting ends the process: so every start is a process of its own, with a log of its own.
    command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    command.args([
        "-chardev",
        "stdio,id=line,signal=off",
        "-serial",
        "chardev:line",
    ]);
    command
}

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// Its name, and that of its logs.
    pub name: String,
    /// Its processor.
    pub processor: Processor,
    /// Who does its work.
    pub engine: Engine,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// More words for the kernel.
    pub words: Vec<String>,
    /// Disks that the machine can't write to, in their order; they come first.
    pub fixed: Vec<PathBuf>,
    /// Disks that it can, in their order.
    pub disks: Vec<PathBuf>,
    /// A folder that is a USB stick to the machine, with a FAT file system and this label.
    pub stick: Option<(PathBuf, String)>,
    /// The address of its network adapter.
    pub mac: String,
    /// A port of this machine's loopback that leads to the same port of that machine.
    pub port: u16,
}

impl MachineConfig {
    fn command(&self) -> Command {
        let mut command = emulator(self.processor, self.engine);
        command.args(["-smp", "2", "-m", "1024"]);
        command.arg("-kernel").arg(&self.kernel);
        command.arg("-initrd").arg(&self.initramfs);
        command.arg("-append").arg(format!(
            "console={} panic=-1 {}",
            self.processor.serial(),
            self.words.join(" ")
        ));
        let disks = self.fixed.iter().map(|disk| (disk, ",readonly=on"));
        let disks = disks.chain(self.disks.iter().map(|disk| (disk, "")));
        for (number, (disk, more)) in disks.enumerate() {
            command.arg("-drive").arg(format!(
                "if=none,id=disk{number},format=raw,file={}{more}",
                disk.display()
            ));
            command.args(["-device", &format!("virtio-blk-pci,drive=disk{number}")]);
        }
        if let Some((folder, label)) = &self.stick {
            command.arg("-drive").arg(format!(
                "if=none,id=stick,driver=vvfat,dir={},label={label},read-only=on",
                folder.display()
            ));
            command.args(["-device", "qemu-xhci", "-device"]);
            command.arg("usb-storage,drive=stick,removable=on");
        }
        let port = self.port;
        command.arg("-netdev").arg(format!(
            "user,id=net,ipv6=off,hostfwd=tcp:127.0.0.1:{port}-:{port}"
        ));
        command.arg("-device").arg(format!(
            "virtio-net-pci,netdev=net,mac={},romfile=",
            self.mac
        ));
        command.args(["-device", "virtio-rng-pci"]);
        command
    }

    /// Switches the machine on.
    pub fn start(&self, scratch: &Scratch) -> Result<Program, ProgramError> {
        Program::start(scratch, &self.name, &mut self.command())
    }

    /// Switches it on and waits for a line that comes early. An emulated machine with two processors rarely loses its clock before
    /// that and stands still: then it is switched off and on again. Gives how often that was.
    pub async fn start_until(
        &self,
        scratch: &Scratch,
        line: &str,
        limit: Duration,
    ) -> Result<(Program, u32), ProgramError> {
        let mut stalled = 0;
        loop {
            let mut program = self.start(scratch)?;
            match program.wait_for_line(line, limit).await {
                Ok(_) => return Ok((program, stalled)),
                // What has ended did not stand still.
                Err(error) if stalled == 2 || program.exited().is_some() => return Err(error),
                Err(_) => stalled += 1,
            }
        }
    }
}

/// A port of loopback that nobody has at the moment. QEMU can be told a port only by number; should somebody take it in between, QEMU
/// ends at once and says so.
pub fn free_port() -> std::io::Result<u16> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(TcpListener::bind(any)?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_its_disks_in_their_order_and_no_way_in_but_one_port() {
        let config = MachineConfig {
            name: "machine".into(),
            processor: Processor::X86_64,
            engine: Engine::Emulation,
            kernel: "linux".into(),
            initramfs: "initramfs".into(),
            words: vec!["one=1".into(), "two".into()],
            fixed: vec!["root".into()],
            disks: vec!["state".into()],
            stick: Some(("folder".into(), "UMBRA".into())),
            mac: "52:54:00:00:00:01".into(),
            port: 4711,
        };
        let command = config.command();
        let words: Vec<_> = command
            .get_args()
            .map(|word| word.to_string_lossy())
            .collect();
        let line = words.join(" ");
        for part in [
            "-append console=ttyS0 panic=-1 one=1 two",
            "id=disk0,format=raw,file=root,readonly=on",
            "id=disk1,format=raw,file=state -device",
            "driver=vvfat,dir=folder,label=UMBRA",
            "hostfwd=tcp:127.0.0.1:4711-:4711",
            "mac=52:54:00:00:00:01",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
        assert_eq!(line.matches("hostfwd").count(), 1);
        for processor in ["x86_64", "aarch64"] {
            assert_eq!(
                Processor::named(processor).map(Processor::name),
                Some(processor)
            );
        }
        assert_eq!(Processor::named("vax"), None);
    }
}
