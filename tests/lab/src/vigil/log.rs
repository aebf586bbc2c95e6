//! Questions in the order in which they were asked, who answered each and when, and what that says about a stretch of
//! time. Pure: whoever asks hands the moments in.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A question younger than this may still be answered: it counts neither as lost nor against a steady answerer.
const PENDING: Duration = Duration::from_millis(100);

/// All questions that have not been forgotten.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// The number of the first question that is still here.
    first: u64,
    questions: VecDeque<Question>,
}

#[derive(Clone, Debug)]
struct Question {
    asked: Instant,
    answers: Vec<(Arc<str>, Instant)>,
}

/// A stretch of time as whoever asked saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Review {
    /// Questions that were asked, the last ones left out that may still be answered.
    pub asked: usize,
    /// How many of them nobody answered.
    pub lost: usize,
    /// Questions that more than one answered.
    pub doubles: usize,
    /// The longest time between an answer and the next one, the last answer before the stretch included.
    pub outage: Duration,
    /// Who answered, how many questions.
    pub answers: BTreeMap<String, usize>,
}

impl Log {
    /// Enters a question; tells its number.
    pub(super) fn ask(&mut self, now: Instant) -> u64 {
        self.questions.push_back(Question { asked: now, answers: Vec::new() });
        self.first + self.questions.len() as u64 - 1
    }

    /// Enters an answer to a question. One to a question that is forgotten is dropped.
    pub(super) fn answer(&mut self, number: u64, who: &Arc<str>, now: Instant) {
        let place = number.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        if let Some(question) = place.and_then(|place| self.questions.get_mut(place)) {
            question.answers.push((Arc::clone(who), now));
        }
    }

    /// The number of the latest question that has this remainder.
    pub(super) fn latest(&self, remainder: u64, divisor: u64) -> Option<u64> {
        let last = (self.first + self.questions.len() as u64).checked_sub(1)?;
        let back = (last + divisor - remainder % divisor) % divisor;
        last.checked_sub(back)
    }

    /// Forgets what was asked before that moment.
    pub(super) fn forget(&mut self, before: Instant) {
        while self.questions.front().is_some_and(|question| question.asked < before) {
            self.questions.pop_front();
            self.first += 1;
        }
    }

    /// Who alone has answered every question of the last so much time; nobody where a question was not answered, or two
    /// answered, or not so much has been asked.
    #[must_use]
    pub fn steady(&self, now: Instant, window: Duration) -> Option<Arc<str>> {
        let oldest = now.checked_sub(window + PENDING)?;
        if self.questions.front()?.asked > oldest {
            return None;
        }
        let recent = self.questions.iter().rev().skip_while(|question| question.asked + PENDING > now);
        let mut who = None::<&Arc<str>>;
        for question in recent.take_while(|question| question.asked >= oldest) {
            let (first, _) = question.answers.first()?;
            let others = question.answers.iter().map(|(name, _)| name).chain(who);
            if others.into_iter().any(|name| name != first) {
                return None;
            }
            who = Some(first);
        }
        who.cloned()
    }

    /// When this one first answered a question that was asked after that moment.
    #[must_use]
    pub fn first_answer(&self, who: &str, after: Instant) -> Option<Instant> {
        let later = self.questions.iter().filter(|question| question.asked >= after);
        let answers = later.flat_map(|question| &question.answers).filter(|(name, _)| &**name == who);
        answers.map(|(_, at)| *at).min()
    }

    /// When this one last answered.
    #[must_use]
    pub fn last_answer(&self, who: &str) -> Option<Instant> {
        let answers = self.questions.iter().flat_map(|question| &question.answers).filter(|(name, _)| &**name == who);
        answers.map(|(_, at)| *at).max()
    }

    /// What was seen between two moments.
    #[must_use]
    pub fn review(&self, from: Instant, to: Instant) -> Review {
        let whole = self.questions.iter().filter(|question| question.asked >= from && question.asked + PENDING <= to);
        let mut review =
            Review { asked: 0, lost: 0, doubles: 0, outage: self.outage(from, to), answers: BTreeMap::new() };
        for question in whole {
            review.asked += 1;
            let mut names: Vec<&str> = question.answers.iter().map(|(name, _)| &**name).collect();
            names.sort_unstable();
            names.dedup();
            review.lost += usize::from(names.is_empty());
            review.doubles += usize::from(names.len() > 1);
            for name in names {
                *review.answers.entry(name.to_owned()).or_default() += 1;
            }
        }
        review
    }

