//! What clients saw, and whether a register would have shown it: linearizability, cell by cell.
//!
//! A compare and write takes effect, or finds something else, at one moment between its sending and its answer.
//!
//! A cell is the unit of atomicity that is checked: a block, or a sector of a block that is written in sectors. A
//! write that was never answered may have happened at any moment after it was sent, or never; once a read showed it,
//! it has happened. If its session was superseded, it has happened by then or never will. The check is complete: it follows every order of the open operations that explains what was
//! returned so far (Wing and Gong 1993, kept small by dropping what was returned).

use std::collections::{BTreeMap, BTreeSet};

/// A cell's content: zero, or the number of the write that filled it.
pub type Value = u64;

/// More explanations at once than this are not followed.
const EXPLANATIONS_MOST: usize = 1_000_000;
/// Stands for every value that nobody read or expected: no answer tells one of them from another.
const UNTOLD: Value = Value::MAX;

/// What a client did to a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It wrote.
    Write(Value),
    /// It read; None: not answered yet.
    Read(Option<Value>),
    /// It wrote if the cell held what it expected; whether it did, once that is answered.
    CompareAndWrite {
        /// What it expected.
        expect: Value,
        /// What it wrote in that case.
        write: Value,
        /// The answer.
        done: Option<bool>,
    },
}

/// An operation on one cell.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Which client.
    pub client: usize,
    /// What.
    pub action: Action,
    /// When it was sent, in the order of all sendings and answers.
    pub sent: u64,
    /// When it was answered.
    pub answered: Option<u64>,
    /// When it was certain, without an answer, that it does not take effect any more if it has not yet.
    pub superseded: Option<u64>,
    /// It was refused: it never took effect and never will.
    pub refused: bool,
    /// It was made after everything healed.
    pub last: bool,
}

/// Why no order explains a cell's history, or none was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which cell.
    pub cell: usize,
    /// The answer that nothing explains.
    pub answered: u64,
    /// There were too many explanations to follow: it may well have one.
    pub gave_up: bool,
    /// It came after everything healed.
    pub last: bool,
    /// The operations around it, for people.
    pub around: Vec<String>,
}

/// Names an operation until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    cell: usize,
    index: usize,
}

/// Every operation of a run.
#[derive(Debug, Default)]
pub struct History {
    cells: BTreeMap<usize, Vec<Operation>>,
    moments: u64,
}

/// A set of open operations, each with its own bit while it is open.
type Set = u128;

/// How a history may be explained so far: the cell's value, and which open operations took effect.
type Explanation = (Value, Set);

impl History {
    /// A client sends an operation.
    pub fn sent(&mut self, client: usize, cell: usize, action: Action, last: bool) -> Ticket {
        let sent = self.moment();
        let operations = self.cells.entry(cell).or_default();
        operations.push(Operation {
            client,
            action,
            sent,
            answered: None,
            superseded: None,
            refused: false,
            last,
        });
        Ticket { cell, index: operations.len() - 1 }
    }

    /// The next moment, in the order of all that happens.
    fn moment(&mut self) -> u64 {
        self.moments += 1;
        self.moments
    }

    fn operation(&mut self, ticket: Ticket) -> Option<&mut Operation> {
        self.cells.get_mut(&ticket.cell)?.get_mut(ticket.index)
    }

    /// An operation is answered; a read with what it read.
    pub fn answered(&mut self, ticket: Ticket, read: Option<Value>) {
        let now = self.moment();
        if let Some(operation) = self.operation(ticket) {
            operation.answered = Some(now);
            if let Action::Read(value) = &mut operation.action {
                *value = read;
            }
        }
    }

    /// A compare and write is answered.
    pub fn compared(&mut self, ticket: Ticket, equal: bool) {
        self.answered(ticket, None);
        if let Some(Operation { action: Action::CompareAndWrite { done, .. }, .. }) = self.operation(ticket) {
            *done = Some(equal);
        }
    }

    /// An operation that was not answered does not take effect from here on.
    pub fn superseded(&mut self, ticket: Ticket) {
        let now = self.moment();
        self.operation(ticket).into_iter().for_each(|o| o.superseded = Some(now));
    }

    /// An operation is refused.
    pub fn refused(&mut self, ticket: Ticket) {
        self.operation(ticket).into_iter().for_each(|o| o.refused = true);
    }

    /// Whether every cell behaved as a register that held zero at first.
    pub fn check(&self) -> Result<(), Violation> {
        self.cells.iter().try_for_each(|(cell, operations)| check_cell(*cell, operations))
    }
}

