//! A kernel before Linux 6.15, as far as it matters here: it does not know TCP_RTO_MAX_MS.

use nix::errno::Errno;
use nix::libc;

/// `TCP_RTO_MAX_MS` of linux/tcp.h.
const TCP_RTO_MAX_MS: u32 = 44;

/// Runs `work` in a thread of its own: for it, and all threads and processes that it starts, the kernel is an older one.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let inside = || {
        refuse_option().expect("a seccomp filter");
        work()
    };
    std::thread::scope(|scope| scope.spawn(inside).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A filter of system calls that answers ENOPROTOOPT to setsockopt(_, IPPROTO_TCP, TCP_RTO_MAX_MS, ...).
#[allow(unsafe_code)]
fn refuse_option() -> nix::Result<()> {
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    // `struct seccomp_data` has the call's number first, then eight bytes for each argument from byte 16 on.
    let (number, level, name) = (0, 16 + 8, 16 + 2 * 8);
    let load = |from: u32| op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, from, 0, 0);
    let unless = |value: u32, skip: u8| op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skip);
    let say = |verdict: u32| op(libc::BPF_RET | libc::BPF_K, verdict, 0, 0);
    let mut filter = [
        load(number),
        unless(libc::SYS_setsockopt as u32, 5),
        load(level),
        unless(libc::IPPROTO_TCP as u32, 3),
        load(name),
        unless(TCP_RTO_MAX_MS, 1),
        say(libc::SECCOMP_RET_ERRNO | Errno::ENOPROTOOPT as u32),
        say(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: the kernel copies the program, which lives through the call, and writes nothing.
    Errno::result(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
    })?;
    Ok(())
}
