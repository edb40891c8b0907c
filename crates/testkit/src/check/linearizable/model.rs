//! What operations do to keys, and which keys belong together.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Datum, Key, MicroOp, Operation, Outcome};

/// What stands at each key of a part, by the key's place.
pub(super) type State = Vec<Datum>;

/// Operations and keys that hang together.
pub(super) struct Part<'a> {
    keys: Vec<&'a Key>,
    pub(super) initial: State,
    /// By invocation.
    pub(super) calls: Vec<Call<'a>>,
}

/// An operation to find a place for.
pub(super) struct Call<'a> {
    pub(super) operation: &'a Operation,
    steps: Vec<Step>,
}

/// A micro-operation on keys by their place.
enum Step {
    Append(usize, i64),
    Read(usize, Datum),
    Write(usize, i64),
    CompareAndSet { place: usize, expected: i64, new: i64 },
    Differs(usize, i64),
    Add(usize, i64),
}

/// What an empty key means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Register,
    List,
    Counter,
}

impl KeyKind {
    fn empty(self) -> Datum {
        match self {
            Self::Register => Datum::Nil,
            Self::List => Datum::List(Vec::new()),
            Self::Counter => Datum::Int(0),
        }
    }
}

/// Every key with its kind, and the values that anyone saw or compared with.
struct Survey<'a> {
    kinds: BTreeMap<&'a Key, KeyKind>,
    observed: BTreeSet<(&'a Key, i64)>,
    /// Keys of which someone saw what they are not. Any write may be why.
    differed: BTreeSet<&'a Key>,
}

impl<'a> Survey<'a> {
    fn of(operations: &'a [Operation]) -> Self {
        let mut survey =
            Self { kinds: BTreeMap::new(), observed: BTreeSet::new(), differed: BTreeSet::new() };
        for step in operations.iter().flat_map(|operation| &operation.txn) {
            let kind = match step {
                MicroOp::Append { .. } | MicroOp::Read { seen: Some(Datum::List(_)), .. } => {
                    Some(KeyKind::List)
                }
                MicroOp::Add { .. } | MicroOp::Transfer { .. } => Some(KeyKind::Counter),
                _ => None,
            };
            for key in step.keys() {
                let known = survey.kinds.entry(key).or_insert(KeyKind::Register);
                *known = kind.unwrap_or(*known);
            }
            match step {
                MicroOp::Read { key, seen: Some(Datum::Int(value)) }
                | MicroOp::CompareAndSet { key, expected: value, .. } => {
                    survey.observed.insert((key, *value));
                }
                MicroOp::Read { key, seen: Some(Datum::List(values)) } => {
                    survey.observed.extend(values.iter().map(|value| (key, *value)));
                }
                MicroOp::Differs { key, .. } => drop(survey.differed.insert(key)),
                _ => {}
            }
        }
        survey
    }

    /// Whether a history is linearizable with this operation exactly if it is
    /// without: its outcome is unknown, and nobody saw anything of it.
    fn is_superfluous(&self, operation: &'a Operation) -> bool {
        operation.outcome == Outcome::Unknown
            && operation.txn.iter().all(|step| match step {
                MicroOp::Read { .. } => true,
                MicroOp::Append { key, value } | MicroOp::Write { key, value } => {
                    !self.observed.contains(&(key, *value))
                        && !self.differed.contains(key)
                        && self.kinds.get(key) != Some(&KeyKind::Counter)
                }
                _ => false,
            })
    }

    fn normal(&self, key: &Key, datum: &Datum) -> Datum {
        match (datum, self.kinds.get(key)) {
            (Datum::Nil, Some(kind)) => kind.empty(),
            _ => datum.clone(),
        }
    }
}

impl<'a> Part<'a> {
    /// Splits a history where no operation ties keys together.
    pub(super) fn all(operations: &'a [Operation], initial: &BTreeMap<Key, Datum>) -> Vec<Self> {
        let survey = Survey::of(operations);
        let may_matter = |operation: &&Operation| {
            operation.outcome != Outcome::Fail && !survey.is_superfluous(operation)
        };
        let operations: Vec<&Operation> = operations.iter().filter(may_matter).collect();
        let roots = tied_keys(&operations);

        let mut parts: BTreeMap<&Key, Part<'a>> = BTreeMap::new();
        let mut places: BTreeMap<&Key, usize> = BTreeMap::new();
        for (key, root) in &roots {
            let part = parts.entry(root).or_insert_with(|| Part {
                keys: Vec::new(),
                initial: Vec::new(),
                calls: Vec::new(),
            });
            places.insert(key, part.keys.len());
            part.keys.push(key);
            part.initial.push(survey.normal(key, initial.get(*key).unwrap_or(&Datum::Nil)));
        }
        for operation in operations {
            let key = operation.txn.iter().flat_map(MicroOp::keys).next();
            let part = key.and_then(|key| roots.get(key)).and_then(|root| parts.get_mut(root));
            let Some(part) = part else { continue };
            let place = |key: &Key| places.get(key).copied().unwrap_or(usize::MAX);
            let steps = operation.txn.iter().flat_map(|step| compile(step, &survey, place));
            part.calls.push(Call { operation, steps: steps.collect() });
        }
        let mut parts: Vec<_> = parts.into_values().collect();
        for part in &mut parts {
            part.calls.sort_by_key(|call| call.operation.invoked.position);
        }
        parts
    }

