//! How a run is shown while it goes on, and at its end.
//!
//! Guarantees: the same events give the same view, whoever tells them; a live view is gone from the terminal before
//! anything else is written.

use sealift_model::{EventKind, RunEvent, Timestamp};

use super::live::Live;
use super::summary::{Again, Detail};
use super::tree::Tree;
use super::wercker::{Telling, Voice};
use super::{Printer, terminal};
use crate::cli::Output;
use crate::error::Error;

#[derive(Debug)]
pub(crate) struct View {
    pub(crate) printer: Printer,
    kind: Kind,
    tree: Tree,
    seq: u64,
}

#[derive(Debug)]
enum Kind {
    Json,
    Plain,
    Live(Live),
    Wercker(Telling),
}

impl View {
    /// Live on a terminal, line by line elsewhere or if `plain`.
    pub(crate) fn new(output: Output, plain: bool) -> View {
        let kind = match output {
            Output::Json => Kind::Json,
            Output::Text if !plain && terminal::size().is_some() => Kind::Live(Live::default()),
            Output::Text => Kind::Plain,
        };
        View { printer: Printer::new(output), kind, tree: Tree::default(), seq: 0 }
    }

    /// In the lines of the wercker CLI, on standard error.
    pub(crate) fn wercker(voice: Voice) -> View {
        let kind = Kind::Wercker(Telling::new(voice));
        View { printer: Printer::new(Output::Text), kind, tree: Tree::default(), seq: 0 }
    }

    /// Something has happened.
    pub(crate) fn take(&mut self, at: Timestamp, node: Option<String>, kind: EventKind) -> Result<(), Error> {
        let event = RunEvent { seq: self.seq, at, node, kind };
        self.seq += 1;
        match &mut self.kind {
            Kind::Json => return self.printer.json(&event),
            Kind::Plain => self.printer.event(&event)?,
            Kind::Live(_) => {}
            Kind::Wercker(telling) => telling.event(&event),
        }
        self.tree.take(&event);
        Ok(())
    }

    /// Time has passed. Called ten times a second, so that a view is drawn no more often.
    pub(crate) fn tick(&mut self, now: Timestamp) -> Result<(), Error> {
        if let (Kind::Live(live), Some(size)) = (&mut self.kind, terminal::size()) {
            live.draw(&self.printer, &self.tree, now, size)?;
        }
        Ok(())
    }

    /// Leaves the terminal to somebody who is asked something: what has ended stays there to be read.
    pub(crate) fn hand_over(&mut self) -> Result<(), Error> {
        if let Kind::Live(live) = &mut self.kind {
            live.clear()?;
            self.printer.so_far(&self.tree)?;
        }
        Ok(())
    }

    /// Makes room for others who write to the terminal; the next tick draws again.
    pub(crate) fn pause(&mut self) -> Result<(), Error> {
        if let Kind::Live(live) = &mut self.kind { live.clear() } else { Ok(()) }
    }

    /// Whether what happens is only shown by the next tick.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.kind, Kind::Live(_))
    }

    /// The run is over: tells the summary. What follows is another run.
    pub(crate) fn end(&mut self, again: &Again) -> Result<(), Error> {
        self.pause()?;
        let tree = std::mem::take(&mut self.tree);
        self.seq = 0;
        match self.kind {
            Kind::Json | Kind::Wercker(_) => Ok(()),
            Kind::Plain => self.printer.summary(&tree, Detail::Rest, again),
            Kind::Live(_) => self.printer.summary(&tree, Detail::All, again),
        }
    }
}
