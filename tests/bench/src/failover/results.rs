//! The tables and raw figures of all rounds.

use std::collections::BTreeMap;

use roadstead_lab::Review;
use serde_json::{Value, json};

use super::plan::{Contestant, Fault};
use super::rounds::Sample;
use super::watch::Seen;
use crate::report::{Table, spread, time};
use crate::series::Series;

/// One case of one contestant and family.
type Group<'a> = BTreeMap<(Contestant, &'static str), Vec<(&'a Sample, &'a Seen)>>;

/// What happens, and what happens when the node comes back.
pub(crate) fn tables(samples: &[Sample], fault: Fault) -> Vec<Table> {
    let of = |is_return: bool| {
        let chosen = samples.iter().filter(|sample| sample.fault == fault && sample.is_return == is_return);
        let mut groups = Group::new();
        for sample in chosen {
            for seen in &sample.seen {
                groups.entry((sample.contestant, seen.family)).or_default().push((sample, seen));
            }
        }
        groups
    };
    let title = format!("After {}", fault.title());
    [(title.clone(), of(false)), (format!("{title}: the node comes back"), of(true))]
        .into_iter()
        .filter(|(_, groups)| !groups.is_empty())
        .map(|(title, groups)| table(title, &groups))
        .collect()
}

fn table(title: String, groups: &Group<'_>) -> Table {
    let head = [
        "contestant",
        "",
        "rounds",
        "outage (quartiles)",
        "p99",
        "worst",
        "lost",
        "most",
        "ARP/NDP silence",
        "p99",
        "two answered",
        "in rounds",
    ];
    let rows = groups.iter().map(|((contestant, family), seen)| {
        let of = |review: fn(&Seen) -> &Review, figure: fn(&Review) -> f64| -> Series {
            seen.iter().map(|(_, seen)| figure(review(seen))).collect()
        };
        let outage = of(|seen| &seen.datagrams, |review| review.outage.as_secs_f64());
        let lost = of(|seen| &seen.datagrams, |review| review.lost as f64);
        let silence = of(|seen| &seen.neighbours, |review| review.outage.as_secs_f64());
        let doubles: Vec<usize> = seen.iter().map(|(_, seen)| doubles(seen)).collect();
        let stuck = seen.iter().filter(|(sample, _)| !sample.moved).count();
        let rounds = if stuck == 0 { seen.len().to_string() } else { format!("{} ({stuck} never moved)", seen.len()) };
        vec![
            contestant.name().to_owned(),
            (*family).to_owned(),
            rounds,
            spread(&outage, time),
            time(outage.quantile(0.99)),
            time(outage.quantile(1.0)),
            format!("{:.0}", lost.median()),
            format!("{:.0}", lost.quantile(1.0)),
            time(silence.median()),
            time(silence.quantile(0.99)),
            doubles.iter().sum::<usize>().to_string(),
            doubles.iter().filter(|count| **count > 0).count().to_string(),
        ]
    });
    Table { title, head: head.map(str::to_owned).to_vec(), rows: rows.collect(), remarks: Vec::new() }
}

/// Questions of both kinds that two nodes answered.
fn doubles(seen: &Seen) -> usize {
    seen.datagrams.doubles + seen.neighbours.doubles
}

/// Every round.
pub(crate) fn raw(samples: &[Sample]) -> Value {
    let review = |review: &Review| {
        json!({
            "outage_ms": review.outage.as_secs_f64() * 1e3,
            "asked": review.asked,
            "lost": review.lost,
            "doubles": review.doubles,
            "answers": review.answers,
        })
    };
    let round = |sample: &Sample| {
        let families = sample.seen.iter().map(|seen| {
            let figures = json!({ "datagrams": review(&seen.datagrams), "neighbours": review(&seen.neighbours) });
            (seen.family.to_owned(), figures)
        });
        json!({
            "contestant": sample.contestant.name(),
            "case": sample.fault.word(),
            "return": sample.is_return,
            "moved": sample.moved,
            "families": families.collect::<serde_json::Map<_, _>>(),
        })
    };
    samples.iter().map(round).collect()
}
