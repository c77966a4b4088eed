//! Living with `ulimit -v`.
//!
//! glibc's malloc reserves 64 MiB of address space for each thread (an arena), far more than the tool
//! ever fills. Under a limit that is soon all there is, and an allocation that fails ends a program of
//! Rust at once. With one arena for all threads 100 MB are enough for what otherwise takes 400 MB. How
//! many there are can only be said before the program starts, so it starts itself once more.

use std::ffi::OsStr;

/// With more address space than this, arenas do not matter.
const ROOMY_BYTES: u64 = 2 << 30;

/// Where glibc reads how many arenas there may be (mallopt(3)).
const VARIABLE: &str = "MALLOC_ARENA_MAX";

/// Under a limit on address space, replaces this process by the same one with one arena. Returns where
/// there is nothing to do, or where it cannot be done.
pub fn fit_into_address_space() {
    if cfg!(target_env = "gnu")
        && std::env::var_os(VARIABLE).is_none()
        && std::fs::read_to_string("/proc/self/limits").is_ok_and(|limits| is_tight(&limits))
    {
        start_again();
    }
}

fn start_again() {
    use std::os::unix::process::CommandExt;

    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let mut args = std::env::args_os();
    let name = args.next();
    let mut command = std::process::Command::new(program);
    command.arg0(name.as_deref().unwrap_or(OsStr::new("redis-migrate")));
    // Returns only if it fails; then this process goes on with what it has.
    let _ = command.args(args).env(VARIABLE, "1").exec();
}

/// Reads /proc/self/limits (proc_pid_limits(5)): name, soft limit, hard limit, unit.
fn is_tight(limits: &str) -> bool {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max address space"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    soft.and_then(|soft| soft.parse::<u64>().ok())
        .is_some_and(|bytes| bytes < ROOMY_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_as_the_kernel_writes_it() {
        let limits = |soft: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                 Max stack size            8388608              unlimited            bytes     \n\
                 Max address space         {soft:<20} unlimited            bytes     \n"
            )
        };
        assert!(is_tight(&limits("204800000")));
        assert!(!is_tight(&limits("4294967296")));
        assert!(!is_tight(&limits("unlimited")));
        assert!(!is_tight(""));
    }
}
