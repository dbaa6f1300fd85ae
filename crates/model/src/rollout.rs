//! A change of a unit on its way to the machines that run it.
//!
//! The author's wish stands in the [`Unit`] at once. Where an update policy holds, [`Unit::update`] says what the
//! machines have meanwhile, and where they go back to if the change turns out badly. Who has which turn is the
//! planner's to decide.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    DesiredState, OnFailure, ProjectName, ReleaseNumber, Requirements, Share, Timestamp, Unit, UpdateOrder,
    UpdatePolicy,
};

/// A form of a unit that machines were given: all that a change of it may change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    pub text: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drop_ins: BTreeMap<String, String>,
    #[serde(default)]
    pub requirements: Requirements,
    #[serde(default)]
    pub app: Option<(ProjectName, ReleaseNumber)>,
    pub generation: u64,
}

impl Version {
    /// Whether systemd would run the same by both; `same_text` compares two unit files by what systemd reads of them.
    #[must_use]
    pub fn runs_as(&self, other: &Version, same_text: impl Fn(&str, &str) -> bool) -> bool {
        self.app == other.app
            && self.drop_ins == other.drop_ins
            && self.requirements.caps == other.requirements.caps
            && (self.text == other.text || same_text(&self.text, &other.text))
    }

    fn size(&self) -> usize {
        self.text.len() + self.drop_ins.values().map(String::len).sum::<usize>()
    }
}

/// A change that has not reached all it concerns, or that was taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// What ran before, and what is gone back to.
    pub previous: Version,
    /// Changes that this one overtook and that some machine may still have; of a unit that is not global one at most,
    /// the one that its machine has. The oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub between: Vec<Version>,
    #[serde(flatten)]
    pub stage: UpdateStage,
}

impl Version {
    fn without_texts(&self) -> Version {
        Version {
            text: String::new(),
            drop_ins: BTreeMap::new(),
            requirements: self.requirements.clone(),
            app: self.app.clone(),
            generation: self.generation,
        }
    }
}

/// How far a change is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "lowercase")]
pub enum UpdateStage {
    /// It waits for its turn. Of a global unit: some machine may.
    Waiting,
    /// Its machine was given it. Of units that are not global.
    Begun { at: Timestamp },
    /// It was taken back, and stays so until its author changes it again.
    Back { why: String },
}

/// Overtaken changes of a global unit that are kept apart; machines with an older one go back to what ran before.
const MOST_BETWEEN: usize = 4;
/// A change that needs more bytes than this for its versions is made at once.
pub const MOST_VERSION_BYTES: usize = 40_000;

static ONE_BY_ONE: UpdatePolicy = UpdatePolicy {
    max_out: Share::Count(1),
    canary: 0,
    order: UpdateOrder::StopFirst,
    hold_seconds: 1,
    health: None,
    timeout_seconds: 300,
    on_failure: OnFailure::Rollback,
};

impl Unit {
    /// All but its files' texts, which a list has no room for.
    #[must_use]
    pub fn without_texts(&self) -> Unit {
        let without = |update: &Update| Update {
            previous: update.previous.without_texts(),
            between: update.between.iter().map(Version::without_texts).collect(),
            stage: update.stage.clone(),
        };
        Unit {
            name: self.name.clone(),
            text: String::new(),
            drop_ins: BTreeMap::new(),
            requirements: self.requirements.clone(),
            desired: self.desired,
            generation: self.generation,
            restarts: self.restarts,
            app: self.app.clone(),
            template: self.template.clone(),
            update: self.update.as_deref().map(without).map(Box::new),
            extra: self.extra.clone(),
        }
    }

    /// How a change of it is rolled out; none: at once. Machines of a global unit and instances that a template made
    /// go one by one if nothing else is said.
    #[must_use]
    pub fn policy(&self) -> Option<&UpdatePolicy> {
        let in_parts = self.requirements.global || self.template.is_some();
        self.requirements.update.as_ref().or(in_parts.then_some(&ONE_BY_ONE))
    }

