//! What this binary is: version, target, features.

/// `rathole VERSION`.
#[allow(dead_code)]
pub fn short() -> String {
    format!("rathole {VERSION}")
}

/// The same, with target and features.
pub fn long() -> String {
    format!("{VERSION}\ntarget: {}\nfeatures: {}", target(), features().join(" "))
}

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

fn target() -> String {
    let env = if cfg!(target_env = "musl") {
        "-musl"
    } else if cfg!(target_env = "gnu") {
        "-gnu"
    } else {
        ""
    };
    format!("{}-{}{env}", std::env::consts::ARCH, std::env::consts::OS)
}

/// Those compiled in.
pub fn features() -> Vec<&'static str> {
    let all = [
        ("server", cfg!(feature = "server")),
        ("client", cfg!(feature = "client")),
        ("tls", cfg!(feature = "tls")),
        ("noise", cfg!(feature = "noise")),
        ("websocket", cfg!(feature = "websocket")),
        ("proxy", cfg!(feature = "proxy")),
        ("cli", cfg!(feature = "cli")),
        ("hot-reload", cfg!(feature = "hot-reload")),
    ];
    all.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect()
}
