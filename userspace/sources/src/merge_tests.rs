//! Updates one by one come to what one reading of everything comes to, and leave alone what they do not concern.

use std::path::Path;

use super::*;
use crate::parse::{parse_document, plan};

/// xorshift64*: the same changes in every run, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % bound
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// An object of a kind that bears on others. Each name belongs to one file: which of two files holds a name is decided by
/// history, and tested with the store.
fn object(file: usize, random: &mut Random) -> String {
    let number = file * 3 + random.below(3);
    let service = random.below(12);
    match random.below(9) {
        0..=2 => {
            let kind = random.pick(&["type: ClusterIP", "type: NodePort", "type: LoadBalancer", "clusterIP: None"]);
            let more = random.pick(&[
                "",
                ", trafficDistribution: PreferSameZone",
                ", trafficDistribution: PreferSameNode",
                ", publishNotReadyAddresses: true",
                ", ipFamilyPolicy: PreferDualStack",
            ]);
            let app = random.pick(&["", "selector: {app: a}, ", "selector: {app: b}, "]);
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{number}}}\nspec: {{{app}{kind}, ports: [{{port: 80}}]{more}}}\n"
            )
        }
        3 | 4 => {
            let more =
                random.pick(&["", ", conditions: {ready: false}", ", zone: z9", ", hints: {forZones: [{name: z1}]}"]);
            format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: e{number}, labels: \
                 {{kubernetes.io/service-name: s{service}}}}}\naddressType: IPv4\nports: [{{port: 80}}]\nendpoints: \
                 [{{addresses: [10.0.0.{number}], nodeName: n{}{more}}}]\n",
                random.below(4)
            )
        }
        5 => format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: s{number}}}\nsubsets: [{{addresses: [{{ip: 10.1.0.{service}}}], \
             ports: [{{port: 80}}]}}]\n"
        ),
        6 => format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}, labels: {{app: {}}}}}\nspec: {{nodeName: \
             n{}}}\nstatus: {{podIP: 10.2.0.{number}}}\n",
            random.pick(&["a", "b"]),
            random.below(4)
        ),
        7 => format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: n{file}{}}}\n",
            random.pick(&[
                "",
                ", labels: {topology.kubernetes.io/zone: z1}",
                ", labels: {topology.kubernetes.io/zone: z2}"
            ])
        ),
        _ => format!(
            "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: i{number}}}\nspec: {{defaultBackend: \
             {{service: {{name: s{service}, port: {{number: 80}}}}}}}}\n"
        ),
    }
}

fn statuses(random: &mut Random) -> Statuses {
    let mut text = String::new();
    for _ in 0..random.below(6) {
        let (number, ip) = (random.below(12), random.below(200));
        let head = random.pick(&["apiVersion: v1\nkind: Service", "apiVersion: networking.k8s.io/v1\nkind: Ingress"]);
        let name = if head.ends_with("Service") { "s" } else { "i" };
        text.push_str(&format!(
            "---\n{head}\nmetadata: {{namespace: default, name: {name}{number}}}\nstatus: {{loadBalancer: {{ingress: [{{ip: \
             192.0.2.{ip}}}]}}}}\n"
        ));
    }
    Statuses::read(Path::new("status.yaml"), text.as_bytes()).unwrap()
}

fn parsed(file: &FileId, text: &str, last: Option<&ParsedFile>) -> Arc<ParsedFile> {
    let plan = plan(&file.file, text.as_bytes(), last);
    let parsed: Vec<_> = plan.fresh().map(parse_document).collect();
    Arc::new(plan.finish(&mut parsed.into_iter()))
}

/// What is equal in both snapshots must be the same object.
fn assert_shared<K: Ord + std::fmt::Debug, T: PartialEq>(before: &BTreeMap<K, Arc<T>>, after: &BTreeMap<K, Arc<T>>) {
    for (name, old) in before {
        let new = after.get(name).filter(|new| *new == old);
        assert!(new.is_none_or(|new| Arc::ptr_eq(old, new)), "{name:?} is another object, though equal");
    }
}

fn assert_slices_shared(before: &Snapshot, after: &Snapshot) {
    for (name, old) in &before.slices {
        for slice in old {
            let new = after.slices_of(name).iter().find(|new| *new == slice);
            assert!(new.is_none_or(|new| Arc::ptr_eq(slice, new)), "a slice of {name} is another object, though equal");
        }
    }
}

fn same_objects(one: &Snapshot, other: &Snapshot) -> bool {
    one.services == other.services
        && one.slices == other.slices
        && one.nodes == other.nodes
        && one.ingresses == other.ingresses
}

#[test]
fn updates_come_to_what_one_reading_comes_to() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let options = LoadOptions::default();
    let files: Vec<_> =
        (0..4).map(|number| FileId { path: 0, file: Arc::from(Path::new(&format!("f{number}.yaml"))) }).collect();
    let (mut merge, mut last) = (Merge::default(), Snapshot::default());
    let mut held: Vec<Option<(String, Arc<ParsedFile>)>> = vec![None; files.len()];
    let (mut status, mut nontrivial) = (Statuses::default(), 0);
    for step in 0..2000 {
        let mut changes = Vec::new();
        for _ in 0..1 + random.below(2) {
            let number = random.below(files.len());
            let (file, old) = (files[number].clone(), held[number].take());
            if changes.iter().any(|change: &Change| change.file.is(&file)) {
                held[number] = old;
                continue;
            }
            // Half of the changes keep most of the file, so that documents are reused and move.
            let mut documents: Vec<String> = match &old {
                Some((text, _)) if random.below(16) > 0 => text.split("---\n").map(str::to_owned).collect(),
                _ => Vec::new(),
            };
            if !documents.is_empty() && random.below(5) < 2 {
                documents.remove(random.below(documents.len()));
            }
            let at = random.below(documents.len() + 1);
            documents.insert(at, object(number, &mut random));
            let text = documents.join("---\n");
            let old = old.map(|(_, parsed)| parsed);
            let new = (random.below(20) > 0).then(|| parsed(&file, &text, old.as_deref()));
            held[number] = new.clone().map(|parsed| (text, parsed));
            changes.push(Change { file, old, new });
        }
        let another = (random.below(5) == 0).then(|| statuses(&mut random));
        status = another.clone().unwrap_or(status);
        let (next, changed) = merge.update(&changes, another, &options, &last);

        let texts = files.iter().zip(&held).filter_map(|(file, held)| Some((file, &held.as_ref()?.0)));
        let read = |(file, text): (&FileId, &String)| Change {
            file: file.clone(),
            old: None,
            new: Some(parsed(file, text, None)),
        };
        let all: Vec<_> = texts.map(read).collect();
        let (whole, _) = Merge::default().update(&all, Some(status.clone()), &options, &Snapshot::default());
        assert!(same_objects(&next, &whole), "step {step}:\n{next:#?}\n{whole:#?}");
        let sorted = |snapshot: &Snapshot| {
            let mut problems: Vec<_> = snapshot.problems.iter().map(ToString::to_string).collect();
            problems.sort();
            problems
        };
        assert_eq!(sorted(&next), sorted(&whole), "step {step}");
        assert_eq!(changed, !same_objects(&last, &next), "step {step}");
        assert_shared(&last.services, &next.services);
        assert_shared(&last.nodes, &next.nodes);
        assert_shared(&last.ingresses, &next.ingresses);
        assert_slices_shared(&last, &next);
        nontrivial += usize::from(next.services.len() > 3 && next.slices.len() > 3);
        last = next;
    }
    assert!(nontrivial > 500, "{nontrivial} snapshots held enough to mean something");
}