    pub(super) fn name(&self) -> String {
        let keys: Vec<_> = self.keys.iter().take(8).map(|key| key.as_str()).collect();
        let more = if self.keys.len() > keys.len() { " and others" } else { "" };
        format!("{}{more}", keys.join(", "))
    }

    pub(super) fn size(&self) -> String {
        format!("{} operations", self.calls.len())
    }

    pub(super) fn describe(&self, state: &State) -> String {
        let described: Vec<_> = self
            .keys
            .iter()
            .zip(state)
            .take(8)
            .map(|(key, datum)| format!("{key} = {datum}"))
            .collect();
        described.join(", ")
    }
}

/// For each key the least of those that it is tied to.
fn tied_keys<'a>(operations: &[&'a Operation]) -> BTreeMap<&'a Key, &'a Key> {
    let mut parents: BTreeMap<&Key, &Key> = BTreeMap::new();
    fn root<'k>(parents: &mut BTreeMap<&'k Key, &'k Key>, key: &'k Key) -> &'k Key {
        let mut at = key;
        while let Some(parent) = parents.get(at).copied().filter(|parent| *parent != at) {
            at = parent;
        }
        parents.insert(key, at);
        at
    }
    for operation in operations {
        let mut keys = operation.txn.iter().flat_map(MicroOp::keys);
        let Some(first) = keys.next() else { continue };
        let mut first = root(&mut parents, first);
        for key in keys {
            let other = root(&mut parents, key);
            let (least, greater) = if other < first { (other, first) } else { (first, other) };
            parents.insert(greater, least);
            first = least;
        }
    }
    let keys: Vec<&Key> = parents.keys().copied().collect();
    keys.into_iter().map(|key| (key, root(&mut parents, key))).collect()
}

fn compile(step: &MicroOp, survey: &Survey<'_>, place: impl Fn(&Key) -> usize) -> Vec<Step> {
    match step {
        MicroOp::Append { key, value } => vec![Step::Append(place(key), *value)],
        MicroOp::Read { seen: None, .. } => Vec::new(),
        MicroOp::Read { key, seen: Some(seen) } => {
            vec![Step::Read(place(key), survey.normal(key, seen))]
        }
        MicroOp::Write { key, value } => vec![Step::Write(place(key), *value)],
        MicroOp::CompareAndSet { key, expected, new } => {
            vec![Step::CompareAndSet { place: place(key), expected: *expected, new: *new }]
        }
        MicroOp::Differs { key, unexpected } => vec![Step::Differs(place(key), *unexpected)],
        MicroOp::Add { key, delta, .. } => vec![Step::Add(place(key), *delta)],
        MicroOp::Transfer { from, to, amount } => {
            vec![Step::Add(place(from), amount.saturating_neg()), Step::Add(place(to), *amount)]
        }
    }
}

impl Call<'_> {
    /// The state after it, if it can happen here with the answers it gave.
    pub(super) fn apply(&self, state: &State) -> Option<State> {
        let mut state = state.clone();
        self.steps.iter().try_for_each(|step| step.apply(&mut state))?;
        Some(state)
    }
}

impl Step {
    fn apply(&self, state: &mut State) -> Option<()> {
        match self {
            Self::Append(place, value) => match state.get_mut(*place)? {
                Datum::List(values) => values.push(*value),
                Datum::Nil | Datum::Int(_) => return None,
            },
            Self::Read(place, seen) => return (state.get(*place)? == seen).then_some(()),
            Self::Write(place, value) => *state.get_mut(*place)? = Datum::Int(*value),
            Self::CompareAndSet { place, expected, new } => {
                let stored = state.get_mut(*place).filter(|it| **it == Datum::Int(*expected))?;
                *stored = Datum::Int(*new);
            }
            Self::Differs(place, unexpected) => {
                return (*state.get(*place)? != Datum::Int(*unexpected)).then_some(());
            }
            Self::Add(place, delta) => match state.get_mut(*place)? {
                Datum::Int(value) => *value = value.wrapping_add(*delta),
                Datum::Nil | Datum::List(_) => return None,
            },
        }
        Some(())
    }
}
