//! The kernel's answers and news in a network namespace of the test's own, and what of it the devices are.

use std::{collections::BTreeSet, process::Command, time::Instant};

use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

use super::*;
use crate::devices::Devices;

const LATE: Duration = Duration::from_secs(8);

/// Runs the future on a thread in a network namespace of its own, which ends with it.
fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped: cannot make a network namespace: {error}");
            return;
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    };
    std::thread::spawn(run).join().unwrap();
}

/// Runs `ip`, each line one command, in the thread's namespace.
fn ip(lines: &str) {
    for line in lines.lines() {
        let output = Command::new("ip").args(line.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "ip {line}: {output:?}");
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn devices_are_what_the_kernel_lists() {
    alone(async || {
        ip("link add up0 type veth peer name far9
            link add br0 type bridge
            link add pod0 type veth peer name far0
            link add pod1 type veth peer name far1
            tuntap add tap0 mode tap
            tuntap add tun0 mode tun
            link set pod0 master br0 up
            link set tap0 up
            link set tun0 up
            link set br0 up
            link set far1 up
            link set up0 up
            addr add 192.0.2.1/24 dev up0
            addr add 2001:db8::1/64 dev up0 nodad
            addr add 10.9.0.1 peer 10.9.0.2 dev br0
            route add default via 192.0.2.9
            route add default dev br0 table 100
            route add blackhole 203.0.113.0/24");
        let devices = Devices::look(&[]).unwrap();
        let uplinks = devices.uplinks(&[], &[]).unwrap();
        assert_eq!(uplinks, names(&["up0"]));
        assert_eq!(devices.pods(&uplinks).into_values().collect::<BTreeSet<_>>(), names(&["far1", "pod0", "tap0"]));
        let ips: Vec<_> = devices.addresses().map(|ip| ip.to_string()).collect();
        assert_eq!(ips, ["10.9.0.1", "192.0.2.1", "2001:db8::1"]);
        assert!(devices.uplinks(&["tun0".to_owned()], &[]).is_err());

        ip("route change default nexthop via 192.0.2.9 nexthop dev br0\nroute add default dev pod0 metric 9");
        let devices = Devices::look(&[]).unwrap();
        assert_eq!(devices.uplinks(&[], &[]).unwrap(), names(&["br0", "pod0", "up0"]));
    });
}

#[test]
fn news_comes_at_once_and_a_burst_is_few_looks() {
    alone(async || {
        let mut watch = Watch::open().unwrap();
        ip("link add one0 type veth peer name one1");
        timeout(LATE, watch.changed()).await.unwrap();
        assert!(!Devices::look(&[]).unwrap().addresses().any(|_| true));

        let started = Instant::now();
        let lines: Vec<_> = (0..40).map(|n| format!("link add burst{n} type veth peer name peer{n}")).collect();
        ip(&lines.join("\n"));
        let burst = started.elapsed();
        let mut looks = 0;
        while timeout(Duration::from_millis(200), watch.changed()).await.is_ok() {
            looks += 1;
        }
        assert!((1..=3).contains(&looks), "{looks} looks after a burst of {burst:?}");
        assert_eq!(Kernel::open().unwrap().links().unwrap().len(), 83);
    });
}

#[test]
fn other_routes_are_no_news_and_lost_news_is() {
    alone(async || {
        // No other device would do: of their carriers there is news late.
        ip("link set lo up\naddr add 192.0.2.1/24 dev lo");
        let mut watch = Watch::open().unwrap();
        ip("route add 198.51.100.0/24 dev lo");
        assert!(timeout(Duration::from_millis(200), watch.changed()).await.is_err());
        ip("route add default dev lo");
        timeout(LATE, watch.changed()).await.unwrap();

        // A buffer that overflows with routes nobody asked about: the kernel says that something was lost.
        let socket = watch.socket.as_ref().unwrap();
        setsockopt(socket, sockopt::RcvBuf, &0).unwrap();
        let lines: Vec<_> = (0..50).map(|n| format!("route add 198.18.{n}.0/24 dev lo")).collect();
        ip(&lines.join("\n"));
        timeout(LATE, watch.changed()).await.unwrap();
        timeout(Duration::from_millis(200), watch.changed()).await.unwrap_err();
    });
}

#[test]
fn a_wait_that_is_cancelled_loses_nothing() {
    alone(async || {
        let mut watch = Watch::open().unwrap();
        ip("link add one0 type veth peer name one1");
        timeout(LATE, watch.changed()).await.unwrap();
        ip("link add two0 type veth peer name two1");
        watch.rest_until += Duration::from_secs(60);
        assert!(timeout(Duration::from_millis(50), watch.changed()).await.is_err(), "the rest is not over");
        watch.rest_until = tokio::time::Instant::now();
        timeout(LATE, watch.changed()).await.unwrap();
    });
}
