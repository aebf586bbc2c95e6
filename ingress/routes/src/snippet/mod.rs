//! Snippets: the part of nginx's language that can neither open what is closed nor break a message, as a small program.
//!
//! `syntax` reads the text, `meaning` checks every directive when the table is compiled, and [`Program::run`] goes through the
//! steps for a request: it ends after the last one, for there is no way back. What it wants done it hands out as [`Effects`]; the
//! proxy does it. A snippet with a directive that is not known is refused as a whole, and its Ingress is answered 503: leaving
//! out what cannot be read might let somebody in.

mod meaning;
mod syntax;

use std::{borrow::Cow, net::IpAddr};

use crate::{Facts, Networks, Pattern, Redirect, Template, Variable, path::escape};

/// A snippet, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    steps: Box<[Step]>,
    variables: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Set(usize, Template),
    If(Condition, Box<[Step]>),
    Break,
    Answer {
        status: u16,
        text: Option<Template>,
    },
    Rewrite {
        pattern: Pattern,
        to: Template,
        status: Option<u16>,
    },
    /// `allow` or `deny`: everybody, or a network.
    Admit(bool, Option<Networks>),
    Upstream(Box<str>, Template),
    Change(Box<str>, Change<Template>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    subject: Template,
    operator: Operator,
    negated: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operator {
    /// Neither empty nor `0`.
    Holds,
    Is(Template),
    Matches(Pattern),
}

/// What becomes of a field of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// Added, to answers with the statuses that nginx's `add_header` knows.
    Add(T),
    /// Added to every answer.
    AddAlways(T),
    /// Set in place of those that are there.
    Set(T),
    /// Taken away.
    Clear,
    /// Taken away with all that begin so.
    ClearAll,
}

/// What a snippet answers itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnippetAnswer {
    /// A status, with a text of the snippet's own or the usual one.
    Status(u16, Option<Vec<u8>>),
    /// A redirect.
    Redirect(Redirect),
}

/// What a snippet wants done with a request and its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// The request is answered at once.
    pub answer: Option<SnippetAnswer>,
    /// By the first `allow` or `deny` that is about the client.
    pub admitted: Option<bool>,
    /// The path that the endpoint gets, decoded, with its query.
    pub target: Option<String>,
    /// Fields that the endpoint gets; an empty value takes one away.
    pub upstream: Vec<(Box<str>, Vec<u8>)>,
    /// Fields of the answer.
    pub changes: Vec<(Box<str>, Change<Vec<u8>>)>,
}

impl Program {
    /// Reads and checks a snippet; `report` is told what of it has no effect.
    ///
    /// # Errors
    /// What is not understood or not allowed, by the directive's name.
    pub fn parse(text: &str, report: &mut dyn FnMut(String)) -> Result<Self, String> {
        meaning::read(&syntax::parse(text)?, report)
    }

    /// Goes through the steps for a request.
    pub fn run(&self, facts: &dyn Facts, peer: IpAddr, effects: &mut Effects) {
        let mut run = Run { facts, peer, effects, values: vec![Vec::new(); self.variables], groups: Vec::new() };
        run.all(&self.steps);
    }
}

enum Flow {
    On,
    Stop,
}

/// One run of a program.
struct Run<'r> {
    facts: &'r dyn Facts,
    peer: IpAddr,
    effects: &'r mut Effects,
    values: Vec<Vec<u8>>,
    groups: Vec<Vec<u8>>,
}

