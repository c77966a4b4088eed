//! What [`Stages`](super::stages::Stages) says is to be done, done.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};

use super::asking::{ask_again, fail_unserved};
use super::libraries::When;
use super::parts::is_busy;
use super::pause::pause_all;
use super::plan::Plan;
use super::reassign::reassign;
use super::stages::{Action, End, Event, Situation, SlotChanges};
use super::{ClusterSource, SlotSet};
use crate::host;
use crate::source::server::ConvergingSource;

impl ClusterSource {
    /// Does what is to be done until the pipe has something to read, or nothing is left.
    pub(super) fn carry_on(&mut self, event: Event) -> Result<()> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for action in self.stages.on(event, host::now()) {
                next = self.act(action)?;
            }
        }
        Ok(())
    }

    /// Does one thing; what came of it, where that is asked.
    fn act(&mut self, action: Action) -> Result<Option<Event>> {
        match action {
            Action::Read => {}
            Action::CollectAsked => {
                self.astray.end_asking(&mut self.parts)?;
                return Ok(Some(Event::Collected));
            }
            Action::TakeView => return self.take_view().map(Some),
            Action::Reassign => return self.reassign().map(Some),
            Action::Rest(time) => {
                self.opener.rest(time)?;
                return Ok(Some(Event::Rested));
            }
            Action::StopAsking => self.astray.stop_asking(&mut self.parts)?,
            Action::BeginAsking => {
                let open = self.open_slots();
                let (parts, opener) = (&mut self.parts, &mut self.opener);
                self.astray.begin_asking(parts, opener, &self.view, &open)?;
            }
            Action::AskAgain => {
                let any = ask_again(&mut self.parts, &self.view)?;
                return Ok(Some(Event::AskedAgain(any)));
            }
            Action::ReadOn(shards) => self.parts.read_on(shards),
            Action::GiveUp(reason) => self.parts.give_up(&reason),
            Action::KeepView => self.before_last = Some(self.view.clone()),
            Action::BeginLast => {
                for source in self.parts.converging() {
                    source.begin_last();
                }
            }
            Action::MissPause(text) => self.miss_pause(&text),
            Action::AskPauses => {
                let (paused, in_pause) = pause_all(&mut self.parts)?;
                self.in_pause = in_pause;
                return Ok(Some(Event::Paused(paused)));
            }
            Action::Attempt => {
                let in_pause = self.in_pause.as_mut();
                let in_pause = in_pause.ok_or_else(|| anyhow!("nothing is paused"))?;
                return Ok(Some(in_pause.attempt(&mut self.parts)));
            }
            Action::Conclude(common) => {
                let in_pause = self.in_pause.take();
                let in_pause = in_pause.ok_or_else(|| anyhow!("nothing was attempted"))?;
                let concluded = in_pause.conclude(&mut self.parts, common)?;
                return Ok(Some(Event::Concluded(concluded)));
            }
            Action::End => return self.end().map(|end| Some(Event::Ended(end))),
            Action::Fail(text) => return Err(anyhow!(text)),
        }
        Ok(None)
    }

    /// Asks how the cluster lies, and what is to be reassigned because of it.
    fn take_view(&mut self) -> Result<Event> {
        self.astray.collect(&mut self.parts);
        self.parts.retire_lost(&self.opener.observer)?;
        let view = match self.look()? {
            Ok(view) => view,
            Err(reason) => return Ok(Event::NotYet(reason)),
        };
        let unsteady = self.parts.unsteady(&self.view, &view, &self.wanted);
        let unread = self.astray.unread(unsteady);
        let plan = Plan::new(&self.wanted, &view, &unread, |slot| self.parts.holder(slot));
        let changes = SlotChanges {
            moved: !plan.moved.is_empty(),
            unanswered: (!plan.unanswered.is_empty()).then(|| plan.unanswered.show()),
            reason: self.astray.reason().to_owned(),
        };
        self.plan = Some((view, plan));
        Ok(Event::ViewTaken(changes))
    }

    /// Gives slots to those who have them now.
    fn reassign(&mut self) -> Result<Event> {
        let plan = self.plan.take();
        let (view, plan) = plan.ok_or_else(|| anyhow!("there is no view to go by"))?;
        if let Err(reason) = reassign(&mut self.parts, &mut self.opener, &view, &plan)? {
            return Ok(Event::NotYet(reason));
        }
        self.astray.reassigned(&view, plan.on_their_way);
        self.opener.together.settled(view.topology.clone());
        self.view = view;
        Ok(match plan.moves.is_empty() {
            false => Event::Reassigned,
            true => Event::Steady(self.situation()),
        })
    }

    fn situation(&mut self) -> Situation {
        let open = self.open_slots();
        let slots: Vec<String> = open.values().map(SlotSet::show).collect();
        let before = self.before_last.as_ref();
        Situation {
            follows: self.parts.any(ConvergingSource::is_following),
            may_be_exact: self.parts.any(|source| !source.has_missed()),
            is_done: !self.parts.any(|source| !source.is_done()),
            unknown: self.view.unknown.clone(),
            on_the_way: (!open.is_empty()).then(|| slots.join(",")),
            is_unchanged: before.is_some_and(|before| before.is_same(&self.view)),
            is_busy: self.parts.any(is_busy),
        }
    }

    /// Slots on their way that are read, by where they go.
    fn open_slots(&self) -> BTreeMap<String, SlotSet> {
        let mut open: BTreeMap<String, SlotSet> = BTreeMap::new();
        for (&slot, to) in &self.view.open {
            for id in to.iter().filter(|_| self.wanted.contains(slot)) {
                open.entry(id.clone()).or_default().insert(slot);
            }
        }
        open
    }

    fn miss_pause(&mut self, text: &str) {
        self.opener.observer.warn(&format!(
            "the source refuses CLIENT PAUSE … WRITE ({text}): each shard is read at its own point \
             in time"
        ));
        self.verdict.pause_missed = true;
    }

    /// All keys were given; then come the functions. They do not belong to any slot: who is lost now
    /// is not needed any more.
    fn end(&mut self) -> Result<End> {
        if fail_unserved(&mut self.parts, &self.view)? {
            return Ok(End::FailedKeys);
        }
        self.astray.stop_asking(&mut self.parts)?;
        let leftovers = self.astray.take_leftovers(&self.view);
        self.verdict.has_leftovers |= !leftovers.is_empty();
        self.verdict.not_had.extend(leftovers);
        if let Some(unknown) = &self.view.unknown {
            let reason = &unknown.reason;
            let line = format!("{reason}: keys of such slots may be missing");
            self.verdict.not_had.push(line);
        }
        self.read_libraries(When::AtTheEnd)?;
        Ok(match self.libraries.is_waiting() {
            true => End::Functions,
            false => End::Nothing,
        })
    }
}