    /// What the author wants now.
    #[must_use]
    pub fn version(&self) -> Version {
        Version {
            text: self.text.clone(),
            drop_ins: self.drop_ins.clone(),
            requirements: self.requirements.clone(),
            app: self.app.clone(),
            generation: self.generation,
        }
    }

    /// What the machine of a unit that is not global is to have, if that is not what the author wants now.
    #[must_use]
    pub fn given(&self) -> Option<&Version> {
        let update = self.update.as_deref().filter(|_| !self.requirements.global)?;
        match update.stage {
            UpdateStage::Waiting => Some(update.between.last().unwrap_or(&update.previous)),
            UpdateStage::Begun { .. } => None,
            UpdateStage::Back { .. } => Some(&update.previous),
        }
    }

    /// The same for a machine of a global unit. `updated` is the generation that it was updated to, if it was.
    #[must_use]
    pub fn given_at(&self, updated: Option<u64>) -> Option<&Version> {
        let update = self.update.as_deref().filter(|_| updated != Some(self.generation))?;
        let between = update.between.iter().find(|version| Some(version.generation) == updated);
        Some(between.unwrap_or(&update.previous))
    }

    /// What is asked of its machine now: by what that machine is to have. Of a global unit, what its author asks.
    #[must_use]
    pub fn asks(&self) -> &Requirements {
        self.given().map_or(&self.requirements, |version| &version.requirements)
    }

    /// The unit as a machine is told it that is to have this version; none: what the author wants now.
    #[must_use]
    pub fn as_given(&self, version: Option<&Version>) -> Unit {
        let mut unit = Unit { update: None, ..self.clone() };
        if let Some(Version { text, drop_ins, requirements, app, generation }) = version.cloned() {
            (unit.text, unit.drop_ins, unit.app, unit.generation) = (text, drop_ins, app, generation);
            unit.requirements = requirements;
        }
        unit
    }

