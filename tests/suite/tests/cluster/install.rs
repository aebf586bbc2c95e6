//! Our daemons on the cluster, by the installer's own manifests: the lab's kubelets run the pods of the DaemonSets as
//! processes with exactly the rights that these ask for.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use roadstead_lab::{Program, container, program};

use super::fixture::{Cluster, text};

/// The namespace of everything that the installer brings.
pub(crate) const SYSTEM: &str = "roadstead-system";

/// What the DaemonSets are called after `roadstead-`.
const DAEMONS: [&str; 3] = ["agent", "ingress", "speaker"];

/// The ConfigMap of the proxy's options, in the same namespace.
pub(crate) const OPTIONS: &str = "ingress-options";

/// The checkout's installer.
pub(crate) fn deploy() -> PathBuf {
    roadstead_suite::top().join("deploy")
}

/// The programs of the image: those of this build, with the capabilities that the Dockerfile gives their files.
pub(crate) fn image(folder: &Path) -> PathBuf {
    let image = folder.join("image");
    fs::create_dir_all(&image).unwrap();
    let recipe = fs::read_to_string(deploy().join("Dockerfile")).unwrap();
    for file in Program::ALL.map(Program::file) {
        let copy = image.join(file);
        fs::copy(program(file).unwrap(), &copy).unwrap();
        let capabilities = file_capabilities(&recipe, file);
        let names: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        if !names.is_empty() {
            container::grant(&copy, &names).unwrap();
        }
    }
    image
}

/// What `setcap cap_a,cap_b=ep .../PROGRAM` of the Dockerfile gives a program.
fn file_capabilities(recipe: &str, file: &str) -> Vec<String> {
    let words: Vec<&str> = recipe.split_whitespace().collect();
    let given = words.windows(3).filter(|three| three[0] == "setcap" && three[2].rsplit('/').next() == Some(file));
    let lists = given.filter_map(|three| three[1].strip_suffix("=ep").or_else(|| three[1].strip_suffix("+ep")));
    lists.flat_map(|list| list.split(',').map(str::to_owned)).collect()
}

impl Cluster {
    /// `kubectl apply -k deploy/`, first as a dry run of the server, and what must be there before. Waits until all
    /// daemons are ready on all nodes.
    pub(crate) fn install(&self) {
        self.prepare(&[]);
        self.apply("crds");
        self.apply_installer();
    }

    /// What the installer's guide has an administrator make first, with these variables more in the ConfigMap.
    pub(crate) fn prepare(&self, more: &[(&str, &str)]) {
        self.control.apply(&before(self.control.address(), more)).unwrap();
    }

    /// `kubectl apply -k deploy/`, and waits.
    pub(crate) fn apply_installer(&self) {
        self.apply("");
        self.wait("all daemons are ready", || {
            DAEMONS.iter().all(|daemon| self.of_set(SYSTEM, &format!("roadstead-{daemon}")) == (2, 2))
        });
    }

    /// A folder of the installer, first as a dry run of the server.
    fn apply(&self, folder: &str) {
        let folder = deploy().join(folder).display().to_string();
        for more in ["--dry-run=server", "--dry-run=none"] {
            self.control.kubectl(&["apply", "--server-side", more, "-k", &folder]).unwrap();
        }
    }

    /// The logs of our daemons, for a human's eye.
    pub(crate) fn daemon_logs(&self) -> String {
        let pods = self.list(&format!("/api/v1/namespaces/{SYSTEM}/pods"));
        let logs = pods.iter().map(|pod| {
            let (node, part) =
                (text(pod, "/spec/nodeName"), text(pod, "/metadata/labels/app.kubernetes.io~1component"));
            let file = self.lab.folder().join(format!("{node}-{part}-container.log"));
            let log = fs::read_to_string(&file).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n");
            format!("{}:\n{tail}\n", file.display())
        });
        logs.collect()
    }
}

/// What the installer's guide has an administrator make first: the namespace, the speakers' key, and where the API server
/// is while no agent serves its Service. The lab's nodes have more devices than they tell by their routes.
fn before(api: SocketAddr, more: &[(&str, &str)]) -> String {
    let more: String = more.iter().map(|(name, value)| format!("  {name}: '{value}'\n")).collect();
    let (host, port) = (api.ip(), api.port());
    format!(
        "
apiVersion: v1
kind: Namespace
metadata: {{name: {SYSTEM}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: roadstead-speaker-key, namespace: {SYSTEM}}}
stringData: {{key: {KEY}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: roadstead, namespace: {SYSTEM}}}
data:
  KUBERNETES_SERVICE_HOST: '{host}'
  KUBERNETES_SERVICE_PORT: '{port}'
  ROADSTEAD_DEVICE: eth0
  ROADSTEAD_INTERFACE: eth0
  ROADSTEAD_INGRESS_CONFIGMAP: {SYSTEM}/{OPTIONS}
{more}"
    )
}

/// Any key does.
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

#[test]
fn capabilities_of_files_are_read() {
    let recipe = "RUN setcap cap_net_raw=ep /out/roadstead-speaker && setcap cap_a,cap_b+ep /x/roadstead\n";
    let cases: [(&str, &[&str]); 3] =
        [("roadstead-speaker", &["cap_net_raw"]), ("roadstead", &["cap_a", "cap_b"]), ("roadstead-ingress", &[])];
    for (file, expected) in cases {
        assert_eq!(file_capabilities(recipe, file), expected, "{file}");
    }
}