fn check_cell(cell: usize, operations: &[Operation]) -> Result<(), Violation> {
    let shown = |o: &Operation| match o.action {
        Action::Read(value) => value,
        Action::CompareAndWrite { expect, done: Some(true), .. } => Some(expect),
        _ => None,
    };
    let seen: BTreeSet<Value> = operations.iter().filter_map(shown).collect();
    // One that found something else may have found anything.
    let unequal = |o: &Operation| matches!(o.action, Action::CompareAndWrite { done: Some(false), .. });
    let any_unequal = operations.iter().any(unequal);
    let expected = |o: &Operation| match o.action {
        Action::CompareAndWrite { expect, .. } => Some(expect),
        Action::Read(_) | Action::Write(_) => None,
    };
    let told: BTreeSet<Value> = seen.iter().copied().chain(operations.iter().filter_map(expected)).collect();
    let name = |value: Value| if told.contains(&value) { value } else { UNTOLD };
    let named = |action: Action| match action {
        Action::Write(value) => Action::Write(name(value)),
        Action::CompareAndWrite { expect, write, done } => {
            Action::CompareAndWrite { expect, write: name(write), done }
        }
        read => read,
    };
    // An unanswered read says nothing; an unanswered write that nobody saw need not have happened.
    let may_matter = |o: &Operation| match o.action {
        Action::Write(value) | Action::CompareAndWrite { write: value, .. } => {
            any_unequal || seen.contains(&value)
        }
        Action::Read(_) => false,
    };
    let matters = |o: &Operation| !o.refused && (o.answered.is_some() || may_matter(o));
    let mut moments: BTreeMap<u64, (usize, Moment)> = BTreeMap::new();
    for (index, operation) in operations.iter().enumerate().filter(|(_, o)| matters(o)) {
        moments.insert(operation.sent, (index, Moment::Sent));
        match (operation.answered, operation.superseded) {
            (Some(answered), _) => drop(moments.insert(answered, (index, Moment::Answered))),
            (None, Some(superseded)) => drop(moments.insert(superseded, (index, Moment::Superseded))),
            (None, None) => {}
        }
    }
    let mut open: BTreeMap<usize, Open> = BTreeMap::new();
    let mut explanations: BTreeSet<Explanation> = BTreeSet::from([(name(0), 0)]);
    for (moment, (index, kind)) in moments {
        if kind == Moment::Sent {
            let free = !open.values().fold(0, |used, o| used | o.bit);
            // More open operations than bits would have more explanations than are followed.
            let Some(bit) = Set::checked_shl(1, free.trailing_zeros()) else {
                return Err(violation(cell, operations, index, moment, true));
            };
            let Operation { action, answered, superseded, .. } = operations[index];
            let (action, is_answered) = (named(action), answered.is_some());
            let until = superseded.unwrap_or(u64::MAX);
            // Those that are never answered and do the same are one as good as the other, but that one may no longer happen
            // when the other still may: they happen in this order.
            let same = open.values().filter(|o| !is_answered && !o.is_answered && o.action == action);
            let after = same.filter(|o| o.until <= until).fold(0, |bits, o| bits | o.bit);
            open.insert(index, Open { action, bit, after, until, is_answered });
            continue;
        }
        let Some(all) = close(explanations, &open) else {
            return Err(violation(cell, operations, index, moment, true));
        };
        let bit = open.remove(&index).expect("what is answered was sent before").bit;
        open.values_mut().for_each(|o| o.after &= !bit);
        let holds = |e: &Explanation| kind == Moment::Superseded || e.1 & bit != 0;
        explanations = all.into_iter().filter(holds).map(|e| (e.0, e.1 & !bit)).collect();
        if explanations.is_empty() {
            return Err(violation(cell, operations, index, moment, false));
        }
    }
    Ok(())
}

/// What happens to an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moment {
    Sent,
    Answered,
    Superseded,
}

/// An operation that was sent and is not answered.
struct Open {
    action: Action,
    bit: Set,
    /// Those that happen before it.
    after: Set,
    /// It does not happen later.
    until: u64,
    is_answered: bool,
}

/// Every explanation that some open operations in some order lead to. What changes nothing, a read or a comparison that
/// fails, takes effect as soon as it can: whatever could follow without it can follow after it, so that explanations that
/// put it off need not be followed. None: there are too many.
fn close(from: BTreeSet<Explanation>, open: &BTreeMap<usize, Open>) -> Option<BTreeSet<Explanation>> {
    let settled = |(value, mut done): Explanation| {
        for Open { action, bit, .. } in open.values() {
            let shows = match action {
                Action::Read(read) => *read == Some(value),
                Action::CompareAndWrite { expect, done: Some(false), .. } => value != *expect,
                Action::Write(_) | Action::CompareAndWrite { .. } => false,
            };
            done |= if shows { *bit } else { 0 };
        }
        (value, done)
    };
    let mut all: BTreeSet<Explanation> = from.into_iter().map(settled).collect();
    let mut todo: Vec<Explanation> = all.iter().copied().collect();
    while let Some((value, done)) = todo.pop() {
        let may_happen = |o: &&Open| done & o.bit == 0 && done & o.after == o.after;
        for Open { action, bit, .. } in open.values().filter(may_happen) {
            let written = match action {
                Action::Write(written) => *written,
                Action::CompareAndWrite { expect, write, done }
                    if *done != Some(false) && value == *expect =>
                {
                    *write
                }
                Action::Read(_) | Action::CompareAndWrite { .. } => continue,
            };
            let after = settled((written, done | bit));
            if all.insert(after) {
                todo.push(after);
            }
        }
        if all.len() > EXPLANATIONS_MOST {
            return None;
        }
    }
    Some(all)
}

fn violation(cell: usize, operations: &[Operation], index: usize, moment: u64, gave_up: bool) -> Violation {
    let first = index.saturating_sub(8);
    let line = |(i, o): (usize, &Operation)| {
        let mark = match (i == index, gave_up) {
            (false, _) => "",
            (true, false) => "  <- not explained",
            (true, true) => "  <- too many explanations to follow from here on: not checked",
        };
        format!("client {} {:?} sent {} answered {:?}{mark}", o.client, o.action, o.sent, o.answered)
    };
    let around = operations.iter().enumerate().skip(first).take(14).map(line).collect();
    Violation { cell, answered: moment, gave_up, last: operations[index].last, around }
}

#[cfg(test)]
mod tests;
