//! The processors that the agent ships for, and what is true of each. Nothing here depends on how it is built.

use anyhow::Context as _;
use object::elf::{EM_AARCH64, EM_X86_64};

/// A processor that devices have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Target {
    /// 64-bit PCs.
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit ARM boards.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Target {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The name that compilers know it by.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// The processor's own name, which `uname -m` says.
    pub(crate) fn processor(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// How it is named in an ELF file.
    pub(crate) fn machine(self) -> u16 {
        match self {
            Self::X86_64 => EM_X86_64,
            Self::Aarch64 => EM_AARCH64,
        }
    }

    /// The largest file that may ship, in bytes.
    pub(crate) fn budget(self) -> u64 {
        match self {
            Self::X86_64 => 2_500_000,
            Self::Aarch64 => 2_200_000,
        }
    }

    /// This machine's own.
    pub(crate) fn ours() -> anyhow::Result<Self> {
        let ours = Self::ALL.into_iter().find(|target| target.is_ours());
        ours.with_context(|| format!("the agent isn't made for {}", std::env::consts::ARCH))
    }

    /// Whether this machine has that processor.
    pub(crate) fn is_ours(self) -> bool {
        self.processor() == std::env::consts::ARCH
    }

    /// The program that runs a foreign processor's programs, from Debian's `qemu-user-static`.
    pub(crate) fn emulator(self) -> Option<String> {
        (!self.is_ours()).then(|| format!("qemu-{}-static", self.processor()))
    }
}
