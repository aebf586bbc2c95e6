//! Attaching programs by links, and pinning the links: first attachments, replacements, devices that come and go.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use aya::programs::{
    CgroupAttachMode, LinkOrder, Program, SchedClassifier, TcAttachType, links::FdLink, tc::TcAttachOptions,
};
use nix::net::if_::if_nametoindex;

use crate::{
    conntrack,
    load::{LoadError, Programs},
    maps::{FlowMaps, MapError},
    syscall,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a device is to the node, which decides the programs that it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It faces the network.
    Uplink,
    /// It faces pods, or is the loopback device.
    Internal,
    /// The bridge that pods' devices are ports of.
    Bridge,
}

impl Role {
    /// The names of the pins with the programs behind them, the one for packets that leave first: an answer must not leave
    /// untranslated. What comes in by a bridge has met the programs of its port.
    const fn programs(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Uplink => &[("uplink_out", "uplink_out"), ("uplink_in", "uplink_in")],
            Self::Internal => &[("int_out", "int_out"), ("int_in", "int_in")],
            Self::Bridge => &[("bridge_out", "int_out")],
        }
    }
}

/// The devices of one role that carry its programs.
#[derive(Debug)]
pub struct Attached {
    role: Role,
    devices: BTreeMap<u32, String>,
}

impl Attached {
    /// None yet.
    #[must_use]
    pub fn new(role: Role) -> Self {
        Self { role, devices: BTreeMap::new() }
    }

    /// Names of the devices.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.devices.values().map(String::as_str)
    }

    /// Attaches to the devices that have come (`wanted` is by index), forgets those that have gone; an earlier agent's
    /// too. Whether any came or went.
    ///
    /// # Errors
    /// The first failure; every other device has been seen to.
    pub fn follow(
        &mut self,
        programs: &mut Programs,
        flows: &mut FlowMaps,
        wanted: &BTreeMap<u32, String>,
    ) -> Result<bool, LoadError> {
        let changed = *wanted != self.devices;
        let mut outcome = Ok(());
        // All indexes first: a flow that begins before its backend's uplink is known would be taken for a local one.
        if self.role == Role::Uplink {
            for index in wanted.keys().filter(|index| !self.devices.contains_key(index)) {
                outcome = outcome.and(put_uplink(flows, *index).map_err(LoadError::from));
            }
        }
        for (index, name) in wanted {
            if !self.devices.contains_key(index)
                && let Err(error) = programs.attach_device(self.role, *index, name)
            {
                // A device may vanish between the listing and here; the next look will tell.
                if if_nametoindex(name.as_str()) == Ok(*index) {
                    outcome = outcome.and(Err(error));
                }
                continue;
            }
            self.devices.insert(*index, name.clone());
        }
        if changed || self.devices.len() != wanted.len() {
            outcome = outcome.and(self.forget_gone(programs, flows, wanted));
        }
        outcome.map(|()| changed)
    }

    fn forget_gone(
        &mut self,
        programs: &Programs,
        flows: &mut FlowMaps,
        wanted: &BTreeMap<u32, String>,
    ) -> Result<(), LoadError> {
        let mut outcome = Ok(());
        let mut gone = programs.pinned_devices(self.role);
        gone.extend(self.devices.keys().copied());
        for index in gone.into_iter().filter(|index| !wanted.contains_key(index)) {
            programs.detach_device(self.role, index);
            self.devices.remove(&index);
            if self.role == Role::Uplink {
                // The map holds what was attached; a stale index only means that a backend behind it counts as remote.
                let _ = flows.uplinks.remove(&index);
                outcome = outcome.and(conntrack::forget_device(flows, index).map(drop).map_err(LoadError::from));
            }
        }
        outcome
    }
}

fn put_uplink(flows: &mut FlowMaps, index: u32) -> Result<(), MapError> {
    flows.uplinks.insert(index, 1, 0).map_err(|source| MapError {
        map: roadstead_abi::map_names::UPLINKS,
        operation: "write",
        source: Box::new(source),
    })
}

impl Programs {
    fn attach_device(&mut self, role: Role, index: u32, device: &str) -> Result<(), LoadError> {
        for (pin, name) in role.programs() {
            self.attach_program(name, &self.device_pin(pin, index), device).map_err(|source| LoadError::Attach {
                name: (*name).to_owned(),
                to: device.to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    fn detach_device(&self, role: Role, index: u32) {
        for (pin, _) in role.programs() {
            // Gone with the device, or never pinned.
            let _ = std::fs::remove_file(self.device_pin(pin, index));
        }
    }

    /// The devices, by index, that this agent or an earlier one has pinned a program of the role for.
    fn pinned_devices(&self, role: Role) -> BTreeSet<u32> {
        // A folder that cannot be read lets nothing go; attaching has told why.
        let pins = std::fs::read_dir(self.pins.links()).into_iter().flatten().flatten();
        let names = pins.filter_map(|pin| pin.file_name().into_string().ok());
        let index = |name: String| {
            let (pin, index) = name.rsplit_once('-')?;
            if role.programs().iter().any(|(name, _)| *name == pin) { index.parse().ok() } else { None }
        };
        names.filter_map(index).collect()
    }

    /// Pins are named by index: names may hold dots, which the BPF file system refuses.
    fn device_pin(&self, name: &str, index: u32) -> PathBuf {
        self.pins.links().join(format!("{name}-{index}"))
    }

    fn attach_program(&mut self, name: &str, pin: &Path, device: &str) -> Result<(), BoxError> {
        let program: &mut SchedClassifier = self.ebpf.program_mut(name).ok_or("no such program")?.try_into()?;
        if replace(pin, program.fd()?.as_fd())? {
            return Ok(());
        }
        let direction = if name.ends_with("_in") { TcAttachType::Ingress } else { TcAttachType::Egress };
        // Programs of an earlier ABI version go on behind these until their flows are taken over.
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(device, direction, options)?;
        let link: FdLink = program.take_link(id)?.try_into()?;
        link.pin(pin)?;
        Ok(())
    }

    /// The pin is named by the cgroup too: one on another cgroup is not this one's.
    pub(crate) fn attach_socket_program(&mut self, name: &str, cgroup: &File) -> Result<(), BoxError> {
        let pin = self.pins.links().join(format!("{name}-{}", cgroup.metadata()?.ino()));
        let program = self.ebpf.program_mut(name).ok_or("no such program")?;
        if replace(&pin, program.fd()?.as_fd())? {
            return Ok(());
        }
        let link: FdLink = match program {
            Program::CgroupSockAddr(program) => {
                let id = program.attach(cgroup, CgroupAttachMode::Single)?;
                program.take_link(id)?.try_into()?
            }
            Program::CgroupSock(program) => {
                let id = program.attach(cgroup, CgroupAttachMode::Single)?;
                program.take_link(id)?.try_into()?
            }
            _ => return Err("no program for sockets".into()),
        };
        link.pin(&pin)?;
        Ok(())
    }
}

/// Puts the program into the pinned link, if there is one that is still attached; a dead pin is removed.
fn replace(pin: &Path, program: BorrowedFd<'_>) -> io::Result<bool> {
    let link = match syscall::open_pinned(pin) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if syscall::update_link(link.as_fd(), program).is_ok() {
        return Ok(true);
    }
    // The device or cgroup that it was attached to is gone.
    std::fs::remove_file(pin)?;
    Ok(false)
}
