//! The one thing that the standard library and safe wrappers cannot do: ask the kernel for a TAP device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

/// `struct ifreq` of linux/if.h, as far as TUNSETIFF reads it.
#[repr(C)]
pub struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

#[allow(unsafe_code)]
mod call {
    nix::ioctl_write_ptr_bad!(
        tun_set_interface,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        super::InterfaceRequest
    );
}

/// Makes a device of this name in the network namespace of this thread. Frames are read and written without any
/// header before them; reads do not block. The device ends with the file.
pub fn open(name: &str) -> io::Result<File> {
    let mut request = InterfaceRequest {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
        rest: [0; 22],
    };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    let file =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: the descriptor is open, and the request is a whole `struct ifreq` that outlives the call.
    #[allow(unsafe_code)]
    unsafe {
        call::tun_set_interface(file.as_raw_fd(), &request)?;
    }
    Ok(file)
}
