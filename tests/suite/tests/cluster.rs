//! On a real cluster: Kubernetes' own control plane and the lab's kubelets, with kubectl in hand.
//!
//! Needs root, cgroup2, and the programs that `cargo xtask setup --cluster` builds; says so and passes where one is lacking.
//! A cluster takes half a gigabyte and both processors of a small machine: the tests of this program run one after another.

#![forbid(unsafe_code)]

// `cargo xtask test` knows the tests by this module's name: it builds their programs after all other tests.
#[cfg(test)]
#[path = "cluster"]
mod on_cluster {
    mod audit;
    mod definitions;
    mod events;
    mod fixture;
    mod guide_kube_proxy;
    mod guide_metallb;
    mod install;
    mod kubelet;
    mod leftovers;
    mod life;
    mod outage;
    mod rights;
    mod sections;
    mod traffic;
}
