//! A machine of its own for servers that ask the system for users: root's namespaces of mounts and
//! processes, so that the machine's own accounts stay as they are and no process outlives its server.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::Command;

/// The user of the servers, its number and its password.
pub const USER: &str = "bk";
pub const USER_ID: u32 = 20_001;
pub const PASSWORD: &str = "secret";

/// Tells whether this machine lets tests have such a place; says so where it does not.
pub fn are_there() -> bool {
    let made = Command::new("unshare")
        .args(["-m", "-p", "-f", "true"])
        .output();
    let are_there = made.is_ok_and(|made| made.status.success());
    if !are_there {
        eprintln!("skipped: servers with users of their own need root and namespaces");
    }
    are_there
}

/// Makes the command of a server that sees the user `bk`; `script` is what `sh` runs, in `folder`.
///
/// The user's home is `home` in that folder.
pub fn with_user(folder: &Path, script: &str) -> Command {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    let home = folder.join("home");
    if !home.exists() {
        fs::create_dir(&home).unwrap();
        chown(&home, Some(USER_ID), Some(USER_ID)).unwrap();
    }
    let hash = Command::new("openssl")
        .args(["passwd", "-6", PASSWORD])
        .output()
        .unwrap();
    let hash = String::from_utf8(hash.stdout).unwrap();
    let append = |name: &str, line: String| {
        let text = fs::read_to_string(Path::new("/etc").join(name)).unwrap();
        let path = folder.join(name);
        fs::write(&path, format!("{text}{line}\n")).unwrap();
    };
    let home = home.display();
    append(
        "passwd",
        format!("{USER}:x:{USER_ID}:{USER_ID}::{home}:/bin/sh"),
    );
    append(
        "shadow",
        format!("{USER}:{}:19000:0:99999:7:::", hash.trim()),
    );
    append("group", format!("{USER}:x:{USER_ID}:"));
    let mut command = Command::new("unshare");
    let script = format!(
        "set -e
        for name in passwd shadow group; do mount --bind $name /etc/$name; done
        mount -t proc proc /proc
        {script}"
    );
    command
        .args(["-m", "-p", "-f", "--kill-child", "sh", "-c", &script])
        .current_dir(folder);
    command
}
