//! What is decided before anything starts: which steps run, and which secrets the pipeline is given.
//!
//! Guarantees: pure.
//!
//! It must not know how steps are run.

use sealift_model::diagnostic::nearest;

use crate::config::settings::Secret;
use crate::config::when::{Facts, When};
use crate::config::{StepConfig, StepSettings};
use crate::spec::{RunSpec, Selection};

/// Steps were asked for in a way that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// The pipeline has no such step; `help` says what is there instead.
    #[error("there is no step `{wanted}`{help}")]
    Unknown { wanted: String, help: String },
    #[error("nothing is left to run: what was selected leaves out every step")]
    Nothing,
}

/// What holds for one step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) settings: StepSettings,
    /// Why it does not run, if it does not.
    pub(super) skip: Option<String>,
}

/// What a run is about, for conditions.
pub(crate) fn facts(spec: &RunSpec) -> Facts<'_> {
    Facts { branch: Some(&spec.git.branch), tag: Some(&spec.git.tag), changed: spec.changed.as_deref() }
}

/// Whether a condition asks which paths changed.
pub(crate) fn asks_for_paths(when: Option<&When>) -> bool {
    when.is_some_and(|when| when.0.iter().any(|condition| condition.path.is_some()))
}

/// What is told where the paths are asked for and not known.
pub(crate) const NO_PATHS: &str = "which paths changed is not known: conditions on them count as met";

/// Why nothing is done where a condition does not hold.
pub(crate) fn condition(facts: &Facts<'_>) -> String {
    let named = |what: &str, name: Option<&str>| match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("{what} {name}"),
        None => format!("no {what}"),
    };
    let changed = facts.changed.map(|paths| format!(", {} changed paths", paths.len())).unwrap_or_default();
    format!(
        "its `when` does not hold: {}, {}{changed}",
        named("branch", facts.branch),
        named("tag", facts.tag)
    )
}

/// The plan of each step, after-steps behind the others.
pub(super) fn plan(
    main: &[StepConfig],
    after: &[StepConfig],
    selection: &Selection,
    facts: &Facts<'_>,
) -> Result<Vec<Plan>, SelectionError> {
    let all: Vec<&StepConfig> = main.iter().chain(after).collect();
    let found = |wanted: &String| found(&all, wanted);
    let only = selection.only.iter().map(found).collect::<Result<Vec<_>, _>>()?.concat();
    let skip = selection.skip.iter().map(found).collect::<Result<Vec<_>, _>>()?.concat();
    let from = selection.from.as_ref().map(found).transpose()?.and_then(|found| found.first().copied());
    let plan = |(number, step): (usize, &&StepConfig)| {
        let when = step.settings.when.as_ref();
        let skip = if !selection.only.is_empty() && !only.contains(&number) || skip.contains(&number) {
            Some("left out on request".to_owned())
        } else if from.is_some_and(|from| number < from) {
            Some(format!("left out: the run begins at {}", selection.from.as_deref().unwrap_or_default()))
        } else {
            when.filter(|when| !when.matches(facts)).map(|_| condition(facts))
        };
        Plan { settings: (*step.settings).clone(), skip }
    };
    let plans: Vec<Plan> = all.iter().enumerate().map(plan).collect();
    let selected = *selection != Selection::default();
    if selected && plans.iter().all(|plan| plan.skip.is_some()) {
        return Err(SelectionError::Nothing);
    }
    Ok(plans)
}

/// The numbers (counted from 0) of the steps that a name or a number (counted from 1) means.
fn found(all: &[&StepConfig], wanted: &str) -> Result<Vec<usize>, SelectionError> {
    let by = |matches: &dyn Fn(&StepConfig) -> bool| -> Vec<usize> {
        all.iter().enumerate().filter(|(_, step)| matches(step)).map(|(number, _)| number).collect()
    };
    let named = by(&|step| step.title() == wanted);
    let named = if named.is_empty() { by(&|step| step.id == wanted) } else { named };
    if !named.is_empty() {
        return Ok(named);
    }
    let number = wanted.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
    if let Some(number) = number.filter(|number| *number < all.len()) {
        return Ok(vec![number]);
    }
    let mut known: Vec<&str> = all.iter().map(|step| step.title()).collect();
    known.dedup();
    let near = nearest(wanted, known.iter().copied().chain(all.iter().map(|step| step.id.as_str())));
    let help = match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => ": the pipeline has none".to_owned(),
        None => format!("; there is {}", known.join(", ")),
    };
    Err(SelectionError::Unknown { wanted: wanted.to_owned(), help })
}

