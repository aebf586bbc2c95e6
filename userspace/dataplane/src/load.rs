//! Loading the programs over pinned maps, and attaching them.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{Program, ProgramError},
};
use roadstead_abi::{announced, map_names};
use tracing::warn;

use crate::{
    maps::{FlowMaps, KernelMaps, MapError},
    object,
    pins::{Pins, PinsError},
};

/// The programs that hook socket calls, by name in the object. The one that forgets comes first.
pub const SOCKET_PROGRAMS: [&str; 9] = [
    "sock_release",
    "sock_connect4",
    "sock_connect6",
    "sock_sendmsg4",
    "sock_sendmsg6",
    "sock_recvmsg4",
    "sock_recvmsg6",
    "sock_peername4",
    "sock_peername6",
];

/// The programs of every uplink.
pub const UPLINK_PROGRAMS: [&str; 2] = ["uplink_in", "uplink_out"];

/// The programs of every device that faces pods.
pub const INTERNAL_PROGRAMS: [&str; 2] = ["int_in", "int_out"];

/// The loaded programs.
pub struct Programs {
    pub(crate) ebpf: Ebpf,
    pub(crate) pins: Pins,
}

/// Why the programs cannot be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The object or a map was refused.
    #[error("cannot load the BPF object")]
    Object(#[source] Box<EbpfError>),
    /// The verifier or the kernel refused a program.
    #[error("cannot load program {name}")]
    Program {
        /// Its name.
        name: String,
        /// What the kernel says.
        source: Box<ProgramError>,
    },
    /// A program could not be attached.
    #[error("cannot attach {name} to {to}")]
    Attach {
        /// Its name.
        name: String,
        /// Device or cgroup.
        to: String,
        /// What the kernel says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The cgroup root cannot be opened.
    #[error("cannot open the cgroup root {}", path.display())]
    Cgroup {
        /// `--cgroup-root`.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// Pins.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// Maps.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl Programs {
    /// Loads every program, over the maps that are pinned already or new ones. Nothing is attached yet.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn load(pins: Pins, conntrack_entries: u32) -> Result<(Self, KernelMaps, FlowMaps), LoadError> {
        let maps = pins.maps();
        warn_of_another_size(&maps.join(map_names::CONNTRACK), conntrack_entries);
        let mut loader = EbpfLoader::new();
        for name in map_names::ALL {
            loader.map_pin_path(name, maps.join(name));
        }
        for name in announced::map_names::ALL {
            loader.map_pin_path(name, pins.speaker_maps().join(name));
        }
        loader.map_max_entries(map_names::CONNTRACK, conntrack_entries);
        let mut ebpf = loader.load(object::bytes()).map_err(|error| LoadError::Object(Box::new(error)))?;
        load_programs(&mut ebpf)?;
        let (kernel_maps, flow_maps) = KernelMaps::take(&mut ebpf)?;
        Ok((Self { ebpf, pins }, kernel_maps, flow_maps))
    }

    /// Attaches the socket programs to the cgroup root, in place of those that an earlier agent has pinned.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn attach_sockets(&mut self, cgroup_root: &Path) -> Result<(), LoadError> {
        let cgroup =
            File::open(cgroup_root).map_err(|source| LoadError::Cgroup { path: cgroup_root.to_path_buf(), source })?;
        let number =
            cgroup.metadata().map_err(|source| LoadError::Cgroup { path: cgroup_root.to_path_buf(), source })?;
        self.detach_sockets(Some(number.ino()));
        for name in SOCKET_PROGRAMS {
            self.attach_socket_program(name, &cgroup).map_err(|source| LoadError::Attach {
                name: name.to_owned(),
                to: cgroup_root.display().to_string(),
                source,
            })?;
        }
        Ok(())
    }

    /// Detaches the socket programs that an earlier agent has pinned, but for those on the cgroup with this inode number.
    pub fn detach_sockets(&self, but_for: Option<u64>) {
        let Ok(entries) = std::fs::read_dir(self.pins.links()) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((program, cgroup)) = name.rsplit_once('-') else { continue };
            let stays = but_for.is_some_and(|number| cgroup == number.to_string());
            if SOCKET_PROGRAMS.contains(&program) && !stays {
                // Gone already is as good.
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// A loaded program, for test runs.
    #[must_use]
    pub fn program(&self, name: &str) -> Option<&Program> {
        self.ebpf.program(name)
    }

    /// The folders of pins.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }
}

/// A pinned table keeps its size, and its flows.
fn warn_of_another_size(pin: &Path, wanted: u32) {
    let Ok(info) = aya::maps::MapInfo::from_pin(pin) else { return };
    if info.max_entries() != wanted {
        warn!(
            wanted,
            pinned = info.max_entries(),
            "the conntrack table keeps the size it was made with until `roadstead cleanup`"
        );
    }
}

/// Loads all at once: the verifier takes most of an agent's start, and works on as many programs as there are processors.
fn load_programs(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    std::thread::scope(|scope| {
        let load = |name: String, program: &mut Program| {
            load_program(program).map_err(|error| LoadError::Program { name, source: Box::new(error) })
        };
        let programs = ebpf.programs_mut().map(|(name, program)| (name.to_owned(), program));
        let started: Vec<_> = programs.map(|(name, program)| scope.spawn(move || load(name, program))).collect();
        // A thread that panicked has said why; the program is not loaded, which attaching tells.
        started.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })
}

fn load_program(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        Program::CgroupSock(program) => program.load(),
        // The object holds no other kind; one that does is of another version and stays unloaded.
        _ => Ok(()),
    }
}
