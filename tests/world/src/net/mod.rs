//! The world that the tool runs in: a virtual clock, model servers, and links to them that delay,
//! cut and stall. Everything happens in one thread, in an order that the script and its seed decide.
//!
//! The tool's calls ([`Host`]) are where the world goes on: who reads from a link waits, and
//! meanwhile bytes arrive, servers answer, clients write, and things break.

mod acts;
mod cluster;
mod command;
mod hang;
mod history;
mod link;
mod queue;
mod servers;
mod state;

use std::cell::{Cell, RefCell};
use std::io;
use std::panic::panic_any;
use std::rc::Rc;
use std::time::{Duration, Instant};

use redis_migrate::endpoint::{ConnectOptions, Transport};
use redis_migrate::host::{Beside, Host, LinkId, Step, TaskId};
use redis_migrate::pipe::Stop;

pub use self::history::{By, Change, Held, History, Loss, Place};
use self::state::Ending;
pub use self::state::{BEGAN_MS, Counts, FIRST_SENTINEL, Node, State};

/// What the tool's thread is ended with when its process is killed.
#[derive(Debug)]
pub struct Killed;

/// What it is ended with when it does not come to an end.
#[derive(Debug)]
pub struct Endless(pub String);

/// Never waits longer than this for anything: a wait without a limit that lasts so long is endless.
const FOREVER_US: u64 = 48 * 3600 * 1_000_000;

/// The world; see the module.
pub struct World {
    state: RefCell<State>,
    tasks: RefCell<Vec<Task>>,
    last_task: Cell<TaskId>,
    /// The tool is gone: whatever it still asks for fails.
    is_dead: Cell<bool>,
    began: Instant,
}

struct Task {
    id: TaskId,
    /// `None` while it is being stepped.
    work: Option<Box<dyn Beside>>,
    wakes: Step,
}

impl World {
    /// A world with these servers.
    pub fn new(state: State) -> Rc<Self> {
        Rc::new(Self {
            state: RefCell::new(state),
            tasks: RefCell::default(),
            last_task: Cell::new(0),
            is_dead: Cell::new(false),
            began: Instant::now(),
        })
    }

    /// What is in it.
    ///
    /// # Panics
    /// If it is called while the world goes on.
    pub fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.borrow_mut())
    }

    /// A new run of the tool begins; `stop` is its user's wish to stop.
    pub fn begin(&self, phase: &crate::script::Phase, stop: Stop, before_kill: Box<dyn FnOnce()>) {
        self.is_dead.set(false);
        self.tasks.borrow_mut().clear();
        self.state.borrow_mut().begin(phase, stop, before_kill);
    }

    /// The run is over: what is still open is closed, as the system does when a process ends.
    pub fn end_run(&self) {
        self.is_dead.set(true);
        self.tasks.borrow_mut().clear();
        self.state.borrow_mut().end_run();
        self.is_dead.set(true);
    }

    /// Lets the servers go on alone.
    pub fn rest(&self, time: Duration) {
        let mut state = self.state.borrow_mut();
        let until = state.now + micros(time);
        while state.advance(until) {}
    }

    /// The tool does something: that takes a little time, in which whatever is due happens.
    fn spend(&self) {
        let until = {
            let mut state = self.state.borrow_mut();
            state.called();
            state.now + 1 + state.chance.below(12)
        };
        self.pass(until);
    }

    /// Lets everything happen that is due until then.
    fn pass(&self, until: u64) {
        loop {
            let goes_on = self.state.borrow_mut().advance(until);
            self.after_step();
            if !goes_on {
                return;
            }
        }
    }

    /// Lets the next thing happen, or goes to `until` if nothing is due before.
    fn step(&self, until: u64) {
        self.state.borrow_mut().advance(until);
        self.after_step();
    }

    fn after_step(&self) {
        let ending = self.state.borrow_mut().ending.take();
        match ending {
            None => self.step_tasks(),
            Some(ending) if !self.is_dead.get() => {
                self.is_dead.set(true);
                match ending {
                    Ending::Killed => {
                        let before = self.state.borrow_mut().killed();
                        if let Some(before) = before {
                            before();
                        }
                        panic_any(Killed);
                    }
                    Ending::Endless(why) => panic_any(Endless(why)),
                }
            }
            Some(_) => {}
        }
    }

    /// Steps the tasks whose time has come. A task that waits steps the others.
    fn step_tasks(&self) {
        if self.tasks.borrow().is_empty() {
            return;
        }
        loop {
            let due = {
                let state = self.state.borrow();
                let mut tasks = self.tasks.borrow_mut();
                let due = tasks.iter_mut().find(|task| {
                    task.work.is_some()
                        && match task.wakes {
                            Step::End => false,
                            Step::Wait { link, until } => {
                                link.is_some_and(|link| state.is_readable(link))
                                    || until.is_some_and(|until| self.micros_of(until) <= state.now)
                            }
                        }
                });
                due.and_then(|task| task.work.take().map(|work| (task.id, work)))
            };
            let Some((id, mut work)) = due else { return };
            let wakes = work.step();
            if let Step::Wait {
                until: Some(until), ..
            } = wakes
            {
                let at = self.micros_of(until);
                self.state.borrow_mut().wake_at(at);
            }
            let ended = {
                let mut tasks = self.tasks.borrow_mut();
                match tasks.iter_mut().find(|task| task.id == id) {
                    Some(task) if wakes != Step::End => {
                        task.work = Some(work);
                        task.wakes = wakes;
                        None
                    }
                    _ => {
                        tasks.retain(|task| task.id != id);
                        Some(work)
                    }
                }
            };
            // Its connection closes, and asks the world for it.
            drop(ended);
        }
    }

    fn micros_of(&self, time: Instant) -> u64 {
        micros(time.saturating_duration_since(self.began))
    }

    fn deadline(&self, link: LinkId) -> u64 {
        let state = self.state.borrow();
        match state.timeout(link) {
            0 => state.now + FOREVER_US,
            timeout => state.now + timeout,
        }
    }
}

