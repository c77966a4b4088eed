//! What is to be done, as actions with what they need.

use std::time::Duration;

use super::fleet::Fleet;
use super::intake::job;
use super::io::{Action, AskedWith, Due, How, Question};
use super::item::{Form, InFlight, Item, Task};
use super::lane::Link;
use super::libraries::Libraries;
use super::settings::Settings;
use super::traffic::Traffic;
use super::work::{Do, Exchange, Query};

/// What actions borrow from.
pub(super) struct Acting<'a> {
    pub traffic: &'a mut Traffic,
    /// The record that a question is about.
    pub item: Option<&'a Item>,
    pub exchange: Option<&'a Exchange>,
    pub libraries: Option<&'a Libraries>,
}

impl<'a> Acting<'a> {
    /// The action; `None` where what it needs is not there.
    pub fn action(self, todo: Do) -> Option<Action<'a>> {
        if let Do::Connect(at, after) = todo {
            return Some(self.connect(at, after));
        }
        let fleet = &mut self.traffic.fleet;
        Some(match todo {
            Do::Say => Action::Say(self.traffic.ledger.next_say()?),
            Do::Send(at) => {
                let item = fleet.lane(at).flight.last()?;
                let how = how(fleet, at, item);
                Action::Send { at, item, how }
            }
            Do::Queue(at) | Do::WriteAlone(at) => {
                let item = &self.exchange?.item;
                let replace = matches!(item.task, Task::Restore { replace: true, .. });
                let job = job(item, replace, self.traffic.now.unix_ms);
                match todo {
                    Do::Queue(_) => Action::Queue(at, job),
                    _ => Action::WriteAlone(at, job),
                }
            }
            Do::Read(at) => Action::Read(at, due(fleet, at)?),
            Do::Peek(at) => Action::Peek(at, due(fleet, at)?),
            Do::ReadValue(at, ticket) => {
                let record = &self.exchange?.item.record;
                let (db, key) = (record.db, record.key.as_slice());
                Action::Read(at, Due::Value { db, key, ticket })
            }
            Do::Ask(at, query) => {
                let settings = &self.traffic.settings;
                return ask(fleet, settings, at, query, self.item, self.libraries);
            }
            Do::AskNodes(lanes) => {
                let options = |at: usize| (at, fleet.lane(at).to().clone());
                Action::AskNodes(lanes.into_iter().map(options).collect())
            }
            todo => return plain(todo),
        })
    }

    fn connect(self, at: usize, after: Duration) -> Action<'a> {
        let now = self.traffic.now.at;
        let left = self.traffic.trouble.patience().left_at(now);
        let fleet = &self.traffic.fleet;
        let lane = fleet.lane(at);
        Action::Connect {
            at,
            to: lane.to(),
            retry_for: fleet.is_cluster().then_some(left),
            after,
            left_writes: matches!(
                lane.link,
                Link::Down {
                    left_writes: true,
                    ..
                }
            ),
        }
    }
}

/// What needs nothing else.
fn plain(todo: Do) -> Option<Action<'static>> {
    Some(match todo {
        Do::SendSelect(at, db) => Action::SendSelect(at, db),
        Do::SendWait(at, patience_ms) => Action::SendWait(at, patience_ms),
        Do::Flush => Action::Flush,
        Do::Drop(at) => Action::Drop(at),
        Do::Select(at, db) => Action::Select(at, db),
        Do::AskSentinels(at) => Action::AskSentinels(at),
        Do::AskTopology(candidates) => Action::AskTopology(candidates),
        Do::Wait(time) => Action::Wait(time),
        Do::TellSource(left) => Action::TellSource(left),
        Do::CountEvictions(at) => Action::CountEvictions(at),
        Do::CountUpheavals(at) => Action::CountUpheavals(at),
        Do::Sweep(litter) => Action::Sweep(litter),
        _ => return None,
    })
}

/// How a record's command goes to a lane.
fn how(fleet: &Fleet, at: usize, item: &Item) -> How {
    How {
        asking: item.place.ask_to.is_some(),
        pexpiretime: fleet.lane(at).pexpiretime,
    }
}

/// The reply that is due first on a lane.
fn due(fleet: &Fleet, at: usize) -> Option<Due<'static>> {
    let flight = &fleet.lane(at).flight;
    Some(match flight.first()? {
        InFlight::Asking => Due::Asking,
        InFlight::Cleared => Due::Cleared,
        InFlight::Select => Due::Select(flight.moving_to()?),
        InFlight::Wait => Due::Wait,
        InFlight::Record(item) if item.task == Task::Compare => Due::Found(how(fleet, at, item)),
        InFlight::Record(item) => Due::Task(item.task),
        InFlight::Value(..) => return None,
    })
}

/// A question, about the record in hand or the library that is next.
fn ask<'a>(
    fleet: &'a mut Fleet,
    settings: &'a Settings,
    at: usize,
    query: Query,
    item: Option<&'a Item>,
    libraries: Option<&'a Libraries>,
) -> Option<Action<'a>> {
    let (slot, is_cluster) = (fleet.slot_at(at), fleet.is_cluster());
    let put = match query {
        Query::Library => Some(libraries?.put(fleet, at, settings)?),
        _ => None,
    };
    let (to, facts, takes) = fleet.lane_mut(at).asked_parts();
    let question = match query {
        Query::Limits => Question::Limits,
        Query::Target => Question::Target {
            like: item.map_or(b"", |item| &item.record.key),
            slot,
        },
        Query::Classes => Question::Classes {
            target: takes.target.as_mut()?,
            item: item?,
        },
        Query::Features => Question::Features {
            odd_transactions: takes.odd_transactions,
            limits: takes.limits(),
        },
        Query::Graph => Question::Graph(&item?.record.key),
        Query::Offer => {
            let item = item?;
            let (Form::Payload(ready) | Form::Graph(ready)) = item.form else {
                return None;
            };
            let target = takes.target.as_mut()?;
            Question::Offer {
                kind: target.opaque().cloned()?,
                target,
                item,
                ready,
            }
        }
        Query::Rights => Question::Rights,
        Query::Native => Question::Native {
            db: item?.record.db,
            features: takes.features?,
            is_cluster,
        },
        Query::Library => Question::Library(put?),
    };
    let with = AskedWith {
        to,
        facts,
        settings,
    };
    let question = Box::new(question);
    Some(Action::Ask { at, question, with })
}
