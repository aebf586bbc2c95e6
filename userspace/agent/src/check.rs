//! `roadstead check PATH...`: reads manifests as the daemons do and prints what is wrong with them, each object by itself and
//! Ingresses with each other: the proxy's own routes are made of them.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use ipnet::IpNet;
use roadstead_model::{ObjectName, Problem, Severity, Snapshot};
use roadstead_routes::{ClassChoice, Controller, compile, endpoints_of, unserved};
use roadstead_sources::{LoadOptions, Loaded, NodePortRange};

/// What validation depends on besides the manifests.
#[derive(Args, Debug)]
pub(crate) struct CheckFlags {
    /// Range of cluster addresses, one a family (repeatable)
    #[arg(
        long = "service-cidr",
        value_name = "CIDR",
        env = "ROADSTEAD_SERVICE_CIDR",
        value_delimiter = ',',
        default_values_t = LoadOptions::default().service_cidrs
    )]
    service_cidrs: Vec<IpNet>,
    /// Range that node ports are taken from
    #[arg(long, value_name = "FIRST-LAST", env = "ROADSTEAD_NODE_PORT_RANGE", default_value_t)]
    node_port_range: NodePortRange,
    /// Ingresses of this class are roadstead-ingress's and no others (repeatable; default: classes of controller
    /// roadstead.dev/ingress)
    #[arg(long = "ingress-class", value_name = "NAME", env = "ROADSTEAD_INGRESS_CLASS", value_delimiter = ',')]
    ingress_classes: Vec<String>,
    /// ConfigMap with roadstead-ingress's options (default: ingress-nginx/ingress-nginx-controller with class nginx)
    #[arg(long = "configmap", value_name = "NAMESPACE/NAME", env = "ROADSTEAD_INGRESS_CONFIGMAP", value_parser = object_name)]
    config_map: Option<ObjectName>,
}

fn object_name(text: &str) -> Result<ObjectName, &'static str> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(ObjectName::new(namespace, name))
        }
        _ => Err("expected namespace/name"),
    }
}

/// Prints every problem and a summary; exit code 1 on errors, 0 with warnings only.
pub(crate) fn run(paths: &[PathBuf], flags: &CheckFlags) -> anyhow::Result<ExitCode> {
    let options = LoadOptions {
        service_cidrs: flags.service_cidrs.clone(),
        node_port_range: flags.node_port_range,
        // Status is no part of the manifests.
        state_dir: None,
        ..LoadOptions::default()
    };
    let controller = Controller {
        classes: ClassChoice { names: flags.ingress_classes.clone() },
        config_map: flags.config_map.clone(),
        ..Controller::default()
    };
    let loaded = Loaded::read(paths, &options);
    report(&loaded, &controller, &mut io::stdout().lock()).context("cannot print")
}

/// All that is wrong, in order of files and lines.
fn problems(loaded: &Loaded, controller: &Controller) -> Vec<Problem> {
    let snapshot = loaded.snapshot();
    let compiled = compile(snapshot, controller);
    let mut problems = compiled.problems;
    let backends = compiled.table.backends().iter().enumerate();
    let errors = backends.filter_map(|(index, backend)| Some((index, endpoints_of(snapshot, backend, None).err()?)));
    problems.extend(unserved(&compiled.table, &errors.collect()));
    let placed = problems.into_iter().map(|problem| loaded.placed(problem));
    let mut problems: Vec<_> = snapshot.problems.iter().cloned().chain(placed).collect();
    problems.sort_by(|one, other| one.place.cmp(&other.place));
    problems
}

fn report(loaded: &Loaded, controller: &Controller, out: &mut impl Write) -> io::Result<ExitCode> {
    let (snapshot, problems) = (loaded.snapshot(), problems(loaded, controller));
    for problem in &problems {
        writeln!(out, "{problem}")?;
    }
    summary(snapshot, &problems, out)
}