/// Microseconds, rounded up.
fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX)
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Host for World {
    fn now(&self) -> Instant {
        self.began + Duration::from_micros(self.state.borrow().now)
    }

    fn unix_ms(&self) -> u64 {
        self.state.borrow().unix_ms()
    }

    fn sleep(&self, time: Duration) {
        if self.is_dead.get() {
            return;
        }
        self.spend();
        let until = self.state.borrow().now + micros(time);
        self.pass(until);
    }

    fn random(&self) -> u64 {
        self.state.borrow_mut().random.next_u64()
    }

    fn connect(&self, to: &Transport, options: &ConnectOptions) -> io::Result<LinkId> {
        if self.is_dead.get() {
            return Err(gone());
        }
        self.spend();
        let port = match to {
            Transport::Tcp { port, .. } | Transport::Tls { port, .. } => *port,
            _ => return Err(io::ErrorKind::Unsupported.into()),
        };
        let way = self.state.borrow_mut().way();
        let until = self.state.borrow().now + 2 * way;
        self.pass(until);
        let limit = self.state.borrow().now + micros(options.connect_timeout);
        loop {
            let tried = self.state.borrow_mut().connect(port);
            match tried {
                Some(result) => return result,
                // Nobody answers: neither yes nor no.
                None if self.state.borrow().now < limit => self.step(limit),
                None => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }

    fn read(&self, link: LinkId, out: &mut [u8]) -> io::Result<usize> {
        if self.is_dead.get() {
            return Err(gone());
        }
        self.spend();
        let deadline = self.deadline(link);
        loop {
            if self.is_dead.get() {
                return Err(gone());
            }
            let mut state = self.state.borrow_mut();
            if let Some(result) = state.read(link, out) {
                return result;
            }
            if state.now >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            drop(state);
            self.step(deadline);
        }
    }

    fn write(&self, link: LinkId, bytes: &[u8]) -> io::Result<usize> {
        if self.is_dead.get() {
            return Err(gone());
        }
        self.spend();
        self.state.borrow_mut().write(link, bytes)
    }

    fn is_readable(&self, link: LinkId) -> bool {
        if self.is_dead.get() {
            return true;
        }
        self.spend();
        self.state.borrow().is_readable(link)
    }

    fn set_timeout(&self, link: LinkId, timeout: Duration) {
        self.state.borrow_mut().set_timeout(link, micros(timeout));
    }

    fn close(&self, link: LinkId) {
        self.state.borrow_mut().close_by_tool(link);
    }

    fn beside(&self, task: Box<dyn Beside>) -> TaskId {
        let id = self.last_task.get() + 1;
        self.last_task.set(id);
        self.tasks.borrow_mut().push(Task {
            id,
            work: Some(task),
            wakes: Step::Wait {
                link: None,
                until: Some(self.began),
            },
        });
        id
    }

    fn end(&self, task: TaskId) {
        let ended = {
            let mut tasks = self.tasks.borrow_mut();
            let at = tasks.iter().position(|known| known.id == task);
            at.map(|at| tasks.remove(at))
        };
        drop(ended);
    }

    fn drive(&self, limit: Option<Duration>, done: &dyn Fn() -> bool) {
        if self.is_dead.get() {
            return;
        }
        self.spend();
        let now = self.state.borrow().now;
        let limit = limit.map_or(now + FOREVER_US, |limit| now + micros(limit));
        while !done() && !self.is_dead.get() && self.state.borrow().now < limit {
            self.step(limit);
        }
    }
}
