//! The objects that `kubectl apply -k deploy/` applies: what each daemon may do on its node and in the cluster.

use std::process::Command;

use roadstead_lab::program;
use serde_json::{Value, json};

use super::render::{find, id, kustomize, strings};

/// A daemon as it is to run in a cluster.
struct Expected {
    name: &'static str,
    program: &'static str,
    user: u32,
    capabilities: &'static [&'static str],
    port: u16,
    /// Variables that are no flags.
    reads: &'static [&'static str],
}

/// What every client of the API server in a pod reads.
const OF_THE_CLUSTER: [&str; 2] = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];

const DAEMONS: [Expected; 3] = [
    Expected {
        name: "agent",
        program: "roadstead",
        user: 0,
        capabilities: &["BPF", "NET_ADMIN", "PERFMON"],
        port: 9471,
        reads: &[],
    },
    Expected {
        name: "ingress",
        program: "roadstead-ingress",
        user: 65532,
        capabilities: &["NET_BIND_SERVICE"],
        port: 9472,
        reads: &["POD_NAMESPACE", "POD_NAME"],
    },
    Expected {
        name: "speaker",
        program: "roadstead-speaker",
        user: 65532,
        capabilities: &["NET_RAW"],
        port: 9473,
        reads: &[],
    },
];

#[test]
fn each_daemon_has_the_rights_that_it_needs_and_no_others() {
    let Some(objects) = kustomize("deploy") else { return };
    for expected in DAEMONS {
        let set = find(&objects, "DaemonSet", &format!("roadstead-{}", expected.name));
        let pod = &set["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().unwrap();
        assert_eq!((containers.len(), pod.get("initContainers")), (1, None), "{}", expected.name);
        let container = &containers[0];
        let context = &container["securityContext"];
        assert_eq!(
            context["capabilities"],
            json!({"drop": ["ALL"], "add": expected.capabilities}),
            "{}",
            expected.name
        );
        assert_eq!(context["runAsUser"], expected.user, "{}", expected.name);
        assert_eq!(context["runAsNonRoot"] == true, expected.user != 0, "{}", expected.name);
        assert_eq!(context["readOnlyRootFilesystem"], true, "{}", expected.name);
        assert_eq!(context["allowPrivilegeEscalation"], false, "{}", expected.name);
        assert_eq!(context.get("privileged"), None, "{}", expected.name);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{}", expected.name);
        assert!([&pod["hostPID"], &pod["hostIPC"]].iter().all(|host| host.is_null()), "{}", expected.name);
        let writable: Vec<&str> = host_paths(pod, container, false);
        // Of what is pinned there, the speaker's group may write its own maps.
        let pins: &[&str] = match expected.name {
            "agent" => &["/sys/fs/bpf"],
            "speaker" => &["/sys/fs/bpf/roadstead"],
            _ => &[],
        };
        assert_eq!(writable, pins, "{}: folders of the host that it may write to", expected.name);
    }
}

/// Folders of the host that the container has, for reading alone or not.
fn host_paths<'a>(pod: &'a Value, container: &'a Value, read_only: bool) -> Vec<&'a str> {
    let volumes = pod["volumes"].as_array().unwrap().iter();
    let of_host = volumes.filter_map(|volume| Some((volume["name"].as_str()?, volume["hostPath"]["path"].as_str()?)));
    let mounts = container["volumeMounts"].as_array().unwrap();
    let wanted =
        |name: &str| mounts.iter().any(|mount| mount["name"] == name && (mount["readOnly"] == true) == read_only);
    of_host.filter(|(name, _)| wanted(name)).map(|(_, path)| path).collect()
}

#[test]
fn pods_are_probed_scraped_and_replaced_one_node_at_a_time() {
    let Some(objects) = kustomize("deploy") else { return };
    for expected in DAEMONS {
        let set = find(&objects, "DaemonSet", &format!("roadstead-{}", expected.name));
        assert_eq!(
            set["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}})
        );
        let template = &set["spec"]["template"];
        assert_eq!(set["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
        let pod = &template["spec"];
        assert_eq!((&pod["hostNetwork"], &pod["priorityClassName"]), (&json!(true), &json!("system-node-critical")));
        let container = &pod["containers"][0];
        for (probe, path) in [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            assert_eq!(container[probe]["httpGet"], json!({"path": path, "port": "metrics"}), "{}", expected.name);
        }
        let port = &container["ports"].as_array().unwrap().iter().find(|port| port["name"] == "metrics").unwrap()["containerPort"];
        assert_eq!(*port, expected.port);
        assert_eq!(template["metadata"]["annotations"]["prometheus.io/port"], port.to_string());
        assert!(strings(&container["args"]).contains(&format!("--metrics-addr=[::]:{port}").as_str()));
        assert!(container["resources"]["requests"]["memory"].is_string(), "{}", expected.name);
        assert!(container["resources"].get("limits").is_none(), "{}", expected.name);
        let everywhere = json!([{"operator": "Exists"}]);
        assert_eq!(pod["tolerations"] == everywhere, expected.name != "ingress", "{}", expected.name);
    }
}

/// The proxy sleeps, then drains for 20 s; the kubelet must not end it before.
#[test]
fn a_proxy_has_the_time_to_drain() {
    let Some(objects) = kustomize("deploy") else { return };
    let pod = &find(&objects, "DaemonSet", "roadstead-ingress")["spec"]["template"]["spec"];
    let sleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().unwrap();
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() >= sleep + 20 + 5, "{pod}");
}

#[test]
fn every_flag_in_the_manifests_is_one_of_the_program() {
    let Some(objects) = kustomize("deploy") else { return };
    assert_flags_known(&objects);
}

/// Flags and variables of the daemons' pods are what their programs know.
#[track_caller]
pub(super) fn assert_flags_known(objects: &[Value]) {
    for expected in DAEMONS {
        let container = &find(objects, "DaemonSet", &format!("roadstead-{}", expected.name))["spec"]["template"]["spec"]
            ["containers"][0];
        assert_eq!(strings(&container["command"]), [&format!("/{}", expected.program), "run"]);
        let help = Command::new(program(expected.program).unwrap()).args(["run", "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let flags = strings(&container["args"]);
        assert!(!flags.is_empty(), "{}", expected.name);
        for flag in flags {
            let name = flag.split('=').next().unwrap();
            assert!(help.contains(&format!("{name} <")), "{}: {flag} is not in\n{help}", expected.program);
        }
        let variables = container["env"].as_array().unwrap().iter().filter_map(|variable| variable["name"].as_str());
        for variable in variables {
            let known = help.contains(&format!("[env: {variable}=")) || expected.reads.contains(&variable);
            assert!(known || OF_THE_CLUSTER.contains(&variable), "{}: {variable} is not in\n{help}", expected.program);
        }
    }
}

/// What a verb of writing may be used on.
const WRITTEN: [&str; 6] =
    ["events", "leases", "ingresses/status", "services/status", "ipaddresspools/status", "servicel2statuses"];

#[test]
fn roles_name_what_they_allow() {
    let Some(objects) = kustomize("deploy") else { return };
    let roles: Vec<&Value> =
        objects.iter().filter(|object| ["Role", "ClusterRole"].contains(&id(object).0.as_str())).collect();
    assert_eq!(roles.len(), 5);
    for role in roles {
        let (_, name) = id(role);
        for rule in role["rules"].as_array().unwrap() {
            let [groups, resources, verbs] = ["apiGroups", "resources", "verbs"].map(|field| strings(&rule[field]));
            assert!([&groups, &resources, &verbs].iter().all(|list| !list.contains(&"*")), "{name}: {rule}");
            assert!(!resources.contains(&"secrets") || name == "roadstead-ingress", "{name} reads Secrets");
            let writes = verbs.iter().any(|verb| !["get", "list", "watch"].contains(verb));
            let written = |resource: &&str| WRITTEN.iter().any(|known| resource.starts_with(known));
            assert!(!writes || resources.iter().all(written), "{name} writes {resources:?}");
            assert!(!writes || name != "roadstead-agent", "{name} writes {resources:?}");
        }
    }
}

#[test]
fn each_daemon_is_bound_to_its_own_roles() {
    let Some(objects) = kustomize("deploy") else { return };
    for expected in DAEMONS {
        let name = format!("roadstead-{}", expected.name);
        find(&objects, "ServiceAccount", &name);
        let set = find(&objects, "DaemonSet", &name);
        assert_eq!(set["spec"]["template"]["spec"]["serviceAccountName"], *name);
        let kinds: &[(&str, &str)] = match expected.name {
            "agent" => &[("ClusterRoleBinding", "ClusterRole")],
            _ => &[("ClusterRoleBinding", "ClusterRole"), ("RoleBinding", "Role")],
        };
        for (binding, role) in kinds {
            let binding = find(&objects, binding, &name);
            assert_eq!(
                binding["roleRef"],
                json!({"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name})
            );
            let subject = json!([{"kind": "ServiceAccount", "name": name, "namespace": "roadstead-system"}]);
            assert_eq!(binding["subjects"], subject);
            find(&objects, role, &name);
        }
    }
    let bindings = objects.iter().filter(|object| id(object).0.ends_with("Binding")).count();
    assert_eq!(bindings, 5, "a binding more");
}

#[test]
fn the_class_is_the_default_one_and_the_namespace_admits_the_pods() {
    let Some(objects) = kustomize("deploy") else { return };
    let class = find(&objects, "IngressClass", "roadstead");
    assert_eq!(class["spec"]["controller"], "roadstead.dev/ingress");
    assert_eq!(class["metadata"]["annotations"]["ingressclass.kubernetes.io/is-default-class"], "true");
    let namespace = find(&objects, "Namespace", "roadstead-system");
    assert_eq!(namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"], "privileged");
    let service = find(&objects, "Service", "roadstead-ingress");
    let labels = &find(&objects, "DaemonSet", "roadstead-ingress")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(service["spec"]["selector"], *labels);
}

#[test]
fn the_definitions_are_structural_and_checked_by_rules() {
    let Some(objects) = kustomize("deploy/crds") else { return };
    let names: Vec<String> = objects.iter().map(|object| id(object).1).collect();
    assert_eq!(names, ["ipaddresspools.metallb.io", "l2advertisements.metallb.io", "servicel2statuses.metallb.io"]);
    for definition in &objects {
        let version = &definition["spec"]["versions"][0];
        assert_eq!((&version["name"], &version["subresources"]), (&json!("v1beta1"), &json!({"status": {}})));
        let rules = version.to_string().matches("x-kubernetes-validations").count();
        assert!(rules >= 3 || id(definition).1.starts_with("servicel2statuses"), "{}: {rules} rules", id(definition).1);
    }
}
