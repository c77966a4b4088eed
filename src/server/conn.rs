//! One authenticated connection: commands out, replies in, in order.

mod ask;
mod pace;
mod session;
mod wire;
mod words;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use self::session::Session;
use self::wire::Wire;
pub use self::words::{asks_for_patience, ends_connection, is_forbidden, is_unknown_command};
use self::words::{has_no_password, turns_away};
use super::patience::{self, Patience};
use super::resp::{self, CONTROL_LIMIT, Item, VALUE_LIMIT};
use super::stream::Stream;
use super::{ABSENT_KEY, ServerError, sentinel};
use crate::endpoint::{ConnectOptions, NodeAddress, Shunned, Transport};
use crate::host::{self, LinkId};
use crate::server::reply::{Command, FromReply, Reply, cmd};

/// Connections that PING may cost before something else is asked to begin with.
const GREETINGS: u32 = 2;

/// What a connection begins with.
const PING: &str = "PING";

/// One authenticated connection.
pub struct Conn {
    wire: Wire,
    /// How long the other side may answer that it cannot just now, whatever it is asked.
    patience: Patience,
    /// The database that this connection is proved to be in: the server said OK to its SELECT, or
    /// it is new. `None` after commands that left it in doubt.
    db: Option<u32>,
    /// Commands that end the connection.
    shunned: Shunned,
    /// What a connection in its place would need.
    session: Session,
    /// A password was given and the server has none, in its words.
    ignored_password: Option<String>,
    /// Where sentinels said that the server is.
    found_at: Option<NodeAddress>,
}

