//! Processes of a test, most of which are killed: ignored tests of the same program, which run as its children and never by
//! themselves.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Starts the ignored test of this name as a process that is given the directory.
pub fn start_child(test: &str, dir: &Path) -> Child {
    start_child_in(test, dir, &[])
}

/// The same, with these variables in its environment.
pub fn start_child_in(test: &str, dir: &Path, environment: &[(&str, &Path)]) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this test binary"))
        .args(["--ignored", "--exact", test, "--nocapture"])
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child process");
    let mut input = child.stdin.take().expect("its input");
    writeln!(input, "{}", dir.display()).expect("it reads");
    child
}

/// What the process of such a test does with the directory that it is given.
pub fn run_child(work: impl AsyncFnOnce(&Path)) {
    let mut dir = String::new();
    std::io::stdin().read_line(&mut dir).expect("a directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(work(&PathBuf::from(dir.trim())));
}

/// Tells who started this process how far it came.
pub fn acknowledge(number: u64) {
    let mut output = std::io::stdout();
    writeln!(output, "acknowledged {number}").expect("somebody reads");
    output.flush().expect("somebody reads");
}

/// The number that a line of a child's output acknowledges; the first one carries the test runner's own words before it.
pub fn acknowledged(line: &str) -> Option<u64> {
    let (_, number) = line.rsplit_once("acknowledged ")?;
    number.parse().ok()
}
