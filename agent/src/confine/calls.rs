//! System calls (seccomp). An agent that starts nothing is held to a list of what it uses, and told that the kernel doesn't know
//! the rest (`ENOSYS`), for which every library has an answer. Programs are nobody's to list: where some are configured, what no
//! ordinary program needs is refused instead (`EPERM`).

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use super::{Confined, Hold, Layer, Starts};

/// What the agent's own code, its libraries and the C library use. Files:
const FILES: &[libc::c_long] = &[
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_ioctl,
    libc::SYS_linkat,
    libc::SYS_lseek,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_write,
    libc::SYS_writev,
];
/// Waiting, time, signals and memory:
const RUNNING: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_get_robust_list,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_prlimit64,
    libc::SYS_pselect6,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_tkill,
    libc::SYS_uname,
];
/// The network; `socket` has its own rule.
const NETWORK: &[libc::c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
];
/// Older names for some of the above, which x86_64 has kept and C libraries use.
#[cfg(target_arch = "x86_64")]
const OLDER: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_getrlimit,
    libc::SYS_gettimeofday,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[libc::c_long] = &[];

/// What no ordinary program needs, and what a break-in begins with.
const DANGEROUS: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_userfaultfd,
];
/// What only a program needs that changes the system itself.
const OF_THE_SYSTEM: &[libc::c_long] = &[
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_vhangup,
];

pub(super) fn restrict(starts: Starts) -> Confined {
    let program = match filter(starts) {
        Ok(program) => program,
        Err(error) => {
            return Confined::lacking(
                Layer::SystemCalls,
                Hold::None,
                format!("not restricted: {error}"),
            );
        }
    };
    match seccompiler::apply_filter_all_threads(&program) {
        Ok(()) => match starts {
            Starts::Nothing => Confined::new(
                Layer::SystemCalls,
                Hold::Full,
                "held to the list of what the agent uses",
            ),
            Starts::Programs => Confined::new(
                Layer::SystemCalls,
                Hold::Part,
                "what no ordinary program needs is refused; programs are configured, so there is no complete list",
            ),
            Starts::System => Confined::new(
                Layer::SystemCalls,
                Hold::Part,
                "what a break-in begins with is refused; a program that updates the device or switches it off is configured",
            ),
        },
        Err(_) => Confined::lacking(
            Layer::SystemCalls,
            Hold::None,
            "not restricted: this kernel has no system call filter (seccomp)",
        ),
    }
}

/// The filter, as the kernel runs it.
fn filter(starts: Starts) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = match starts {
        Starts::Nothing => SeccompFilter::new(
            of_the_agent()?,
            SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
            SeccompAction::Allow,
            arch,
        ),
        Starts::Programs => refusing([DANGEROUS, OF_THE_SYSTEM].concat(), arch),
        Starts::System => refusing(DANGEROUS.to_vec(), arch),
    };
    filter?.try_into()
}

fn refusing(calls: Vec<i64>, arch: TargetArch) -> Result<SeccompFilter, BackendError> {
    SeccompFilter::new(
        calls.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        arch,
    )
}

fn of_the_agent() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let whole = [FILES, RUNNING, NETWORK, OLDER].concat();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        whole.into_iter().map(|call| (call, Vec::new())).collect();
    // A thread, but no process. (`clone3` hides its flags from filters; who is told that it's unknown takes this one.)
    rules.insert(
        libc::SYS_clone,
        vec![masked(0, libc::CLONE_THREAD, libc::CLONE_THREAD)?],
    );
    rules.insert(
        libc::SYS_prctl,
        vec![
            is(0, libc::PR_SET_NAME)?,
            is(0, libc::PR_GET_NAME)?,
            is(0, libc::PR_GET_NO_NEW_PRIVS)?,
        ],
    );
    let families = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    rules.insert(
        libc::SYS_socket,
        families
            .into_iter()
            .map(|family| is(0, family))
            .collect::<Result<_, _>>()?,
    );
    rules.insert(libc::SYS_socketpair, vec![is(0, libc::AF_UNIX)?]);
    // Memory that can be written never becomes code. The shipped program is static and loads none later; a dynamic one may still
    // map the libraries in which the C library looks up names.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let mut allowed = vec![masked(2, libc::PROT_EXEC, 0)?];
        if cfg!(target_env = "gnu") {
            allowed.push(masked(
                2,
                libc::PROT_EXEC | libc::PROT_WRITE,
                libc::PROT_EXEC,
            )?);
        }
        rules.insert(call, allowed);
    }
    Ok(rules)
}

/// An argument that has this value.
fn is(argument: u8, value: libc::c_int) -> Result<SeccompRule, BackendError> {
    rule(argument, SeccompCmpOp::Eq, value)
}

/// An argument that, of these bits, has exactly those.
fn masked(
    argument: u8,
    mask: libc::c_int,
    value: libc::c_int,
) -> Result<SeccompRule, BackendError> {
    rule(argument, SeccompCmpOp::MaskedEq(bits(mask)), value)
}

fn rule(argument: u8, how: SeccompCmpOp, value: libc::c_int) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(
        argument,
        SeccompCmpArgLen::Dword,
        how,
        bits(value),
    )?])
}

fn bits(value: libc::c_int) -> u64 {
    u64::from(value.unsigned_abs())
}
