//! Edits of the YAML, each of which must be followed within a second.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::checks;
use super::cluster::Cluster;
use super::manifests::{self, BROKEN, WEB_4};
use super::rows::{self, WEB};
use super::table::{Shown, Table};
use crate::daemon::Program;
use crate::lab::Lab;
use crate::probe::{Answer, Probe};
use crate::programs;
use crate::wait::{wait_for, wait_until};

/// What "follows" means.
const SOON: Duration = Duration::from_secs(1);
/// How long to look on, so that a row that fails tells how late it was.
const LATE: Duration = Duration::from_secs(10);
/// How many attempts are one look: a pod of four is missed by all of them once in 10^5 runs.
const ATTEMPTS: u32 = 40;

/// Edits the manifests and shows what follows.
pub(super) fn show(cluster: &Cluster<'_>, table: &mut Table) {
    table.section("Edits of the YAML, without a restart: the time until every client sees the change");
    let lab = cluster.lab;
    let [secure, _] = Cluster::at(cluster.ingress, 443);
    let at_port = Probe::tcp((lab.node("node-b").host().v4(), 30900));
    let at_ingress = rows::https(cluster, "/", secure);
    table.row("edit", &format!("add {}", WEB_4.0), || {
        let edited = SystemTime::now();
        lab.apply(WEB_4.0, WEB_4.1)?;
        let seen = |probe| appears(lab, probe, "web-4", edited);
        followed("web-4 serves at both", at_once(|| seen(&at_port), || seen(&at_ingress)))
    });
    table.row("edit", &format!("remove {}", WEB_4.0), || {
        let edited = SystemTime::now();
        lab.delete(WEB_4.0)?;
        let seen = |probe| disappears(lab, probe, "web-4", edited);
        followed("web-4 gone from both", at_once(|| seen(&at_port), || seen(&at_ingress)))
    });
    table.row("edit", "shop.yaml: path /api becomes /v2", || {
        let edited = SystemTime::now();
        manifests::edit(lab, "shop.yaml", "path: /api", "path: /v2")?;
        let (new, old) = (rows::https(cluster, "/v2", secure), rows::https(cluster, "/api", secure));
        let seen = at_once(|| appears(lab, &new, "api-1", edited), || disappears(lab, &old, "api-1", edited));
        let moved = followed("/v2 is api's, /api is web's", seen);
        manifests::edit(lab, "shop.yaml", "path: /v2", "path: /api")?;
        appears(lab, &old, "api-1", SystemTime::now())?;
        moved
    });
    table.row("edit", "add broken.yaml, which is no YAML", || broken(cluster, &at_port, &at_ingress));
}

/// Two looks side by side, so that neither waits for the other.
fn at_once<T: Send>(one: impl FnOnce() -> Result<T> + Send, other: impl FnOnce() -> Result<T>) -> [Result<T>; 2] {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        [one.join().unwrap_or_else(|_| Err(anyhow!("the look panicked"))), other]
    })
}

/// The time from the edit until this echo server first answered.
fn appears(lab: &Lab, probe: &Probe, name: &str, edited: SystemTime) -> Result<Duration> {
    wait_for(LATE, &format!("{name} answers"), || {
        let answers = look(lab, probe);
        let first = answers.map(|answers| answers.into_iter().find(|answer| answer.name() == Some(name)));
        first.map(|first| first.map(|answer| since(edited, &answer))).transpose()
    })?
}

/// The time from the edit until this echo server last answered. Where it never did after the edit, the first answer
/// of another is the nearest that is known.
fn disappears(lab: &Lab, probe: &Probe, name: &str, edited: SystemTime) -> Result<Duration> {
    let mut last = None;
    wait_for(LATE, &format!("{name} no longer answers"), || {
        let answers = match look(lab, probe) {
            Ok(answers) => answers,
            Err(error) => return Some(Err(error)),
        };
        let by_name = answers.iter().rev().find(|answer| answer.name() == Some(name));
        let gone = by_name.is_none();
        last = by_name.or(if last.is_none() { answers.first() } else { None }).map(|at| since(edited, at)).or(last);
        last.filter(|_| gone).map(Ok)
    })?
}

/// Some attempts from the client; one that fails during a change is an error.
fn look(lab: &Lab, probe: &Probe) -> Result<Vec<Answer>> {
    let answers = lab.client().probe(&probe.clone().count(ATTEMPTS))?;
    for answer in &answers {
        ensure!(answer.ok && answer.name().is_some(), "no answer during the change: {}", answer.outcome());
    }
    Ok(answers)
}

fn since(edited: SystemTime, answer: &Answer) -> Duration {
    answer.at().duration_since(edited).unwrap_or_default()
}

/// The slower of two paths counts.
fn followed(what: &str, seen: [Result<Duration>; 2]) -> Result<Shown> {
    let [one, other] = seen;
    let took = one?.max(other?);
    ensure!(took < SOON, "{what}, but only after {took:.1?}");
    Ok(Shown { answered: what.to_owned(), took })
}

/// Every daemon has read the broken file, the other files are served as before, and `roadstead check` names file and
/// line.
fn broken(cluster: &Cluster<'_>, at_port: &Probe, at_ingress: &Probe) -> Result<Shown> {
    let (lab, (file, text)) = (cluster.lab, BROKEN);
    let edited = Instant::now();
    lab.apply(file, text)?;
    wait_until(LATE, "every daemon reports the broken file", || cluster.all_have_logged(&format!("{file}:")))?;
    let took = edited.elapsed();
    for probe in [at_port, at_ingress] {
        checks::balanced(lab.client(), probe, WEB).context("beside a broken file")?;
    }
    let mut check = Command::new(programs::find(Program::Agent.file())?);
    let check = check.arg("check").arg(lab.manifests()).output().context("could not start roadstead check")?;
    let said = [check.stdout, check.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(check.status.code() == Some(1), "roadstead check ended with {}: {said}", check.status);
    let place =
        place_in(&said, file).with_context(|| format!("roadstead check does not name file and line: {said}"))?;
    lab.delete(file)?;
    Ok(Shown { answered: format!("others served, {place}"), took })
}

/// `FILE:LINE` where a text names it.
fn place_in(text: &str, file: &str) -> Option<String> {
    let after = text.split(&format!("{file}:")).nth(1)?;
    let line: String = after.chars().take_while(char::is_ascii_digit).collect();
    (!line.is_empty()).then(|| format!("{file}:{line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_in_what_check_says() {
        let cases = [
            ("manifests/broken.yaml:4: error: no end", Some("broken.yaml:4")),
            ("error: broken.yaml: unreadable", None),
            ("web.yaml:4: error", None),
        ];
        for (text, expected) in cases {
            assert_eq!(place_in(text, "broken.yaml").as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn a_change_that_is_late_is_no_change() {
        let cases = [(10, 20, Some(20)), (700, 30, Some(700)), (10, 1000, None)];
        for (one, other, expected) in cases {
            let seen = [one, other].map(|millis| Ok(Duration::from_millis(millis)));
            let took = followed("it", seen).ok().map(|shown| shown.took);
            assert_eq!(took, expected.map(Duration::from_millis), "{one} and {other}");
        }
    }
}