fn summary(snapshot: &Snapshot, problems: &[Problem], out: &mut impl Write) -> io::Result<ExitCode> {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let slices = snapshot.slices.values().map(Vec::len).sum();
    let parts = [
        plural(snapshot.services.len(), "Service"),
        plural(slices, "endpoint slice"),
        plural(snapshot.ingresses.len(), "Ingress"),
        plural(snapshot.nodes.len(), "Node"),
        plural(snapshot.pools.len(), "address pool"),
    ];
    writeln!(out, "{}: {}, {}", parts.join(", "), plural(errors, "error"), plural(warnings, "warning"))?;
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn plural(count: usize, word: &str) -> String {
    let ending = match word {
        _ if count == 1 => "",
        word if word.ends_with('s') => "es",
        _ => "s",
    };
    format!("{count} {word}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(yaml: &str, expected: &[&str], code: ExitCode) {
        check_as(&Controller::default(), yaml, expected, code);
    }

    fn check_as(controller: &Controller, yaml: &str, expected: &[&str], code: ExitCode) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.yaml"), yaml).unwrap();
        let loaded = Loaded::read(&[folder.path().to_owned()], &LoadOptions::default());
        let mut out = Vec::new();
        let found = report(&loaded, controller, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap().replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert_eq!(format!("{found:?}"), format!("{code:?}"));
    }

    #[test]
    fn problems_and_a_summary() {
        let head = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n";
        check(
            &format!("{head}  - port: 80\n"),
            &["1 Service, 0 endpoint slices, 0 Ingresses, 0 Nodes, 0 address pools: 0 errors, 0 warnings"],
            ExitCode::SUCCESS,
        );
        check(
            &format!("{head}  - port: 80\n    protocol: SCTP\n"),
            &[
                "a.yaml:7: warning: Service default/web: spec.ports[0].protocol: SCTP is not balanced yet",
                "1 Service, 0 endpoint slices, 0 Ingresses, 0 Nodes, 0 address pools: 0 errors, 1 warning",
            ],
            ExitCode::SUCCESS,
        );
        check(
            &format!("{head}  - protocol: TCP\n    port: 0\n"),
            &[
                "a.yaml:7: error: Service default/web: spec.ports[0].port: 0 is no port, expected 1 to 65535",
                "0 Services, 0 endpoint slices, 0 Ingresses, 0 Nodes, 0 address pools: 1 error, 0 warnings",
            ],
            ExitCode::FAILURE,
        );
    }

    const INGRESSES: &str = r#"apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: a-young, creationTimestamp: "2026-02-02T00:00:00Z"}
spec:
  rules:
  - host: a.example
    http:
      paths:
      - {path: /x, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}
      - {path: /y, pathType: Prefix, backend: {service: {name: gone, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: z-old
  creationTimestamp: "2026-01-01T00:00:00Z"
  annotations:
    nginx.ingress.kubernetes.io/enable-modsecurity: "true"
spec:
  rules:
  - host: a.example
    http: {paths: [{path: /x, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
"#;

    #[test]
    fn ingresses_are_checked_as_they_are_served() {
        let summary = "1 Service, 0 endpoint slices, 2 Ingresses, 0 Nodes, 0 address pools: 0 errors";
        check(
            INGRESSES,
            &[
                "a.yaml:6: warning: Ingress default/a-young: service default/gone does not exist; requests get 503",
                "a.yaml:14: warning: Ingress default/a-young: spec.rules[0].http.paths[0]: Prefix path \"/x\" of host a.example \
                 is already served by Ingress default/z-old",
                "a.yaml:23: warning: Ingress default/z-old: \
                 metadata.annotations[nginx.ingress.kubernetes.io/enable-modsecurity]: is not honoured by this version",
                &format!("{summary}, 3 warnings"),
            ],
            ExitCode::SUCCESS,
        );
        let other = Controller { classes: ClassChoice { names: vec!["other".to_owned()] }, ..Controller::default() };
        let unclassed = "spec.ingressClassName: is not set and no IngressClass is the default one: not served";
        check_as(
            &other,
            INGRESSES,
            &[
                &format!("a.yaml:10: warning: Ingress default/a-young: {unclassed}"),
                &format!("a.yaml:25: warning: Ingress default/z-old: {unclassed}"),
                &format!("{summary}, 2 warnings"),
            ],
            ExitCode::SUCCESS,
        );
    }
}