impl Conn {
    /// Connects and authenticates; where sentinels are named, to the primary that they name now. No
    /// database is selected.
    ///
    /// # Errors
    /// [`ServerError::Connect`] and [`ServerError::Auth`].
    pub fn open(options: &ConnectOptions) -> Result<Self, ServerError> {
        loop {
            let strikes = options.shunned.strikes(PING);
            let opened = match &options.address {
                Transport::Sentinel(sentinels) => sentinel::open(sentinels, options),
                address => Self::open_as(options, address.to_string()),
            };
            let ended_by_ping = options.shunned.strikes(PING) > strikes;
            match opened {
                Ok(mut conn) => {
                    conn.session.made_by(options);
                    return Ok(conn);
                }
                Err(_) if ended_by_ping && strikes < GREETINGS => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Connects and authenticates; `address` is what it is called in messages.
    pub(super) fn open_as(options: &ConnectOptions, address: String) -> Result<Self, ServerError> {
        let stream = match Stream::open(options) {
            Err(ServerError::Connect { reason, .. }) => {
                return Err(ServerError::Connect { address, reason });
            }
            other => other?,
        };
        let mut conn = Self {
            wire: Wire::new(stream, address, options.timeout),
            patience: Patience::new(options.retry_for),
            // Where every connection begins (server createClient); some services refuse SELECT 0.
            db: Some(0),
            shunned: options.shunned.clone(),
            session: Session::default(),
            ignored_password: None,
            found_at: None,
        };
        conn.authenticate(options).map_err(unanswered)?;
        conn.greet()?;
        Ok(conn)
    }

    fn authenticate(&mut self, options: &ConnectOptions) -> Result<(), ServerError> {
        let refused = |reason: String, address: &str| ServerError::Auth {
            address: address.to_owned(),
            reason,
        };
        let Some(password) = &options.password else {
            return match options.username {
                None => Ok(()),
                Some(_) => Err(refused(
                    "a user name was given, but no password".to_owned(),
                    self.address(),
                )),
            };
        };
        let mut auth = cmd("AUTH");
        if let Some(user) = &options.username {
            auth.arg(user);
        }
        auth.arg(password.expose());
        match self.try_patiently(&auth, CONTROL_LIMIT)? {
            Ok(Reply::Okay) => Ok(()),
            Ok(other) => Err(refused(
                format!("AUTH was answered with {other:?}"),
                self.address(),
            )),
            // As redis-cli does: the server lets anybody in.
            Err(text) if options.username.is_none() && has_no_password(&text) => {
                self.ignored_password = Some(text);
                Ok(())
            }
            Err(text) => Err(refused(text, self.address())),
        }
    }

    /// Makes sure that somebody answers, that we are let in, and that the dataset is loaded.
    fn greet(&mut self) -> Result<(), ServerError> {
        let pings = !self.shunned.has(PING);
        let question = self.greeting();
        loop {
            match self.try_query(&question) {
                Ok(Err(text)) if text.starts_with("LOADING") && self.patience.lasts() => {
                    host::sleep(patience::STEP);
                }
                Ok(Err(text)) if text.starts_with("LOADING") => {
                    return Err(ServerError::Connect {
                        address: self.address().to_owned(),
                        reason: format!("{text} ({})", self.patience.told()),
                    });
                }
                Ok(Err(text)) if text.starts_with("NOAUTH") || text.starts_with("WRONGPASS") => {
                    return Err(ServerError::Auth {
                        address: self.address().to_owned(),
                        reason: text,
                    });
                }
                Ok(Err(text)) if turns_away(&text) => {
                    return Err(ServerError::Connect {
                        address: self.address().to_owned(),
                        reason: text,
                    });
                }
                // Any other error proves as well that somebody answers: PING may be forbidden or
                // renamed, and a server that cannot save (MISCONF) can be read.
                Ok(answer) => {
                    if !answer.is_err_and(|text| asks_for_patience(&text)) {
                        self.patience.progress();
                    }
                    if pings {
                        self.shunned.acquit(PING);
                    }
                    return Ok(());
                }
                Err(
                    ServerError::Lost {
                        address, reason, ..
                    }
                    | ServerError::Protocol {
                        address, reason, ..
                    },
                ) => {
                    match pings {
                        true if self.was_closed() => self.shunned.ended_by(PING),
                        // It was not PING's fault.
                        false => self.shunned.acquit(PING),
                        true => {}
                    }
                    return Err(no_answer(address, reason));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A question that costs nothing and that everybody may ask: PING, or where that ends the
    /// connection the expiry of a key that nobody has.
    pub fn greeting(&self) -> Command {
        match self.shunned.has(PING) {
            false => cmd(PING),
            true => cmd("PTTL").arg(ABSENT_KEY).to_owned(),
        }
    }

    /// What has to be said of how this connection was made, if anything.
    pub fn warning(&self) -> Option<String> {
        let text = self.ignored_password.as_ref()?;
        Some(format!(
            "{} needs no password, but one was given; continuing without it ({text})",
            self.address()
        ))
    }

    /// From now on a wish to stop ends the waiting for the other side: it is as if the connection
    /// were lost then.
    pub fn heed(&mut self, options: &ConnectOptions, stop: &Arc<AtomicBool>) {
        self.wire.heed(options.timeout, stop);
    }

    /// Where this is connected to; holds no password.
    pub fn address(&self) -> &str {
        self.wire.address()
    }

    /// Who is at the other end, where that has an IP address: names that resolve to the same one
    /// are the same.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.wire.peer()
    }

    /// The connection of a simulated world that this is, if so.
    pub(super) fn link(&self) -> Option<LinkId> {
        self.wire.link()
    }

    /// Where sentinels said that the server is, if they did.
    pub(super) fn found_at(&self) -> Option<&NodeAddress> {
        self.found_at.as_ref()
    }

    pub(super) fn set_found_at(&mut self, node: &NodeAddress) {
        self.found_at = Some(node.clone());
    }

    /// Says what is under way, for messages about a lost connection.
    pub fn doing(&mut self, what: &'static str) {
        self.wire.doing(what);
    }

    /// Queues one command; it is written by [`Self::flush`] or when enough is queued.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub fn queue(&mut self, args: &[&[u8]]) -> Result<(), ServerError> {
        self.session.pin();
        resp::pack(self.wire.out(), args);
        self.wire.flush_if_full()
    }

    /// Queues one command, of which all but the last argument is packed already.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub fn queue_behind(&mut self, head: &[u8], arg: &[u8]) -> Result<(), ServerError> {
        self.session.pin();
        resp::pack_behind(self.wire.out(), head, arg);
        self.wire.flush_if_full()
    }

    /// The queue of bytes to be written, for commands that are packed piece by piece.
    pub fn out(&mut self) -> &mut Vec<u8> {
        self.session.pin();
        self.wire.out()
    }

    /// Writes what is queued if it is much.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub fn flush_if_full(&mut self) -> Result<(), ServerError> {
        self.wire.flush_if_full()
    }

    /// Writes all that is queued.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub fn flush(&mut self) -> Result<(), ServerError> {
        self.wire.flush()
    }

    /// Writes what is queued and then `bytes`, without copying them.
    ///
    /// # Errors
    /// [`ServerError::Lost`].
    pub fn write_large(&mut self, bytes: &[u8]) -> Result<(), ServerError> {
        self.session.pin();
        self.wire.write_large(bytes)
    }

    /// Whether something has come that was not read, be it only that the connection ended: who reads
    /// now does not wait. With TLS it may say no although something has.
    pub fn has_answer(&self) -> bool {
        self.wire.has_answer()
    }

    /// Whether a reply, or some of it, is at hand: who reads now may not have to wait.
    pub fn has_reply(&self) -> bool {
        self.wire.has_reply()
    }

    /// Whether this line is the next reply, and at hand: then it is read.
    pub fn reads(&mut self, line: &[u8]) -> bool {
        self.wire.pass_over(line)
    }

    /// The next item of the replies; see [`resp::Replies::next`].
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn item(&mut self) -> Result<Item<'_>, ServerError> {
        self.wire.read(|replies, stream| replies.next(stream))
    }

    /// The same; a bulk string of more than `max` bytes is skipped ([`Item::TooLong`]).
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn item_or_skip(&mut self, max: usize) -> Result<Item<'_>, ServerError> {
        self.wire
            .read(|replies, stream| replies.next_or_skip(stream, max))
    }

