//! What goes over the segment besides heartbeats: questions are answered, addresses announced, new ones asked for, rivals
//! noticed. The decisions are `layer2`'s; here frames go in and out, a bounded number in each turn of the engine.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use roadstead_layer2::{
    announce::{self, Schedule},
    conflict::{Probes, Rivals, claim, question},
    membership::Membership,
    responder::answer,
    wire::{Frame, Mac},
};
use tracing::{debug, info, warn};

use crate::{
    kernel::KernelResponder,
    metrics::Metrics,
    ports::{Announced, Port, Ports},
    responder,
    socket::PacketSocket,
};

/// The state of what is told and heard.
#[derive(Debug, Default)]
pub(crate) struct Segment {
    schedule: Schedule<Announced>,
    probes: Probes,
    rivals: Rivals,
}

/// What frames are judged by.
#[derive(Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) ports: &'a Ports,
    pub(crate) membership: &'a Membership,
    pub(crate) metrics: &'a Metrics,
    /// What answers instead of this process, where it does.
    pub(crate) kernel: Option<&'a dyn KernelResponder>,
}

/// What came of the frames of a turn.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    /// Interfaces whose socket must be opened anew.
    pub(crate) broken: Vec<u32>,
    /// An address that was asked for turned out to be another host's.
    pub(crate) occupied: bool,
}

impl Segment {
    /// Announces every so often, or not at all after an address has come here.
    pub(crate) fn new(refresh: Option<Duration>) -> Self {
        Self { schedule: Schedule::new(refresh), ..Self::default() }
    }

    /// Sets what this node announces.
    pub(crate) fn own(&mut self, now: Duration, announced: &BTreeSet<Announced>) {
        self.schedule.own(now, announced);
        let ips: BTreeSet<IpAddr> = announced.iter().map(|announced| announced.ip).collect();
        self.rivals.retain(|ip| ips.contains(&ip));
    }

    /// Announces everything anew.
    pub(crate) fn restart(&mut self, now: Duration) {
        self.schedule.restart(now);
    }

    /// Asks for addresses that nobody had before; of those that are no longer assigned no more is asked.
    pub(crate) fn probe(&mut self, now: Duration, fresh: &BTreeSet<IpAddr>, assigned: &BTreeSet<IpAddr>) {
        self.probes.retain(|ip| assigned.contains(&ip));
        fresh.iter().for_each(|ip| self.probes.begin(now, *ip));
    }

    /// Whether the address must not be announced: it is asked for, or another host has it.
    pub(crate) fn is_barred(&self, ip: IpAddr) -> bool {
        self.probes.is_barred(ip)
    }

    /// Whether some address is asked for.
    pub(crate) fn is_asking(&self) -> bool {
        self.probes.is_asking()
    }

    /// Addresses of other hosts.
    pub(crate) fn occupied(&self) -> BTreeMap<IpAddr, Mac> {
        self.probes.occupied()
    }

    /// When [`Self::speak`] has something to say.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.schedule.next().into_iter().chain(self.probes.next()).min()
    }

    /// Takes frames that came in, at most so many from an interface, and answers for the addresses that this node may answer
    /// for at this moment.
    pub(crate) fn hear(
        &mut self,
        now: Duration,
        scene: Scene<'_>,
        frames: usize,
        may_answer: impl Fn(IpAddr) -> bool,
    ) -> Heard {
        let mut heard = Heard::default();
        let mut buffer = PacketSocket::buffer();
        for (index, port) in scene.ports.iter() {
            for _ in 0..frames {
                let bytes = match port.socket.receive(&mut buffer) {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => break,
                    Err(error) => {
                        // The kernel says so once when it takes the interface down; the socket may hear nothing then.
                        debug!(interface = %port.name, %error, "cannot receive");
                        heard.broken.push(index);
                        break;
                    }
                };
                scene.metrics.frame();
                let Ok(frame) = Frame::parse(bytes) else { continue };
                if let Some((ip, mac)) = claim(&frame) {
                    heard.occupied |= self.judge(now, scene, (index, port), (ip, mac));
                }
                let left = |ip| is_left_to_kernel(scene, index, ip, bytes);
                reply(scene, port, &frame, |ip| !left(ip) && may_answer(ip));
            }
        }
        heard
    }

    /// Notes who else says to have an address that is ours or asked for; true if it may not be handed out therefore.
    fn judge(
        &mut self,
        now: Duration,
        scene: Scene<'_>,
        (index, port): (u32, &Port),
        (ip, mac): (IpAddr, Mac),
    ) -> bool {
        let announced = port.announced.contains(&ip);
        let concerns_us = announced || self.probes.is_barred(ip);
        if !concerns_us || scene.ports.is_ours(mac) || scene.membership.is_peers_station(mac) {
            return false;
        }
        if !announced {
            let news = self.probes.heard(now, ip, mac);
            if news {
                warn!(%ip, %mac, interface = %port.name, "not handed out: another host has the address");
            }
            return news;
        }
        let sighting = self.rivals.heard(now, ip, mac);
        scene.metrics.rival(ip);
        if sighting.is_new {
            warn!(%ip, %mac, interface = %port.name, "another host says that it has an address which this node announces");
        }
        if sighting.defend {
            self.schedule.again(now, &Announced { interface: index, mac: port.station.mac, ip });
        }
        false
    }

    /// Sends what is due; true if an address has become free.
    pub(crate) fn speak(&mut self, now: Duration, scene: Scene<'_>, may_answer: impl Fn(IpAddr) -> bool) -> bool {
        for Announced { interface, ip, .. } in self.schedule.due(now) {
            let Some(port) = scene.ports.port(interface).filter(|_| may_answer(ip)) else { continue };
            for frame in announce::frames(&port.station, ip) {
                if send(port, &frame) {
                    scene.metrics.gratuitous(ip);
                }
            }
        }
        let occupied = self.probes.occupied();
        let (questions, freed) = self.probes.tick(now);
        for ip in questions {
            for (_, port) in scene.ports.iter() {
                send(port, &question(&port.station, ip));
            }
        }
        if freed {
            for ip in occupied.keys().filter(|ip| !self.probes.is_barred(**ip)) {
                info!(%ip, "the host that had the address is silent");
            }
        }
        freed
    }
}

/// Whether the kernel answers the question, so that this process must not.
fn is_left_to_kernel(scene: Scene<'_>, interface: u32, ip: IpAddr, question: &[u8]) -> bool {
    scene.kernel.is_some_and(|kernel| kernel.answers(interface, ip)) && !responder::is_too_long_for_kernel(question)
}

fn reply(scene: Scene<'_>, port: &Port, frame: &Frame, may_answer: impl Fn(IpAddr) -> bool) {
    let Ok(reply) = answer(&port.station, &port.announced, frame) else { return };
    scene.metrics.request(reply.ip);
    if may_answer(reply.ip) && send(port, &reply.frame) {
        scene.metrics.response(reply.ip);
    }
}

fn send(port: &Port, frame: &Frame) -> bool {
    let sent = port.socket.send(&frame.encode());
    if let Err(error) = &sent {
        debug!(interface = %port.name, %error, "cannot send");
    }
    sent.is_ok()
}
