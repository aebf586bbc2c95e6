//! The way of a flow: whose address its packets bear towards the backend, who delivers them, and where its answers are
//! translated back.
//!
//! The packet filters of the node's stack (conntrack, CNI policies) must see both directions of a flow or none. So a flow
//! either goes through the stack both ways, translated on the client's side of it, or is sent past the stack both ways.

/// Where the first packet was met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It came in on an uplink.
    Uplink,
    /// It came from a pod of this node.
    Pod,
    /// It came by a device of this node that is no uplink, from an address that is no pod's.
    Beside,
    /// It is on its way out already, and this node only passes it on.
    Late,
    /// This node sent it: it is met on its way out, or on the loopback device.
    Host,
}

/// Where the backend is, by the routing table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// At an address of this node.
    Here,
    /// Behind another device of this node.
    Behind,
    /// Beyond an uplink.
    Beyond,
}

/// What is known of the flow besides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Circumstances {
    /// Where its first packet was met.
    pub arrival: Arrival,
    /// Where its backend is.
    pub place: Place,
    /// kube-proxy would put an address of the node in the client's place.
    pub masquerade: bool,
    /// The masquerade mode is kube-proxy's: its word goes, also where answers may not come back to this node then.
    pub is_exact: bool,
    /// The client is the backend: it would take answers to itself for its own.
    pub hairpin: bool,
    /// The client asked for an address of this node.
    pub asked_node: bool,
    /// The client bears the address that it asked for: one of this node's own, as speakers of other kinds configure it.
    pub asked_itself: bool,
    /// The client asked for an endpoint that is gone, so its packets are addressed to nobody on its link.
    pub asked_gone: bool,
}

/// Who takes packets from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// The stack.
    Stack,
    /// The device that the destination is routed to.
    Device,
    /// The loopback device, as if they had come in there.
    Loopback,
}

/// The way of a flow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Way {
    /// The backend sees an address of the node.
    pub snat: bool,
    /// Who takes packets to the backend.
    pub forward: Next,
    /// Who takes answers.
    pub reply: Next,
    /// Answers are translated where they leave towards the client, not where they come in.
    pub at_egress: bool,
}

/// Finds the way.
#[inline(always)]
#[must_use]
pub fn find(c: Circumstances) -> Way {
    if matches!(c.arrival, Arrival::Host) {
        let here = matches!(c.place, Place::Here);
        let forward = if here { Next::Loopback } else { Next::Device };
        // An answer from one of the node's own addresses is a martian on every device but the loopback one.
        let reply = if c.asked_node && !here { Next::Loopback } else { Next::Stack };
        // A backend would send its answers to whoever has the Service's address.
        return Way { snat: c.asked_itself && !here, forward, reply, at_egress: false };
    }
    if matches!(c.arrival, Arrival::Late) {
        let here = matches!(c.place, Place::Here);
        // The stack would send it on where it was going.
        let (forward, reply) = if here { (Next::Loopback, Next::Stack) } else { (Next::Device, Next::Device) };
        return Way { snat: !here, forward, reply, at_egress: here };
    }
    let out_again = matches!((c.arrival, c.place), (Arrival::Uplink | Arrival::Beside, Place::Beyond));
    let masquerades = if c.is_exact { c.masquerade } else { out_again };
    let snat = (masquerades || c.hairpin) && !matches!(c.place, Place::Here);
    if snat || c.asked_gone && !matches!(c.place, Place::Here) {
        return Way { snat, forward: Next::Device, reply: Next::Device, at_egress: false };
    }
    Way { snat, forward: Next::Stack, reply: Next::Stack, at_egress: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(arrival: Arrival, place: Place, masquerade: bool, hairpin: bool, asked_node: bool) -> Way {
        let (is_exact, asked_itself, asked_gone) = (masquerade, false, false);
        find(Circumstances { arrival, place, masquerade, is_exact, hairpin, asked_node, asked_itself, asked_gone })
    }

    #[test]
    fn who_bears_the_address_that_it_asked_for_gets_the_nodes() {
        let circumstances = |place| Circumstances {
            arrival: Arrival::Host,
            place,
            masquerade: true,
            is_exact: true,
            hairpin: false,
            asked_node: true,
            asked_itself: true,
            asked_gone: false,
        };
        assert_eq!(
            find(circumstances(Place::Behind)),
            Way { snat: true, forward: Next::Device, reply: Next::Loopback, at_egress: false }
        );
        assert!(!find(circumstances(Place::Here)).snat);
    }

    #[test]
    fn packets_to_an_endpoint_that_is_gone_go_past_the_stack() {
        for (place, expected) in
            [(Place::Behind, Next::Device), (Place::Beyond, Next::Device), (Place::Here, Next::Stack)]
        {
            let way = find(Circumstances {
                arrival: Arrival::Pod,
                place,
                masquerade: false,
                is_exact: false,
                hairpin: false,
                asked_node: false,
                asked_itself: false,
                asked_gone: true,
            });
            assert_eq!((way.snat, way.forward, way.reply), (false, expected, expected), "{place:?}");
        }
    }

    #[test]
    fn the_stack_sees_both_directions_or_none() {
        for arrival in [Arrival::Uplink, Arrival::Pod] {
            for place in [Place::Here, Place::Behind, Place::Beyond] {
                for (masquerade, hairpin) in [(false, false), (true, false), (false, true)] {
                    let way = way(arrival, place, masquerade, hairpin, false);
                    assert_eq!(way.forward, way.reply, "{arrival:?} {place:?}");
                    assert_eq!(way.at_egress, way.forward == Next::Stack, "{arrival:?} {place:?}");
                    assert_eq!(way.snat, way.forward == Next::Device, "{arrival:?} {place:?}");
                }
            }
        }
    }

    #[test]
    fn the_clients_address_is_kept_wherever_answers_come_back() {
        use {Arrival::*, Place::*};
        let cases = [
            (Uplink, Behind, false, false, false),
            (Uplink, Beyond, false, false, true),
            (Beside, Beyond, false, false, true),
            (Beside, Behind, false, false, false),
            (Late, Behind, false, false, true),
            (Late, Here, false, false, false),
            (Uplink, Behind, true, false, true),
            (Pod, Beyond, false, false, false),
            (Pod, Behind, false, false, false),
            (Pod, Behind, false, true, true),
            (Pod, Beyond, true, false, true),
            // Nobody would translate the answer of a process of this node back.
            (Uplink, Here, true, false, false),
            (Host, Beyond, true, false, false),
        ];
        for (arrival, place, masquerade, hairpin, snat) in cases {
            assert_eq!(way(arrival, place, masquerade, hairpin, false).snat, snat, "{arrival:?} {place:?}");
        }
    }

    #[test]
    fn answers_from_the_nodes_own_address_come_by_the_loopback_device() {
        use {Arrival::Host, Place::*};
        assert_eq!(way(Host, Behind, true, false, true).reply, Next::Loopback);
        assert_eq!(way(Host, Beyond, true, false, false).reply, Next::Stack);
        assert_eq!(
            (way(Host, Here, true, false, true).forward, way(Host, Here, true, false, true).reply),
            (Next::Loopback, Next::Stack)
        );
    }
}
