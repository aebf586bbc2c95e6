//! The picture of the lab, and how to step into it.

use std::fmt::Write as _;
use std::path::Path;

use super::checks;
use super::cluster::Cluster;
use crate::node::Node;
use crate::place::Place;

/// The pod whose manifest the demo adds and removes.
const LATER: &str = "web-4";
/// The width of a node's box, without its edges.
const WIDTH: usize = 44;

/// The lab as it stands, 100 columns at most.
pub(super) fn lab(cluster: &Cluster<'_>) -> String {
    let lab = cluster.lab;
    let client = lab.client();
    let mut text = String::new();
    let edge = format!("+{}+", "-".repeat(WIDTH));
    let boxes: Vec<Vec<String>> = lab.nodes().iter().map(|node| node_lines(cluster, node)).collect();
    let beside = |lines: Vec<String>| format!("{}\n", format!("  {}", lines.join("  ")).trim_end());
    text.push_str(&format!("  client {} {}\n", client.v4(), client.v6()));
    text.push_str("    |\n");
    let width = (WIDTH + 2) * lab.nodes().len() + 2;
    text.push_str(&format!("  {:=^width$}\n", " segment 192.168.77.0/24, fd77::/64 "));
    text.push_str(&beside(lab.nodes().iter().map(|_| format!("{:<w$}", "  | eth0", w = WIDTH + 2)).collect()));
    text.push_str(&beside(lab.nodes().iter().map(|_| edge.clone()).collect()));
    let rows = boxes.iter().map(Vec::len).max().unwrap_or_default();
    for row in 0..rows {
        let cell = |lines: &Vec<String>| format!("|{:<WIDTH$}|", lines.get(row).map_or("", String::as_str));
        text.push_str(&beside(boxes.iter().map(cell).collect()));
    }
    text.push_str(&beside(lab.nodes().iter().map(|_| edge.clone()).collect()));
    text.push_str(&format!("  * {LATER} runs, but is in no manifest yet\n\n"));
    text + announced(cluster).trim_end()
}

fn node_lines(cluster: &Cluster<'_>, node: &Node) -> Vec<String> {
    let host = node.host();
    let mut lines = vec![
        format!(" {}  {}  {}", node.name(), host.v4(), host.v6()),
        " roadstead  roadstead-ingress".to_owned(),
        " roadstead-speaker".to_owned(),
        " pods on bridge cni0".to_owned(),
    ];
    let waits = |pod: &Place| if pod.name() == LATER { "*" } else { "" };
    let pod = |pod: &Place| format!("   {}  {}  {}  {}", pod.name(), pod.v4(), pod.v6(), waits(pod));
    lines.extend(cluster.pods_of(node).map(pod));
    lines
}

/// The addresses from the pool, and who announces them.
fn announced(cluster: &Cluster<'_>) -> String {
    let mut text = String::new();
    for (service, addresses) in [("shop/web", cluster.web), ("roadstead/ingress", cluster.ingress)] {
        let each = addresses.map(|address| {
            let owner = checks::owner(cluster.lab, address, std::time::Duration::from_millis(50));
            format!("{address} at {}", owner.unwrap_or_else(|_| "no node".to_owned()))
        });
        // Writing to a text cannot fail.
        let _written = writeln!(text, "  Service {service:<18} {}", each.join(", "));
    }
    text
}

/// Commands for whoever wants to look around.
pub(super) fn stepping_in(cluster: &Cluster<'_>) -> String {
    let ([web, _], [ingress, _]) = (cluster.web, cluster.ingress);
    let (shop, lab) = (super::rows::SHOP, cluster.lab);
    let program = std::env::current_exe().map_or_else(|_| "roadstead-lab".to_owned(), |path| near(&path));
    let enter = format!("{program} enter");
    let lines = [
        ("as the client", format!("{enter} client curl http://{web}/")),
        ("", format!("{enter} client curl --cacert {} \\", near(&cluster.ca))),
        ("", format!("    --resolve {shop}:443:{ingress} https://{shop}/api")),
        ("in a pod", format!("{enter} web-1 curl http://10.96.0.10/")),
        ("on a node", format!("{enter} node-a ip neigh")),
        ("a shell", format!("{enter} node-b")),
        ("edit the YAML", near(lab.manifests())),
        ("read the logs", near(lab.folder())),
    ];
    let lines: Vec<String> = lines.iter().map(|(what, how)| format!("  {what:15}{how}")).collect();
    format!(
        "The lab stays until Ctrl-C. To step in, from another terminal in the same folder, as root:\n\n{}\n\n\
         \"ip netns exec {}.client ...\" enters the network as well, but not the\ncontrol group that a node's socket \
         programs look at; \"enter\" does both.",
        lines.join("\n"),
        lab.id(),
    )
}

/// A path as one types it from the current folder.
fn near(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).display().to_string()
}