/// The secrets that a pipeline is given, under the variables it names, and the names of those that are not there.
pub(super) fn secrets(
    wanted: &[Secret],
    available: &[(String, String)],
) -> (Vec<(String, String)>, Vec<String>) {
    let mut handed = Vec::new();
    let mut missing = Vec::new();
    for Secret { from, variable } in wanted {
        match available.iter().rev().find(|(name, _)| name == from) {
            Some((_, value)) => handed.push((variable.clone(), value.clone())),
            None => missing.push(from.clone()),
        }
    }
    (handed, missing)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::when::{Condition, Patterns};

    fn step(id: &str, display: Option<&str>) -> StepConfig {
        StepConfig { id: id.into(), display: display.map(str::to_owned), ..StepConfig::default() }
    }

    /// The numbers (from 1) of the steps that run.
    fn runs(selection: Selection) -> Result<Vec<usize>, String> {
        let main = [step("script", Some("compile")), step("script", Some("test")), step("lint", None)];
        let after = [step("script", Some("tell"))];
        let plans = plan(&main, &after, &selection, &Facts::default()).map_err(|error| error.to_string())?;
        Ok(plans.iter().zip(1..).filter(|(plan, _)| plan.skip.is_none()).map(|(_, number)| number).collect())
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn steps_are_selected_by_name_id_and_number() {
        for (only, skip, from, want) in [
            (&[][..], &[][..], None, &[1, 2, 3, 4][..]),
            (&["test", "4"], &[], None, &[2, 4]),
            (&["script"], &[], None, &[1, 2, 4]),
            (&[], &["lint", "tell"], None, &[1, 2]),
            (&["1", "2"], &["compile"], None, &[2]),
            (&[], &[], Some("test"), &[2, 3, 4]),
            (&[], &["lint"], Some("2"), &[2, 4]),
        ] {
            let selection = Selection { only: names(only), skip: names(skip), from: from.map(str::to_owned) };
            assert_eq!(runs(selection.clone()).unwrap(), want, "{selection:?}");
        }
    }

    #[test]
    fn a_step_that_is_not_there_is_named_with_what_is() {
        for (wanted, want) in [
            ("tets", "there is no step `tets`; did you mean `test`?"),
            ("lnt", "there is no step `lnt`; did you mean `lint`?"),
            ("0", "there is no step `0`; there is compile, test, lint, tell"),
            ("5", "there is no step `5`; there is compile, test, lint, tell"),
        ] {
            let skip = Selection { skip: names(&[wanted]), ..Selection::default() };
            assert_eq!(runs(skip).unwrap_err(), want);
            let from = Selection { from: Some(wanted.into()), ..Selection::default() };
            assert_eq!(runs(from).unwrap_err(), want);
        }
        let nothing = Selection { only: names(&["1"]), from: Some("2".into()), ..Selection::default() };
        assert!(runs(nothing).unwrap_err().contains("nothing is left to run"));
    }

    #[test]
    fn a_condition_that_does_not_hold_leaves_a_step_out() {
        let mut one = step("a", None);
        let branch = Some(Patterns::new(["main".to_owned()]));
        one.settings.when = Some(When(vec![Condition { branch, ..Condition::default() }]));
        let on = |branch| {
            let facts = Facts { branch: Some(branch), tag: None, changed: None };
            plan(std::slice::from_ref(&one), &[], &Selection::default(), &facts).unwrap().remove(0).skip
        };
        assert_eq!(on("main"), None);
        assert_eq!(on("x").as_deref(), Some("its `when` does not hold: branch x, no tag"));
    }

    #[test]
    fn secrets_are_handed_by_name() {
        let secret =
            |from: &str, variable: &str| Secret { from: from.to_owned(), variable: variable.to_owned() };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let available = [pair("A", "1"), pair("B", "2"), pair("A", "3")];
        let wanted = [secret("A", "KEY"), secret("C", "C"), secret("D", "D")];
        assert_eq!(secrets(&wanted, &available), (vec![pair("KEY", "3")], names(&["C", "D"])));
        assert_eq!(secrets(&[], &available), (vec![], vec![]));
    }
}
