//! Each rule against a tree that is sound and against trees that are broken in one place.

use super::*;

fn package(folder: &str, dependencies: &[&str]) -> Package {
    let leaf = folder.rsplit('/').next().unwrap();
    Package {
        name: format!("roadstead-{leaf}"),
        folder: folder.to_owned(),
        rust_version: "1.95".to_owned(),
        dependencies: dependencies.iter().map(|name| dependency(name)).collect(),
        targets: vec![Target { shipped: true, root: format!("{folder}/src/lib.rs") }],
    }
}

/// A crate from elsewhere, or one of ours if the name is a folder.
fn dependency(name: &str) -> Dependency {
    let folder = name.contains('/').then(|| name.to_owned());
    let name = name.rsplit_once('/').map_or(name.to_owned(), |(_, leaf)| format!("roadstead-{leaf}"));
    Dependency { name, kind: Kind::Normal, optional: false, folder }
}

const DENY: &str = "[graph]\n\n[licenses]\nallow = [\"MIT\", \"Apache-2.0\"]\n";
const MANIFEST: &str = "[package]\nname = \"x\"\n\n[dependencies]\n# ours\nhttp.workspace = true\n";
const ROOT_MANIFEST: &str = "\
[workspace.dependencies]
roadstead-abi = { path = \"ebpf/abi\" }
# Theirs.
http = { version = \"1\", default-features = false } # request and response heads
";
const LIBRARY: &str = "//! What it holds.\n\n#![forbid(unsafe_code)]\n";

/// A small tree that every rule is content with.
fn sound() -> Tree {
    let packages = vec![
        package("ebpf/programs", &["aya-ebpf", "ebpf/abi"]),
        package("ebpf/abi", &["aya"]),
        package("ebpf/datapath", &["ebpf/abi"]),
        package("userspace/model", &["ipnet"]),
        package("userspace/sources", &["kube", "serde_yaml", "serde"]),
        package("userspace/dataplane", &["aya", "aya-obj", "libc"]),
        package("ingress/routes", &["userspace/model"]),
        package("ingress/proxy", &["pingora-pool", "ingress/routes"]),
        package("lb-speaker/allocator", &[]),
        package("lb-speaker/layer2", &[]),
        package("tests/lab", &["tokio"]),
        package("tests/suite", &["tests/lab"]),
    ];
    let mut tree = Tree { packages, ..Tree::default() };
    tree.packages[1].dependencies[0].optional = true;
    let mut architecture = "# Crates\n".to_owned();
    for package in &tree.packages {
        architecture += &format!("- `{}`\n", package.folder);
        tree.files.insert(format!("{}/Cargo.toml", package.folder), MANIFEST.to_owned());
        tree.files.insert(package.targets[0].root.clone(), LIBRARY.to_owned());
    }
    architecture += "# Invariants\n";
    for rule in RULES {
        architecture += &format!("- **{}**: why\n", rule.name);
    }
    for (path, text) in [("ARCHITECTURE.md", &*architecture), ("deny.toml", DENY), ("Cargo.toml", ROOT_MANIFEST)] {
        tree.files.insert(path.to_owned(), text.to_owned());
        tree.top_level.insert(path.to_owned());
    }
    tree.licences.insert("http v1.0.0".to_owned(), "MIT OR Apache-2.0".to_owned());
    tree
}

/// Takes a crate away, with its files.
fn remove(tree: &mut Tree, folder: &str) {
    tree.packages.retain(|package| package.folder != folder);
    tree.files.retain(|path, _| !path.starts_with(&format!("{folder}/")));
}

/// Breaks the sound tree and expects this rule, and no other, to say so.
fn check(rule: &str, expected: &str, change: impl FnOnce(&mut Tree)) {
    let mut tree = sound();
    change(&mut tree);
    let faults: Vec<(&str, String)> =
        RULES.iter().flat_map(|rule| (rule.check)(&tree).into_iter().map(|fault| (rule.name, fault))).collect();
    assert!(!faults.is_empty(), "{rule}: {expected} was not found");
    for (found, fault) in faults {
        assert!(found == rule && fault.contains(expected), "{rule}: {expected}, but {found}: {fault}");
    }
}

/// Adds a dependency to the crate in that folder.
fn name(tree: &mut Tree, folder: &str, dependency: Dependency) {
    let package = tree.packages.iter_mut().find(|package| package.folder == folder).unwrap();
    package.dependencies.push(dependency);
}

fn append(tree: &mut Tree, path: &str, text: &str) {
    tree.files.entry(path.to_owned()).or_insert_with(|| "//! New.\n".to_owned()).push_str(text);
}

#[test]
fn a_sound_tree_has_no_faults() {
    for rule in RULES {
        assert_eq!((rule.check)(&sound()), Vec::<String>::new(), "{}", rule.name);
    }
}

#[test]
fn a_stranger_is_found() {
    let cases = [
        ("aya-ebpf stays in programs", "userspace/dataplane", "aya-ebpf"),
        ("aya-ebpf stays in programs", "ebpf/datapath", "aya-log-ebpf"),
        ("aya stays in dataplane", "tests/suite", "aya"),
        ("aya stays in dataplane", "ebpf/abi", "aya"),
        ("aya stays in dataplane", "ebpf/datapath", "aya-obj"),
        ("pingora stays in proxy", "ingress/routes", "pingora-pool"),
        ("wire formats stay in sources", "ingress/proxy", "kube"),
        ("wire formats stay in sources", "tests/lab", "serde_yaml"),
        ("wire formats stay in sources", "userspace/model", "k8s-openapi"),
        ("the model has no serde", "userspace/model", "serde"),
        ("pure crates stay pure", "lb-speaker/layer2", "libc"),
        ("nothing depends on tests", "ingress/proxy", "tests/lab"),
        ("the toolchain hashes what programs compile", "ebpf/abi", "userspace/model"),
    ];
    for (rule, folder, stranger) in cases {
        let expected = stranger.rsplit('/').next().unwrap();
        check(rule, expected, |tree| name(tree, folder, dependency(stranger)));
    }
}

#[test]
fn the_kind_of_a_dependency_counts() {
    let dev = |name: &str| Dependency { kind: Kind::Dev, ..dependency(name) };
    check("nothing depends on tests", "ingress/routes depends on roadstead-lab", |tree| {
        name(tree, "ingress/routes", dev("tests/lab"));
    });
    check("wire formats stay in sources", "names serde_yaml", |tree| name(tree, "ingress/proxy", dev("serde_yaml")));
    let mut tree = sound();
    name(&mut tree, "lb-speaker/layer2", dev("libc"));
    assert!(RULES.iter().all(|rule| (rule.check)(&tree).is_empty()), "tests of a pure crate may use the system");
}

#[test]
fn impurity_is_found() {
    let rule = "pure crates stay pure";
    check(rule, "ingress/routes is compiled with tokio", |tree| {
        tree.compiled_with.entry("ingress/routes".to_owned()).or_default().insert("tokio".to_owned());
    });
    let uses = [
        ("let now = std::time::Instant::now();", "Instant::now"),
        ("use std::time::SystemTime;", "SystemTime"),
        ("let file = std::fs::read(path);", "std::fs"),
        ("use std::net::TcpStream;", "TcpStream"),
        ("pub async fn serve() {}", "async fn"),
    ];
    for (code, word) in uses {
        check(rule, word, |tree| append(tree, "lb-speaker/layer2/src/election.rs", code));
    }
    check(rule, "lb-speaker/layer2 is not in the workspace", |tree| {
        remove(tree, "lb-speaker/layer2");
    });
    let mut tree = sound();
    append(
        &mut tree,
        "lb-speaker/layer2/src/election.rs",
        "// not SystemTime\n#[cfg(test)]\nmod tests { use std::fs; }",
    );
    append(&mut tree, "userspace/sources/src/yaml.rs", "use std::fs;");
    assert!(RULES.iter().all(|rule| (rule.check)(&tree).is_empty()));
}

#[test]
fn a_derive_in_the_model_is_found() {
    check("the model has no serde", "port.rs names Serialize", |tree| {
        append(tree, "userspace/model/src/port.rs", "#[derive(Serialize)] struct Port;");
    });
}

#[test]
fn the_oldest_rust_is_one() {
    check("the toolchain hashes what programs compile", "ebpf/datapath asks for Rust 1.96", |tree| {
        tree.packages[2].rust_version = "1.96".to_owned();
    });
    check("the toolchain hashes what programs compile", "ebpf/programs is not there", |tree| {
        remove(tree, "ebpf/programs");
    });
}

#[test]
fn faults_in_files_are_found() {
    check("unsafe is forbidden", "ingress/proxy/src/lib.rs", |tree| {
        tree.files.insert("ingress/proxy/src/lib.rs".to_owned(), "//! x\n// #![forbid(unsafe_code)]\n".to_owned());
    });
    check("files say what they hold", "tests/suite/tests/new.rs", |tree| {
        tree.files.insert("tests/suite/tests/new.rs".to_owned(), "use std::fs;\n".to_owned());
    });
    for stub in
        ["todo!()", "unimplemented!()", "dbg!(1)", "#[ignore = \"slow\"]", "#[should_panic]", "#![allow(dead_code)]"]
    {
        check("no stubs", "tests/lab/src/lib.rs:4 holds", |tree| append(tree, "tests/lab/src/lib.rs", stub));
    }
    check("no stubs", "allow(", |tree| append(tree, "tests/lab/src/lib.rs", "#[cfg_attr(test, allow(dead_code))]"));
    let mut tree = sound();
    append(
        &mut tree,
        "tests/lab/src/lib.rs",
        "fn f() { print(\"todo!()\") } // todo!()\n#[expect(dead_code, reason = \"x\")]",
    );
    assert!(RULES.iter().all(|rule| (rule.check)(&tree).is_empty()));
}

#[test]
fn a_path_of_one_machine_is_found() {
    let home = ["", "home", "ann", "roadstead"].join("/");
    for line in [format!("cd {home}"), format!("\"{home}\""), format!("file://{home}")] {
        check("no path of one machine", "README.md:1 names", |tree| {
            tree.files.insert("README.md".to_owned(), line.clone());
        });
    }
    let mut tree = sound();
    tree.files.insert("README.md".to_owned(), format!("https://example.org{home} $TOP{home} ${{TOP}}{home} ..{home}"));
    assert!(RULES.iter().all(|rule| (rule.check)(&tree).is_empty()));
}

#[test]
fn faults_in_manifests_and_texts_are_found() {
    check("a folder is a crate", "ingress/proxy is called ingress", |tree| {
        tree.packages[7].name = "ingress".to_owned();
    });
    check("a folder is a crate", "tests/notes is no crate", |tree| append(tree, "tests/notes/plan.txt", "later"));
    check("a folder is a crate", "tests/cluster is a Go module and holds Rust", |tree| {
        append(tree, "tests/cluster/src/main.rs", "//! x\n");
    });
    let dependencies = "dependencies have reasons";
    let lines = [
        ("bytes = \"1\" # body chunks without copies\n", "bytes has no default-features"),
        ("bytes = { version = \"1\", default-features = false }\n", "bytes has no reason"),
        ("bytes = { version = \"1\", default-features = false } #\n", "bytes has no reason"),
    ];
    for (line, expected) in lines {
        check(dependencies, expected, |tree| append(tree, "Cargo.toml", line));
    }
    check(dependencies, "is not taken from the workspace", |tree| {
        append(tree, "ingress/proxy/Cargo.toml", "[dev-dependencies]\nbytes = \"1\"\n");
    });
    check("the top level is fixed", "notes.md", |tree| {
        tree.top_level.insert("notes.md".to_owned());
    });
    let written = "the architecture is written down";
    check(written, "does not name tests/suite", |tree| {
        let text = tree.files.get_mut("ARCHITECTURE.md").unwrap();
        *text = text.replace("`tests/suite`", "");
    });
    check(written, "does not list \"- **no stubs**\"", |tree| {
        let text = tree.files.get_mut("ARCHITECTURE.md").unwrap();
        *text = text.replace("- **no stubs**: why\n", "");
    });
    check(written, "no rule keeps the invariant \"all is well\"", |tree| {
        append(tree, "ARCHITECTURE.md", "- **all is well**: hope\n");
    });
}

#[test]
fn a_foreign_licence_is_found() {
    check("licences are allowed", "evil v1.0.0", |tree| {
        tree.licences.insert("evil v1.0.0".to_owned(), "SSPL-1.0".to_owned());
    });
    check("licences are allowed", "no licence", |tree| {
        tree.files.remove("deny.toml");
    });
}
