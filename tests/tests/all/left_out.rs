//! Rules of the protocol that a test leaves out: in a process of its own, since a rule is left out of a
//! whole process, and other tests may be in this one.

use std::process::{Command, Stdio};

use larder_engine::protocol::{Rule, leave_out};

/// Set in a process that leaves a rule out.
const CHILD: &str = "LARDER_LEFT_OUT";
/// What such a process prints when it has done what it should.
const FOUND: &str = "found what is missing";

/// Runs `find` without a rule, in a new process that runs nothing but the test of this name.
///
/// `find` fails by panicking, if nobody misses the rule.
pub fn without(rule: Rule, test: &str, find: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        leave_out(Some(rule));
        find();
        println!("{FOUND}");
        return;
    }
    // Names of tests do not have the crate's.
    let (_, test) = test.split_once("::").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains(FOUND),
        "{said}{complained}"
    );
    println!("{said}");
}
