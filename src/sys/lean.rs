//! The unsafe code of lean builds. What it decides: nothing. What it never does: anything they do not need.
//!
//! std links an unwinder: for the panic hook, a DWARF reader of 214 kB that is useless in a stripped binary, and a
//! static libunwind of 45 kB on musl. Where a panic aborts, nothing unwinds. So the functions that std wants from the
//! unwinder are here: `_Unwind_Backtrace` answers "end of stack" at once, and fat LTO drops the reader; the others
//! are named by std's personality routine, which only an unwinder calls. A panic's message and place are still
//! printed.
//!
//! musl names a thread by `snprintf` into a path of /proc, which links all of `printf`, floats included: 11 kB. A
//! thread that names itself, as std's threads do, needs only `prctl`.
//!
//! std's own start of a program (a handler for stack overflows, threads' names and identities) is 14 kB: `main` does what
//! is needed of it.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_char, c_int};
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStringExt;

use nix::sys::signal::{SigHandler, Signal, signal};

/// The program's entry, which the C library calls.
// SAFETY: the name is the linker's own for exactly this function, and the signature is that of ISO C.
#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    open_standard_files();
    // SAFETY: there is no other thread yet, and being ignored needs no handler. A write to a connection that is gone is an
    // error for us, not the end.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    let arguments = (0..usize::try_from(count).unwrap_or(0)).map(|n| {
        // SAFETY: ISO C: `count` pointers to strings, each with a zero byte at its end, that stay for ever.
        let argument = unsafe { CStr::from_ptr(*arguments.add(n)) };
        OsString::from_vec(argument.to_bytes().to_vec())
    });
    crate::run(arguments).code().into()
}

/// Whoever starts us with closed standard files must not find log lines in a socket that got their number.
fn open_standard_files() {
    while let Ok(file) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        if file.as_raw_fd() > 2 {
            return;
        }
        let _ = file.into_raw_fd();
    }
}

/// `_URC_END_OF_STACK`: there are no more frames.
const END_OF_STACK: i32 = 5;

/// Takes the place of libgcc's or libunwind's function of this name. It looks at neither argument.
// SAFETY: the name is the linker's own for exactly this function, and the signature is that of the C++ ABI for
// exception handling (level 1, 1.6); a caller may get any `_Unwind_Reason_Code`, END_OF_STACK among them.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(_callback: *const (), _argument: *mut ()) -> i32 {
    END_OF_STACK
}

/// Functions of the unwinder that are named but never called here.
macro_rules! never_called {
    ($($name:ident)*) => {$(
        // SAFETY: no argument is looked at and nothing is returned, so that any signature fits.
        #[unsafe(no_mangle)]
        extern "C" fn $name() -> ! {
            std::process::abort()
        }
    )*};
}

never_called! {
    _Unwind_DeleteException _Unwind_GetDataRelBase _Unwind_GetIP _Unwind_GetIPInfo _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart _Unwind_GetTextRelBase _Unwind_RaiseException _Unwind_Resume _Unwind_SetGR _Unwind_SetIP
}

#[cfg(target_env = "musl")]
mod thread_name {
    use std::ffi::{c_char, c_int};

    /// `PR_SET_NAME`: the calling thread's name, of which 15 bytes are kept.
    const SET_NAME: c_int = 15;

    // SAFETY: the C library's own declaration.
    unsafe extern "C" {
        fn prctl(option: c_int, ...) -> c_int;
    }

    /// Takes the place of musl's function of this name. `std::thread`, its only user here, names the calling thread.
    ///
    /// # Safety
    /// `name` ends with a zero byte.
    // SAFETY: the name is the linker's own for exactly this function, and the signature is the C library's
    // (`pthread_t` is a pointer in musl).
    #[unsafe(no_mangle)]
    unsafe extern "C" fn pthread_setname_np(_thread: *mut (), name: *const c_char) -> c_int {
        // SAFETY: PR_SET_NAME reads a string up to its zero byte, at most 16 bytes.
        unsafe { prctl(SET_NAME, name) }
    }
}
