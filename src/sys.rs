//! The only unsafe code. What it decides: nothing. What it never does: anything the lean build does not need.
//!
//! std links an unwinder: for the panic hook, a DWARF reader of 214 kB that is useless in a stripped binary, and a
//! static libunwind of 45 kB on musl. Where a panic aborts, nothing unwinds. So the functions that std wants from the
//! unwinder are here: `_Unwind_Backtrace` answers "end of stack" at once, and fat LTO drops the reader; the others
//! are named by std's personality routine, which only an unwinder calls. A panic's message and place are still
//! printed.
#![allow(unsafe_code)]

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