    /// The unit after its author's change into `next`, which rolls out if a policy holds and something runs that the
    /// change restarts. `same_text` is as for [`Version::runs_as`].
    #[must_use]
    pub fn followed_by(&self, next: Unit, same_text: impl Fn(&str, &str) -> bool) -> Unit {
        let is_global = next.requirements.global;
        let launched = self.desired == DesiredState::Launched && next.desired == DesiredState::Launched;
        let rolls = launched
            && !next.name.is_template()
            && next.policy().is_some()
            && self.requirements.global == is_global;
        if !rolls {
            return Unit { update: None, ..next };
        }
        let (now, then) = (self.version(), next.version());
        let is_same = now.runs_as(&then, &same_text);
        let update = match &self.update {
            None if is_same => None,
            None => Some(Update { previous: now, between: Vec::new(), stage: UpdateStage::Waiting }),
            Some(update) if is_global => {
                let mut update = (**update).clone();
                update.between.push(now);
                let spare = update.between.len().saturating_sub(MOST_BETWEEN);
                update.between.drain(..spare);
                if !is_same {
                    update.stage = UpdateStage::Waiting;
                }
                Some(update)
            }
            Some(update) if is_same => Some((**update).clone()),
            Some(update) => {
                let given = self.given().cloned().unwrap_or(now);
                let back_to_it = given.runs_as(&then, &same_text) && given == update.previous;
                let between = if given == update.previous { Vec::new() } else { vec![given] };
                let update =
                    Update { previous: update.previous.clone(), between, stage: UpdateStage::Waiting };
                (!back_to_it).then_some(update)
            }
        };
        let size = |update: &Update| {
            then.size() + update.previous.size() + update.between.iter().map(Version::size).sum::<usize>()
        };
        let update = update.filter(|update| size(update) <= MOST_VERSION_BYTES);
        Unit { update: update.map(Box::new), ..next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str, generation: u64) -> Unit {
        let requirements = Requirements { update: Some(UpdatePolicy::default()), ..Requirements::NONE };
        let name = "a.service".parse().unwrap();
        Unit { requirements, generation, ..Unit::new(name, text, DesiredState::Launched) }
    }

    fn global(text: &str, generation: u64) -> Unit {
        let requirements = Requirements { global: true, ..Requirements::NONE };
        Unit { requirements, ..unit(text, generation) }
    }

    /// Two texts run the same if they begin with the same letter.
    fn same(one: &str, other: &str) -> bool {
        one.chars().next() == other.chars().next()
    }

    fn given(unit: &Unit) -> String {
        unit.as_given(unit.given()).text
    }

    #[test]
    fn a_change_waits_with_what_ran_before() {
        let changed = unit("a", 1).followed_by(unit("b", 2), same);
        assert_eq!((given(&changed).as_str(), changed.given().unwrap().generation), ("a", 1));
        assert_eq!(changed.update.unwrap().stage, UpdateStage::Waiting);
    }

    #[test]
    fn what_restarts_nothing_needs_no_turn() {
        assert_eq!(unit("a1", 1).followed_by(unit("a2", 2), same).update, None);
        let waiting = unit("a", 1).followed_by(unit("b1", 2), same);
        let again = waiting.followed_by(unit("b2", 3), same);
        assert_eq!(again.update, waiting.update, "it waits on");
    }

    #[test]
    fn without_a_policy_or_stopped_it_is_changed_at_once() {
        let plain = |text, generation| Unit { requirements: Requirements::NONE, ..unit(text, generation) };
        assert_eq!(plain("a", 1).followed_by(plain("b", 2), same).update, None);
        let stopped = Unit { desired: DesiredState::Inactive, ..unit("b", 2) };
        assert_eq!(unit("a", 1).followed_by(stopped, same).update, None);
        let large = "b".repeat(MOST_VERSION_BYTES);
        assert_eq!(unit("a", 1).followed_by(unit(&large, 2), same).update, None);
    }

    #[test]
    fn a_change_that_is_overtaken_stays_where_it_is_until_the_next_has_its_turn() {
        let mut begun = unit("a", 1).followed_by(unit("b", 2), same);
        begun.update.as_mut().unwrap().stage = UpdateStage::Begun { at: Timestamp(0) };
        assert_eq!(given(&begun), "b");
        let overtaken = begun.followed_by(unit("c", 3), same);
        assert_eq!(given(&overtaken), "b");
        let update = overtaken.update.as_ref().unwrap();
        assert_eq!((update.previous.text.as_str(), &update.stage), ("a", &UpdateStage::Waiting));
        let mut back = overtaken.clone();
        back.update.as_mut().unwrap().stage = UpdateStage::Back { why: "it failed".into() };
        assert_eq!(given(&back), "a");
    }

    #[test]
    fn an_author_who_takes_a_change_back_that_had_no_turn_has_changed_nothing() {
        let waiting = unit("a", 1).followed_by(unit("b", 2), same);
        assert_eq!(waiting.followed_by(unit("a", 3), same).update, None);
        let mut back = waiting;
        back.update.as_mut().unwrap().stage = UpdateStage::Back { why: "it failed".into() };
        assert_eq!(back.followed_by(unit("a", 3), same).update, None);
        let again = back.followed_by(unit("c", 3), same);
        assert_eq!((given(&again).as_str(), &again.update.unwrap().stage), ("a", &UpdateStage::Waiting));
    }

    #[test]
    fn machines_of_a_global_unit_have_what_they_were_updated_to() {
        let changed = global("a", 1).followed_by(global("b", 2), same);
        let overtaken = changed.followed_by(global("c", 3), same);
        let text = |updated| overtaken.as_given(overtaken.given_at(updated)).text;
        assert_eq!([text(None), text(Some(2)), text(Some(3)), text(Some(9))], ["a", "b", "c", "a"]);
        assert_eq!(overtaken.asks(), &overtaken.requirements);
    }
}
