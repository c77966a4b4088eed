//! The program under test, run as a user would run it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The variables that would change what the tool does.
const FOREIGN: [&str; 20] = [
    "SOURCE_REDIS_URL",
    "DESTINATION_REDIS_URL",
    "SOURCE_REDIS_PASSWORD",
    "SOURCE_REDIS_PASSWORD_FILE",
    "DESTINATION_REDIS_PASSWORD",
    "DESTINATION_REDIS_PASSWORD_FILE",
    "SOURCE_REDIS_SENTINEL_PASSWORD",
    "SOURCE_REDIS_SENTINEL_PASSWORD_FILE",
    "DESTINATION_REDIS_SENTINEL_PASSWORD",
    "DESTINATION_REDIS_SENTINEL_PASSWORD_FILE",
    "REDISCLI_AUTH",
    "DRY_RUN",
    "DEBUG",
    "REPLACE_DST_KEYS",
    "CLEAN_UP",
    "NO_COLOR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "CLICOLOR_FORCE",
    "COLUMNS",
];

/// The program that Cargo built for this test, or the one that `REDIS_MIGRATE_TOOL` names.
pub fn path() -> &'static Path {
    static PATH: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    PATH.get_or_init(|| {
        let named = std::env::var_os("REDIS_MIGRATE_TOOL").filter(|name| !name.is_empty());
        named.map_or_else(built, PathBuf::from)
    })
}

/// What Cargo built beside this test: tests lie in `deps`, programs above it.
fn built() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let mut above = test.ancestors().skip(1);
    let found = above.find_map(|directory| {
        let program = directory.join("redis-migrate");
        program.is_file().then_some(program)
    });
    found.expect("redis-migrate beside this test")
}

/// What a finished run left.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    /// Empty if stdout went to a file.
    pub stdout: Vec<u8>,
    pub stderr: String,
    /// The highest resident memory (VmHWM) seen.
    pub peak_memory_kib: u64,
    /// User and system time, in the system's ticks of 10 ms.
    pub cpu: Duration,
    pub elapsed: Duration,
}

impl Output {
    /// The exit code, or `None` if a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Panics with its words unless it ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(
            self.code(),
            Some(code),
            "{}\nstderr:\n{}\nthe end of stdout:\n{}",
            self.status,
            self.stderr,
            self.end_of_stdout()
        );
        self
    }

    /// With `--json` what went wrong stands there.
    fn end_of_stdout(&self) -> String {
        let end = self.stdout.len().saturating_sub(4_000);
        String::from_utf8_lossy(&self.stdout[end..]).into_owned()
    }

    /// The one summary that `--json` ends with: on stdout, or on stderr where stdout carries data.
    #[track_caller]
    pub fn summary(&self) -> serde_json::Value {
        let stdout = String::from_utf8_lossy(&self.stdout);
        let found: Vec<serde_json::Value> = stdout
            .lines()
            .chain(self.stderr.lines())
            .filter(|line| line.contains("\"event\":\"summary\""))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        match <[serde_json::Value; 1]>::try_from(found) {
            Ok([summary]) => summary,
            Err(found) => panic!("{} summaries\n{stdout}\n{}", found.len(), self.stderr),
        }
    }

    #[track_caller]
    pub fn success(self) -> Self {
        self.expect_code(0)
    }

    /// Panics with its words unless stderr holds this text.
    #[track_caller]
    pub fn expect_stderr(self, text: &str) -> Self {
        let stderr = &self.stderr;
        assert!(stderr.contains(text), "no {text:?} in stderr:\n{stderr}");
        self
    }
}

enum Input {
    None,
    Bytes(Vec<u8>),
    File(PathBuf),
    /// stdin stays open: [`Running::stdin`] takes it.
    Piped,
    From(Stdio),
}

/// One run that is being prepared.
pub struct Tool {
    command: Command,
    input: Input,
    stdout: Option<Stdio>,
    keep_stdout: bool,
}

