//! What the kernel's responder is told: the addresses that it answers for, and until when.

use std::{collections::BTreeSet, net::IpAddr};

use roadstead_layer2::ownership::Partition;

use super::Turn;
use crate::{kernel::KernelLease, ports::Announced};

impl Turn {
    /// Hands the leases to the kernel's responder. What is claimed and not leased yet goes on as an earlier run left it.
    pub(super) fn lease(&mut self) {
        let waiting = self.setup.ownership.waiting().collect();
        self.tell_kernel(&waiting);
    }

    /// Takes back from the kernel's responder what is claimed no more.
    pub(super) fn withdraw(&mut self) {
        let claimed = self.setup.ownership.claims().map(|(ip, _)| ip).collect();
        self.tell_kernel(&claimed);
    }

    /// `left` are the addresses of which the kernel keeps what it has if there is no lease for it.
    fn tell_kernel(&mut self, left: &BTreeSet<IpAddr>) {
        if self.setup.kernel.is_none() {
            return;
        }
        let leases = self.announced.iter().filter_map(|announced| {
            let Announced { interface, mac, ip } = *announced;
            let until_ns = self.setup.origin.ns(self.lease_until(ip)?);
            let link_local = self.setup.ports.port(interface)?.station.link_local;
            Some(KernelLease { interface, mac, link_local, ip, until_ns, former: self.audible.get(&ip)?.former })
        });
        let leases: Vec<KernelLease> = leases.collect();
        let now = self.setup.origin.ns(self.now());
        // What an earlier speaker has left must not go before this one knows what it owns.
        let known = !self.setup.ownership.membership.is_undecided();
        if let Some(kernel) = &mut self.setup.kernel {
            kernel.follow(now, known.then_some((&leases, left)));
        }
    }

    /// Looks where the kernel's responder answers, which decides how long a lease is, and counts what it has answered.
    pub(super) fn look(&mut self, attached: &BTreeSet<u32>) {
        let Some(kernel) = &mut self.setup.kernel else { return };
        self.setup.ports.show(|ports, links| kernel.look(ports, links, attached));
        // A majority does not wait for a kernel to fall silent.
        let waits = self.setup.ownership.rules().partition == Partition::Availability;
        if waits && kernel.vouches() {
            self.setup.ownership.membership.answer_by_kernel();
        } else {
            self.setup.ownership.membership.answer_by_process();
        }
        for (ip, answers) in kernel.answered() {
            self.setup.metrics.responses(ip, answers);
        }
    }
}