    fn outage(&self, from: Instant, to: Instant) -> Duration {
        let all = self.questions.iter().flat_map(|question| &question.answers).map(|(_, at)| *at);
        let mut times: Vec<Instant> = all.filter(|at| *at <= to).collect();
        times.sort_unstable();
        let before = times.iter().filter(|at| **at <= from).max().copied().unwrap_or(from);
        let mut last = before;
        let mut longest = Duration::ZERO;
        for at in times.into_iter().filter(|at| *at > from).chain([to]) {
            longest = longest.max(at - last);
            last = at;
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question a millisecond from `start` on; `who` tells for each who answers, and after how many milliseconds.
    fn log(start: Instant, count: u64, who: impl Fn(u64) -> Vec<(&'static str, u64)>) -> Log {
        let mut log = Log::default();
        for number in 0..count {
            let asked = start + Duration::from_millis(number);
            assert_eq!(log.ask(asked), number);
            for (name, after) in who(number) {
                log.answer(number, &Arc::from(name), asked + Duration::from_millis(after));
            }
        }
        log
    }

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn an_outage_lasts_from_the_last_answer_before_to_the_first_behind() {
        let start = Instant::now();
        // a dies at 500; b takes over at 660, and the question of 600 is answered late.
        let log = log(start, 1_000, |number| match number {
            0..500 => vec![("a", 0)],
            600 => vec![("b", 60)],
            660.. => vec![("b", 0)],
            _ => vec![],
        });
        let review = log.review(at(start, 450), at(start, 1_000));
        assert_eq!(review.outage, Duration::from_millis(660 - 499));
        assert_eq!((review.asked, review.lost, review.doubles), (451, 159, 0));
        assert_eq!(review.answers, BTreeMap::from([("a".to_owned(), 50), ("b".to_owned(), 242)]));
        assert_eq!(log.first_answer("b", at(start, 500)), Some(at(start, 660)));
        // An outage that does not end lasts until the end.
        assert_eq!(log.review(at(start, 450), at(start, 640)).outage, Duration::from_millis(640 - 499));
    }

    #[test]
    fn a_question_that_two_answered_is_a_double_and_twice_by_one_is_none() {
        let start = Instant::now();
        let log = log(start, 400, |number| match number {
            50 => vec![("a", 0), ("b", 3)],
            60 => vec![("a", 0), ("a", 1)],
            _ => vec![("a", 0)],
        });
        assert_eq!(log.review(start, at(start, 400)).doubles, 1);
        assert_eq!(log.steady(at(start, 400), Duration::from_millis(200)).as_deref(), Some("a"));
        assert_eq!(log.steady(at(start, 400), Duration::from_millis(270)), None, "two answered");
    }

    #[test]
    fn steady_is_who_alone_answered_everything_for_long_enough() {
        let start = Instant::now();
        let log = log(start, 600, |number| match number {
            0..100 => vec![("a", 0)],
            // The last ones may still be answered.
            100..550 => vec![("b", 0)],
            _ => vec![],
        });
        let now = at(start, 600);
        let cases = [(300, Some("b")), (400, Some("b")), (405, None), (5_000, None)];
        for (window, expected) in cases {
            assert_eq!(log.steady(now, Duration::from_millis(window)).as_deref(), expected, "{window}");
        }
        assert_eq!(log.steady(at(start, 700), Duration::from_millis(300)), None, "some were lost");
    }

    #[test]
    fn numbers_stay_when_old_questions_are_forgotten() {
        let start = Instant::now();
        let mut log = log(start, 100, |_| vec![]);
        log.forget(at(start, 90));
        let cases = [(3, Some(99)), (2, Some(98)), (0, Some(96)), (1, Some(97))];
        for (remainder, expected) in cases {
            assert_eq!(log.latest(remainder, 4), expected, "{remainder}");
        }
        log.answer(95, &Arc::from("a"), at(start, 100));
        log.answer(2, &Arc::from("a"), at(start, 100));
        assert_eq!(log.review(at(start, 90), at(start, 300)).answers, BTreeMap::from([("a".to_owned(), 1)]));
        assert_eq!(Log::default().latest(0, 4), None);
    }
}