impl Run<'_> {
    /// `return`, `break` and a rewrite end the steps that decide, but not those about fields, which are no steps in nginx.
    fn all(&mut self, steps: &[Step]) -> Flow {
        let mut flow = Flow::On;
        for step in steps {
            let is_field = matches!(step, Step::Upstream(..) | Step::Change(..) | Step::Admit(..));
            if (matches!(flow, Flow::On) || is_field) && matches!(self.step(step), Flow::Stop) {
                flow = Flow::Stop;
            }
        }
        flow
    }

    fn step(&mut self, step: &Step) -> Flow {
        match step {
            Step::Set(place, value) => {
                let value = value.render(self);
                if let Some(variable) = self.values.get_mut(*place) {
                    *variable = value;
                }
            }
            Step::If(condition, block) => {
                if self.holds(condition) {
                    return self.all(block);
                }
            }
            Step::Break => return Flow::Stop,
            Step::Answer { status, text } => {
                let text = text.as_ref().map(|text| text.render(self));
                self.effects.answer = Some(match text {
                    Some(location) if matches!(status, 301 | 302 | 303 | 307 | 308) => {
                        SnippetAnswer::Redirect(Redirect::new(*status, &location, "a snippet returns it"))
                    }
                    text => SnippetAnswer::Status(*status, text),
                });
                return Flow::Stop;
            }
            Step::Rewrite { pattern, to, status } => return self.rewrite(pattern, to, *status),
            Step::Admit(allow, who) => {
                if who.as_ref().is_none_or(|who| who.contains(self.peer)) {
                    self.effects.admitted.get_or_insert(*allow);
                }
            }
            Step::Upstream(name, value) => {
                let value = value.render(self);
                self.effects.upstream.push((name.clone(), value));
            }
            Step::Change(name, change) => {
                let change = match change {
                    Change::Add(value) => Change::Add(value.render(self)),
                    Change::AddAlways(value) => Change::AddAlways(value.render(self)),
                    Change::Set(value) => Change::Set(value.render(self)),
                    Change::Clear => Change::Clear,
                    Change::ClearAll => Change::ClearAll,
                };
                self.effects.changes.push((name.clone(), change));
            }
        }
        Flow::On
    }

    fn rewrite(&mut self, pattern: &Pattern, to: &Template, status: Option<u16>) -> Flow {
        let path = self.facts.value(&Variable::Path).into_owned();
        if !self.take_groups(pattern, &path) {
            return Flow::On;
        }
        // What groups took of the decoded path is written as a path again.
        self.groups.iter_mut().for_each(|group| *group = escape(group));
        let mut target = to.render(self);
        let query = self.facts.value(&Variable::Query);
        if target.last() == Some(&b'?') {
            target.pop();
        } else if !query.is_empty() {
            target.push(if target.contains(&b'?') { b'&' } else { b'?' });
            target.extend_from_slice(&query);
        }
        match status {
            Some(status) => {
                let redirect = Redirect::new(status, &target, "a snippet rewrites to it");
                self.effects.answer = Some(SnippetAnswer::Redirect(redirect));
            }
            None => {
                if target.first() != Some(&b'/') {
                    target.insert(0, b'/');
                }
                self.effects.target = Some(Redirect::new(0, &target, "").location);
            }
        }
        Flow::Stop
    }

    fn holds(&mut self, condition: &Condition) -> bool {
        let subject = condition.subject.render(self);
        let holds = match &condition.operator {
            Operator::Holds => !subject.is_empty() && subject != b"0",
            Operator::Is(value) => value.render(self) == subject,
            Operator::Matches(pattern) => self.take_groups(pattern, &subject),
        };
        holds != condition.negated
    }

    fn take_groups(&mut self, pattern: &Pattern, subject: &[u8]) -> bool {
        let Some(captures) = pattern.captures(subject) else { return false };
        self.groups =
            captures.iter().map(|group| group.map_or_else(Vec::new, |group| group.as_bytes().to_vec())).collect();
        true
    }
}

impl Facts for Run<'_> {
    fn value(&self, variable: &Variable) -> Cow<'_, [u8]> {
        let known = |values: &'_ [Vec<u8>], place: usize| {
            values.get(place).map_or(Cow::Borrowed(&b""[..]), |value| Cow::Owned(value.clone()))
        };
        match variable {
            Variable::Set(place) => known(&self.values, *place),
            Variable::Capture(number) => known(&self.groups, usize::from(*number)),
            _ => self.facts.value(variable),
        }
    }
}

#[cfg(test)]
#[path = "../snippet_tests.rs"]
mod tests;
