//! Measures the way from YAML to a snapshot: 10,000 Services with 5 endpoints each, cold, and after a change of one endpoint.
//!
//! `cargo run --release -p roadstead-sources --example cold_start` prints, for the same objects in 20 files of 1,000
//! documents and in 20,000 files, the time of the first reading, and the time from replacing a file by one with another
//! address in it to the snapshot that tells it. That includes the 10 ms for which the source waits for the end of a burst.

use std::{
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use roadstead_sources::{Interest, LoadOptions, SourceFlags};

const SERVICES: usize = 10_000;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    source: SourceFlags,
}

fn main() -> Result<(), Box<dyn Error>> {
    for per_file in [1000, 1] {
        let folder = std::env::temp_dir().join(format!("roadstead-cold-start-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        for (path, text) in (0..SERVICES / per_file).flat_map(|part| files(&folder, per_file, part, 0)) {
            fs::write(path, text)?;
        }
        println!("{} files of {per_file} documents", 2 * SERVICES / per_file);
        for _ in 0..5 {
            let start = Instant::now();
            let snapshot = roadstead_sources::load(std::slice::from_ref(&folder), &LoadOptions::default());
            println!("  cold: {:?}, {} Services", start.elapsed(), snapshot.services.len());
        }
        follow(&folder, per_file)?;
        fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

fn follow(folder: &Path, per_file: usize) -> Result<(), Box<dyn Error>> {
    let state = folder.join("state").display().to_string();
    let flags =
        Cli::try_parse_from(["cold_start", "--manifests", &folder.display().to_string(), "--state-dir", &state])?;
    let source = roadstead_sources::start(&flags.source, Interest::agent())?;
    let mut snapshots = source.snapshots();
    for change in 1..8 {
        // Young files are read again until their stamps can be trusted: not a part of what a change costs.
        thread::sleep(Duration::from_millis(300));
        let (path, text) = files(folder, per_file, 3, change).swap_remove(1);
        let scratch = folder.join(".scratch");
        fs::write(&scratch, text)?;
        snapshots.mark_unchanged();
        let start = Instant::now();
        fs::rename(&scratch, path)?;
        while !snapshots.has_changed()? {
            thread::sleep(Duration::from_micros(50));
        }
        println!("  one endpoint: {:?}", start.elapsed());
    }
    Ok(())
}

/// A file of Services and one of their slices; the first slice's first address tells the change.
fn files(folder: &Path, per_file: usize, part: usize, change: usize) -> Vec<(PathBuf, String)> {
    let range = part * per_file..(part + 1) * per_file;
    let services: Vec<_> = range.clone().map(service).collect();
    let slices: Vec<_> =
        range.clone().map(|index| slice(index, if index == range.start { change } else { 0 })).collect();
    let name = |kind: &str| folder.join(format!("{kind}-{part:05}.yaml"));
    vec![(name("services"), services.join("---\n")), (name("slices"), slices.join("---\n"))]
}

fn service(index: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: svc-{index}\n  namespace: ns-{}\n  labels:\n    app: \
         app-{index}\nspec:\n  type: ClusterIP\n  selector:\n    app: app-{index}\n  ports:\n  - name: http\n    port: \
         80\n    targetPort: 8080\n    protocol: TCP\n",
        index % 50
    )
}

fn slice(index: usize, change: usize) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: svc-{index}-abcde\n  namespace: \
         ns-{}\n  labels:\n    kubernetes.io/service-name: svc-{index}\naddressType: IPv4\nports:\n- name: http\n  port: \
         8080\n  protocol: TCP\nendpoints:\n",
        index % 50
    );
    for endpoint in 0..5 {
        let last = endpoint + if endpoint == 0 { 100 + change } else { 1 };
        let _ = write!(
            text,
            "- addresses:\n  - 10.{}.{}.{last}\n  conditions:\n    ready: true\n    serving: true\n    terminating: \
             false\n  nodeName: node-{}\n  zone: zone-{}\n",
            100 + index / 250,
            index % 250,
            (index + endpoint) % 100,
            (index + endpoint) % 3,
        );
    }
    text
}