impl Tool {
    pub fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(path());
        command.args(arguments);
        for name in FOREIGN {
            command.env_remove(name);
        }
        Self {
            command,
            input: Input::None,
            stdout: None,
            keep_stdout: true,
        }
    }

    pub fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn current_dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    pub fn stdin_bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Input::Bytes(bytes.into());
        self
    }

    pub fn stdin_file(mut self, file: &Path) -> Self {
        self.input = Input::File(file.to_owned());
        self
    }

    /// Leaves stdin open for the test to write to.
    pub fn stdin_piped(mut self) -> Self {
        self.input = Input::Piped;
        self
    }

    /// Reads what another run writes.
    pub fn stdin_from(mut self, stdout: std::process::ChildStdout) -> Self {
        self.input = Input::From(stdout.into());
        self
    }

    /// Sends stdout to a file instead of keeping it.
    pub fn stdout_file(mut self, file: &Path) -> Self {
        self.stdout = Some(File::create(file).expect("a file for stdout").into());
        self
    }

    /// Leaves stdout to the test: [`Running::stdout`] takes it.
    pub fn stdout_piped(mut self) -> Self {
        self.keep_stdout = false;
        self
    }

    /// Throws stdout away.
    pub fn stdout_null(mut self) -> Self {
        self.stdout = Some(Stdio::null());
        self
    }

    /// Runs it to its end.
    pub fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts it. Its output is read along, so it never waits for the test.
    pub fn spawn(mut self) -> Running {
        let mut bytes = None;
        self.command.stdin(match self.input {
            Input::None => Stdio::null(),
            Input::File(file) => File::open(file).expect("the file for stdin").into(),
            Input::Piped => Stdio::piped(),
            Input::From(stdin) => stdin,
            Input::Bytes(all) => {
                bytes = Some(all);
                Stdio::piped()
            }
        });
        self.command
            .stdout(self.stdout.unwrap_or_else(Stdio::piped));
        self.command.stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = self.command.spawn().expect("the tool starts");
        if let Some(bytes) = bytes {
            let mut stdin = child.stdin.take().expect("a pipe");
            // A tool that ends early closes the pipe, which is its right.
            std::thread::spawn(move || drop(stdin.write_all(&bytes)));
        }
        let stderr = collect(child.stderr.take());
        let stdout = self.keep_stdout.then(|| collect(child.stdout.take()));
        Running {
            child: Some(child),
            stdout,
            stderr: Some(stderr),
            started,
        }
    }
}

fn collect(pipe: Option<impl std::io::Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is what there is.
            let _ = pipe.read_to_end(&mut all);
        }
        all
    })
}

/// A run that has not ended; ended by force if it is dropped.
pub struct Running {
    child: Option<Child>,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
    started: Instant,
}

impl Running {
    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("not waited for yet")
    }

    pub fn pid(&mut self) -> u32 {
        self.child().id()
    }

    /// Its stdin, after [`Tool::stdin_piped`]. Dropping it is the end of input.
    pub fn stdin(&mut self) -> std::process::ChildStdin {
        self.child().stdin.take().expect("stdin was piped")
    }

    /// Its stdout, after [`Tool::stdout_piped`], to be read or closed by the test.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child().stdout.take().expect("stdout was piped")
    }

    /// Whether it has ended, waited for or not.
    pub fn has_ended(&mut self) -> bool {
        state_and_cpu(self.pid()).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child().kill();
    }

    /// Sends it a signal by name, such as `INT`.
    pub fn signal(&mut self, name: &str) {
        let pid = self.pid().to_string();
        let mut kill = Command::new("kill");
        kill.args(["-s", name, &pid]).stderr(Stdio::null());
        // It may have ended by itself.
        let _ = kill.status();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Output {
        let stdout = self.stdout.take();
        drop(self.child().stdin.take());
        let pid = self.pid();
        let mut peak_memory_kib = 0;
        let mut cpu = Duration::ZERO;
        // Until it is reaped, what it used can still be read.
        loop {
            peak_memory_kib = peak_memory_kib.max(super::tool::peak_memory_kib(pid).unwrap_or(0));
            let Some((state, used)) = state_and_cpu(pid) else {
                break;
            };
            cpu = used;
            if matches!(state, 'Z' | 'X') {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let elapsed = self.started.elapsed();
        let status = self.child().wait().expect("the tool is our child");
        self.child = None;
        let stderr = self.stderr.take().expect("not waited for yet");
        Output {
            status,
            stdout: stdout.map_or_else(Vec::new, |all| all.join().expect("stdout was read")),
            stderr: String::from_utf8_lossy(&stderr.join().expect("stderr was read")).into_owned(),
            peak_memory_kib,
            cpu,
            elapsed,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Runs the tool with these bytes as stdin.
pub fn run(arguments: &[&str], stdin: &[u8]) -> Output {
    Tool::new(arguments).stdin_bytes(stdin).run()
}

/// Runs `left | right`, as a shell would.
pub fn pipe(left: &[&str], right: &[&str]) -> (Output, Output) {
    let mut producer = Tool::new(left).stdout_piped().spawn();
    let mut consumer = Tool::new(right);
    consumer.input = Input::From(producer.stdout().into());
    let consumer = consumer.spawn();
    let producer = std::thread::spawn(move || producer.wait());
    let consumer = consumer.wait();
    (
        producer.join().expect("the producer was waited for"),
        consumer,
    )
}

/// The highest resident memory a process has had, while it runs.
///
/// A child that was forked and has not yet become its own program shows the memory of the tests.
pub fn peak_memory_kib(pid: u32) -> Option<u64> {
    let program = |process: &str| std::fs::read_link(format!("/proc/{process}/exe"));
    let is_child = pid != std::process::id();
    if is_child && program(&pid.to_string()).ok()? == program("self").ok()? {
        return None;
    }
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// The state letter of a process and the processor time it has used.
pub fn state_and_cpu(pid: u32) -> Option<(char, Duration)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything: the fields start after the last one.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let ticks: Vec<u64> = fields.skip(10).take(2).flat_map(str::parse).collect();
    // USER_HZ is 100 on every Linux that Debian builds for.
    Some((state, Duration::from_millis(ticks.iter().sum::<u64>() * 10)))
}
