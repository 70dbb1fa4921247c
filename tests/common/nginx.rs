//! A real nginx, for the recipes of docs/.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::Process;
use super::{net, skip};

/// A running nginx with everything it writes in a directory of its own.
pub struct Nginx {
    /// One process: no master, no fork.
    pub process: Process,
    _dir: TempDir,
}

impl Nginx {
    /// Runs `blocks` inside an `http` block, and waits until it listens.
    pub fn http(blocks: &str, addr: SocketAddr) -> Self {
        Nginx::start("", blocks, addr)
    }

    /// Runs a `stream` block.
    pub fn stream(block: &str, addr: SocketAddr) -> Self {
        let module = stream_module().expect("asked for before");
        Nginx::start(&format!("load_module {};\nevents {{}}\n{block}", module.display()), "", addr)
    }

    fn start(main: &str, blocks: &str, addr: SocketAddr) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("    {kind}_temp_path {}/{kind};\n", dir.path().display()))
            .concat();
        let events = if main.contains("events {") { "" } else { "events {}" };
        let config = format!(
            "daemon off;\nmaster_process off;\npid {}/pid;\nerror_log stderr info;\n{main}\n{events}\nhttp {{\n{temp}    access_log off;\n{blocks}\n}}\n",
            dir.path().display()
        );
        std::fs::write(dir.path().join("nginx.conf"), config).unwrap();
        std::fs::write(dir.path().join("rathole_proxy.conf"), recipe("nginx-proxy.conf")).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-p"]).arg(dir.path());
        command.arg("-c").arg(dir.path().join("nginx.conf"));
        let mut process = Process::start("nginx", command);
        net::wait(&format!("nginx does not listen on {addr}"), || {
            assert!(process.is_running(), "nginx has ended");
            net::listens(addr)
        });
        Nginx { process, _dir: dir }
    }
}

/// A recipe as the documentation has it.
pub fn recipe(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether there is none; says so.
pub fn absent() -> bool {
    let found = Command::new("nginx").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let absent = !found.is_ok_and(|status| status.success());
    if absent {
        skip("nginx", "no nginx here (Debian: apt-get install nginx-light)");
    }
    absent
}

/// Whether it has no `stream` block; says so.
pub fn stream_absent() -> bool {
    if absent() {
        return true;
    }
    let absent = stream_module().is_none();
    if absent {
        skip("nginx stream", "no stream module here (Debian: apt-get install libnginx-mod-stream)");
    }
    absent
}

/// Where Debian and others keep it.
fn stream_module() -> Option<PathBuf> {
    let dirs = ["/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules"];
    dirs.map(|dir| Path::new(dir).join("ngx_stream_module.so")).into_iter().find(|path| path.is_file())
}