    /// The next reply as a whole, of at most [`VALUE_LIMIT`] bytes; an error reply is `Err` inside.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn reply(&mut self) -> Result<Result<Reply, String>, ServerError> {
        self.reply_within(VALUE_LIMIT)
    }

    fn reply_within(&mut self, max: usize) -> Result<Result<Reply, String>, ServerError> {
        let value = self
            .wire
            .read(|replies, stream| replies.value(stream, max))?;
        Ok(match value {
            Reply::Error(text) => Err(text),
            value => Ok(value),
        })
    }

    /// Sends one command and waits for its reply. Nothing may be in flight. An error reply is
    /// `Err` inside.
    ///
    /// # Errors
    /// [`ServerError::Lost`] and [`ServerError::Protocol`].
    pub fn try_query(&mut self, command: &Command) -> Result<Result<Reply, String>, ServerError> {
        self.try_within(command, VALUE_LIMIT)
    }

    fn try_within(
        &mut self,
        command: &Command,
        max: usize,
    ) -> Result<Result<Reply, String>, ServerError> {
        command.pack(self.wire.out());
        self.wire.flush()?;
        self.reply_within(max)
    }

    /// How long this server is asked again that answers that it cannot just now.
    pub fn retry_for(&self) -> Duration {
        self.patience.limit()
    }

    /// Whether the other side ended the connection.
    pub fn was_closed(&self) -> bool {
        self.wire.was_closed()
    }

    /// Sends one command and converts its reply. Nothing may be in flight.
    ///
    /// # Errors
    /// [`ServerError::Refused`] for NOPERM and unknown commands, [`ServerError::Reply`] for other
    /// error replies, and those of [`Self::try_query`].
    pub fn query<T: FromReply>(&mut self, command: &Command) -> Result<T, ServerError> {
        let name = name_of(command);
        let value = self
            .try_query(command)?
            .map_err(|text| self.refusal(&name, text))?;
        T::from_reply(value).map_err(|reason| ServerError::Protocol {
            address: self.address().to_owned(),
            doing: name,
            reason,
        })
    }

    /// The database that this connection is proved to be in, if it is.
    pub fn database(&self) -> Option<u32> {
        self.db
    }

    /// Commands that were queued may have selected another database: it is in doubt until the next
    /// [`Self::select`].
    pub fn forget_database(&mut self) {
        self.db = None;
    }

    /// Whether the user wishes to stop.
    fn is_stopped(&self) -> bool {
        self.wire.is_stopped()
    }

    /// The error that an error reply to `command` means.
    pub fn refusal(&self, command: &str, text: String) -> ServerError {
        refusal(self.address(), command, text)
    }

    /// Gives up the talk of commands and replies: the stream, and what was read from it already.
    pub fn into_stream(self) -> (Stream, Vec<u8>) {
        self.wire.into_stream()
    }

    /// The connection is of no more use, though it stands: what state it is in is not known.
    pub fn spoilt(&self, reason: impl Into<String>) -> ServerError {
        self.wire.lost(reason.into())
    }

    /// A protocol violation, in our words.
    pub fn confused(&self, reason: impl Into<String>) -> ServerError {
        self.wire.confused(reason.into())
    }
}

/// The error that an error reply to `command` means, from the server at `address`.
pub fn refusal(address: &str, command: &str, reason: String) -> ServerError {
    let (address, command) = (address.to_owned(), command.to_owned());
    if reason.starts_with("LOADING ") {
        // What it held is gone, and what comes is not there yet: as good as a lost connection.
        ServerError::Lost {
            address,
            doing: command,
            reason,
        }
    } else if is_forbidden(&reason) {
        ServerError::Refused {
            address,
            command,
            reason,
        }
    } else {
        ServerError::Reply {
            address,
            command,
            reason,
        }
    }
}

/// A connection that ended before anything was answered was none.
fn no_answer(address: String, reason: String) -> ServerError {
    let reason = match reason.contains("client certificate") {
        true => reason,
        false => {
            format!("{reason}, before the first answer (is it a Redis port, and is it TLS?)")
        }
    };
    ServerError::Connect { address, reason }
}

/// The same of an error of the first command.
fn unanswered(error: ServerError) -> ServerError {
    match error {
        ServerError::Lost {
            address, reason, ..
        }
        | ServerError::Protocol {
            address, reason, ..
        } if !reason.starts_with("LOADING ") => no_answer(address, reason),
        other => other,
    }
}

/// The command's name, with its subcommand where it has one.
fn name_of(command: &Command) -> String {
    const CONTAINERS: [&str; 6] = [
        "CLIENT", "CLUSTER", "FUNCTION", "INFO", "OBJECT", "SENTINEL",
    ];
    let mut words = command
        .words()
        .map(|word| String::from_utf8_lossy(word).into_owned());
    let Some(name) = words.next() else {
        return "a command".to_owned();
    };
    match words.next() {
        Some(sub) if CONTAINERS.contains(&name.as_str()) => format!("{name} {sub}"),
        _ => name,
    }
}
