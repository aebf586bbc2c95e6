//! Hosts without Kubernetes: the units and the files of the Debian package.

use std::{fs, process::Command};

use roadstead_suite::top;

const UNITS: [(&str, &str); 3] = [
    ("roadstead", "CAP_BPF CAP_NET_ADMIN CAP_PERFMON"),
    ("roadstead-ingress", "CAP_NET_BIND_SERVICE"),
    ("roadstead-speaker", "CAP_NET_RAW"),
];

fn unit(name: &str) -> String {
    fs::read_to_string(top().join(format!("deploy/systemd/{name}.service"))).unwrap()
}

#[test]
fn units_start_their_program_with_its_rights_alone() {
    for (name, capabilities) in UNITS {
        let text = unit(name);
        let has = |line: &str| text.lines().any(|found| found == line);
        for line in [
            &format!("ExecStart=/usr/bin/{name} run"),
            &format!("CapabilityBoundingSet={capabilities}"),
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "Restart=always",
        ] {
            assert!(has(line), "{name} lacks {line}");
        }
        assert_eq!(has(&format!("User={name}")), name != "roadstead", "{name}");
    }
}

/// Proxy and speaker are two users, and both write there.
#[test]
fn all_daemons_may_write_status() {
    let text = fs::read_to_string(top().join("deploy/debian/roadstead.tmpfiles")).unwrap();
    let line = "d /var/lib/roadstead/status 2770 root roadstead -";
    assert!(text.lines().any(|found| found == line), "{text}");
}

/// In tenths, as the threshold is given: 100 is a service without any protection, 20 to 30 what systemd's own have.
const EXPOSURE: &str = "25";

#[test]
fn systemd_finds_the_units_well_protected() {
    for (name, _) in UNITS {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=yes", "--no-pager"]).arg(format!("--threshold={EXPOSURE}"));
        match command.arg(top().join(format!("deploy/systemd/{name}.service"))).output() {
            Ok(output) => assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => return eprintln!("skipped: systemd-analyze: {error}"),
        }
    }
}

#[test]
fn the_packages_files_are_there_and_its_scripts_are_scripts() {
    let manifest = fs::read_to_string(top().join("userspace/agent/Cargo.toml")).unwrap();
    let (_, deb) = manifest.split_once("[package.metadata.deb]").unwrap();
    let asset = |line: &str| line.trim().strip_prefix("[\"")?.split('"').next().map(str::to_owned);
    let assets: Vec<String> = deb.lines().filter_map(asset).collect();
    assert!(assets.len() > 10, "{assets:?}");
    for (name, _) in UNITS {
        assert!(assets.contains(&format!("target/release/{name}")), "{name} is not packed");
        assert!(assets.contains(&format!("../../deploy/systemd/{name}.service")), "{name}.service is not packed");
    }
    for asset in assets.iter().filter(|asset| !asset.starts_with("target/")) {
        assert!(top().join("userspace/agent").join(asset).is_file(), "{asset} is not there");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let path = top().join("deploy/debian/scripts").join(script);
        assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success(), "{script}");
    }
}
