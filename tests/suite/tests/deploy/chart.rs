//! The chart renders what `deploy/` holds, and what its values change of it.

use roadstead_suite::top;
use serde_json::{Value, json};

use super::objects::assert_flags_known;
use super::render::{chart, find, id, kustomize, strings};

#[test]
fn the_chart_renders_the_same_objects() {
    let Some(rendered) = chart(&["--set", "namespace.create=true"]) else { return };
    let Some(plain) = kustomize("deploy") else { return };
    assert_flags_known(&rendered);
    assert_eq!(rendered.iter().map(id).collect::<Vec<_>>(), plain.iter().map(id).collect::<Vec<_>>());
    for (rendered, plain) in rendered.iter().zip(&plain) {
        assert_eq!(rendered, plain, "{:?}", id(plain));
    }
}

#[test]
fn the_chart_brings_the_same_definitions() {
    let Some(with) = chart(&["--include-crds"]) else { return };
    let Some(plain) = kustomize("deploy/crds") else { return };
    let definitions: Vec<&Value> = with.iter().filter(|object| id(object).0 == "CustomResourceDefinition").collect();
    assert_eq!(definitions, plain.iter().collect::<Vec<_>>());
}

fn pod<'a>(objects: &'a [Value], daemon: &str) -> &'a Value {
    &find(objects, "DaemonSet", &format!("roadstead-{daemon}"))["spec"]["template"]["spec"]
}

fn args<'a>(objects: &'a [Value], daemon: &str) -> Vec<&'a str> {
    strings(&pod(objects, daemon)["containers"][0]["args"])
}

#[test]
fn values_become_flags() {
    let values = "agent.devices={eth0,eth1},agent.podCIDRs={10.244.0.0/16},agent.nodePortAddresses={192.0.2.0/24},\
        agent.masquerade=kube-proxy,agent.extraArgs={--socket-lb=off},ingress.classes={roadstead,nginx},\
        ingress.configMap=ingress-nginx/ingress-nginx-controller,ingress.httpPort=8080,ingress.publishAddresses={192.0.2.9},\
        speaker.interfaces={eth0},speaker.election=sticky,speaker.partition=strict,apiServer.host=192.0.2.1,\
        apiServer.port=6443,image.repository=registry.example/roadstead,image.tag=1.2.3,speaker.key.value=00ff";
    let Some(objects) = chart(&["--set", values]) else { return };
    assert_flags_known(&objects);
    let expected = [
        (
            "agent",
            &[
                "--device=eth0",
                "--device=eth1",
                "--pod-cidr=10.244.0.0/16",
                "--nodeport-addresses=192.0.2.0/24",
                "--masquerade=kube-proxy",
                "--socket-lb=off",
            ] as &[_],
        ),
        (
            "ingress",
            &[
                "--publish-address=192.0.2.9",
                "--http=[::]:8080",
                "--ingress-class=roadstead",
                "--ingress-class=nginx",
                "--configmap=ingress-nginx/ingress-nginx-controller",
            ],
        ),
        ("speaker", &["--interface=eth0", "--election=sticky", "--partition=strict"]),
    ];
    for (daemon, flags) in expected {
        let args = args(&objects, daemon);
        assert!(args.ends_with(flags), "{daemon}: {args:?}");
        let container = &pod(&objects, daemon)["containers"][0];
        assert_eq!(container["image"], "registry.example/roadstead:1.2.3");
        let env = container["env"].as_array().unwrap();
        for (name, value) in [("KUBERNETES_SERVICE_HOST", "192.0.2.1"), ("KUBERNETES_SERVICE_PORT", "6443")] {
            assert!(env.contains(&json!({"name": name, "value": value})), "{daemon}: {env:?}");
        }
    }
    assert_eq!(find(&objects, "Secret", "roadstead-speaker-key")["stringData"]["key"], "00ff");
}

#[test]
fn what_is_switched_off_is_not_there() {
    let off = "agent.enabled=false,speaker.enabled=false,ingress.class.create=false,ingress.service.enabled=false";
    let Some(objects) = chart(&["--set", off]) else { return };
    let kinds: Vec<String> = objects.iter().map(|object| id(object).0).collect();
    assert_eq!(kinds, ["ClusterRole", "ClusterRoleBinding", "DaemonSet", "Role", "RoleBinding", "ServiceAccount"]);
    assert_eq!(args(&objects, "ingress"), ["--metrics-addr=[::]:9472"]);
}

#[test]
fn pools_are_announced() {
    let pools = "pools[0].name=segment,pools[0].addresses={192.0.2.200-192.0.2.209},pools[0].avoidBuggyIPs=true";
    let Some(objects) = chart(&["--set", pools]) else { return };
    let pool = find(&objects, "IPAddressPool", "segment");
    assert_eq!(pool["spec"], json!({"addresses": ["192.0.2.200-192.0.2.209"], "avoidBuggyIPs": true}));
    assert_eq!(find(&objects, "L2Advertisement", "segment")["spec"], json!({"ipAddressPools": ["segment"]}));
}

/// The kernel shows a device's programs to CAP_SYS_ADMIN alone, and the API server takes no such pod that forbids itself more.
#[test]
fn a_speaker_that_answers_by_programs_gets_the_rights_for_it() {
    let Some(objects) = chart(&["--set", "speaker.responder=auto"]) else { return };
    let context = &pod(&objects, "speaker")["containers"][0]["securityContext"];
    assert_eq!(strings(&context["capabilities"]["add"]), ["NET_RAW", "BPF", "NET_ADMIN", "SYS_ADMIN"]);
    assert_eq!((&context["runAsUser"], context.get("allowPrivilegeEscalation")), (&json!(0), None));
    assert!(args(&objects, "speaker").ends_with(&["--bpffs=/bpf/roadstead", "--responder=auto"]));
    assert_flags_known(&objects);
}

#[test]
fn monitoring_is_the_same_by_both_ways() {
    let Some(rendered) = chart(&["--set", "monitoring.podMonitor.enabled=true,monitoring.dashboard.enabled=true"])
    else {
        return;
    };
    let Some(plain) = kustomize("deploy/monitoring") else { return };
    for object in &plain {
        let (kind, name) = id(object);
        let rendered = find(&rendered, &kind, &name);
        assert_eq!((&rendered["spec"], &rendered["data"]), (&object["spec"], &object["data"]), "{kind} {name}");
    }
    let dashboard = std::fs::read_to_string(top().join("deploy/monitoring/dashboard.json")).unwrap();
    assert_eq!(find(&plain, "ConfigMap", "roadstead-dashboard")["data"]["roadstead.json"], *dashboard);
}
