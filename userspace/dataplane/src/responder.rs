//! The speaker's side of the responder in `uplink_in`: the pinned maps that tell it what to answer for, and until when.
//!
//! The agent makes the maps and attaches the programs, and the speaker writes. What the maps hold outlives it: a speaker
//! that is killed is not missed before its last lease ends, and one that starts finds what the earlier one has left. It
//! stays there until [`Responder::follow`] is called, so nobody calls that before it knows what it owns.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{
    maps::{Array, HashMap, Map, MapData, MapError as AyaMapError, MapInfo, PerCpuHashMap, PerCpuValues},
    programs::{ProgramInfo, SchedClassifier, TcAttachType},
    util::nr_cpus,
};
use roadstead_abi::announced::map_names;
pub use roadstead_abi::{
    Addr, Be16,
    announced::{Announced, AnnouncedKey, Answers, LONGEST_QUESTION, Speaker},
};

use crate::{maps::MapError, pins::Pins};

/// Where the probes are counted ([`Answers`]).
pub const PROBES: AnnouncedKey = AnnouncedKey { addr: Addr::UNSPECIFIED, ifindex: 0 };

/// The maps, open.
pub struct Responder {
    announced: HashMap<MapData, AnnouncedKey, Announced>,
    answers: PerCpuHashMap<MapData, AnnouncedKey, Answers>,
    speaker: Array<MapData, Speaker>,
    /// The kernel's number of `announced`.
    id: u32,
    /// What was written last, which is what the map holds: nobody else writes.
    written: BTreeMap<AnnouncedKey, Announced>,
}

impl Responder {
    /// Opens the maps that an agent has pinned below `bpffs`, running or not, and reads what is announced.
    ///
    /// # Errors
    /// When no agent has been here, or this process may not use BPF.
    pub fn open(bpffs: &Path) -> Result<Self, MapError> {
        let pins = Pins::at(bpffs);
        let id = MapInfo::from_pin(pins.speaker_maps().join(map_names::ANNOUNCED))
            .map_err(failed(map_names::ANNOUNCED, "find"))?
            .id();
        let mut responder = Self {
            announced: open(&pins, map_names::ANNOUNCED)?,
            answers: open(&pins, map_names::ANSWERS)?,
            speaker: open(&pins, map_names::SPEAKER)?,
            id,
            written: BTreeMap::new(),
        };
        let elements = responder.announced.iter().collect::<Result<_, _>>();
        responder.written = elements.map_err(failed(map_names::ANNOUNCED, "read"))?;
        responder.make_room(PROBES)?;
        Ok(responder)
    }

    /// Whether these are still the maps that are pinned below `bpffs`: others after `roadstead cleanup`.
    #[must_use]
    pub fn is_current(&self, bpffs: &Path) -> bool {
        let pin = Pins::at(bpffs).speaker_maps().join(map_names::ANNOUNCED);
        MapInfo::from_pin(pin).is_ok_and(|info| info.id() == self.id)
    }

    /// What is announced, as far as this process knows: what an earlier one has left, or what [`Self::follow`] has written.
    #[must_use]
    pub fn written(&self) -> &BTreeMap<AnnouncedKey, Announced> {
        &self.written
    }

    /// Brings the map to what is wanted, by the difference to what it holds; silences come first.
    ///
    /// # Errors
    /// The first failure; everything else has been tried, and is tried again the next time.
    pub fn follow(&mut self, wanted: &BTreeMap<AnnouncedKey, Announced>) -> Result<(), MapError> {
        let gone: BTreeSet<AnnouncedKey> =
            self.written.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        let mut outcome = Ok(());
        for key in gone {
            outcome = outcome.and(self.remove(&key));
        }
        for (key, entry) in wanted {
            outcome = outcome.and(self.put(*key, entry));
        }
        outcome
    }

    /// Writes one entry, if the map holds another.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn put(&mut self, key: AnnouncedKey, entry: &Announced) -> Result<(), MapError> {
        let entry = Announced { check: key.check(), ..*entry };
        match self.written.get(&key) {
            Some(written) if *written == entry => return Ok(()),
            Some(_) => {}
            None => self.make_room(key)?,
        }
        self.announced.insert(key, entry, 0).map_err(failed(map_names::ANNOUNCED, "write"))?;
        self.written.insert(key, entry);
        Ok(())
    }

    fn remove(&mut self, key: &AnnouncedKey) -> Result<(), MapError> {
        absent_is_removed(self.announced.remove(key)).map_err(failed(map_names::ANNOUNCED, "remove from"))?;
        self.written.remove(key);
        // Counts that stay harm nobody, and go with the map.
        let _ = self.answers.remove(key);
        Ok(())
    }

    /// The programs count where there is room: without it only the counts are missing.
    fn make_room(&mut self, key: AnnouncedKey) -> Result<(), MapError> {
        const NOEXIST: u64 = 1;
        let zeros = nr_cpus().ok().and_then(|cpus| PerCpuValues::try_from(vec![Answers::default(); cpus]).ok());
        let Some(zeros) = zeros else { return Ok(()) };
        match self.answers.insert(key, zeros, NOEXIST) {
            Err(AyaMapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other.map_err(failed(map_names::ANSWERS, "write")),
        }
    }

    /// Tells peers' probes that this speaker stirs, and where it hears them.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stamp(&mut self, speaker: Speaker) -> Result<(), MapError> {
        self.speaker.set(0, speaker, 0).map_err(failed(map_names::SPEAKER, "write"))
    }

    /// The last stamp, perhaps an earlier process's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stamped(&self) -> Result<Speaker, MapError> {
        self.speaker.get(&0, 0).map_err(failed(map_names::SPEAKER, "read"))
    }

    /// What was done for an address on an interface since it was first announced there, or for [`PROBES`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn answers(&self, key: &AnnouncedKey) -> Result<Answers, MapError> {
        let sum = |all: Answers, one: &Answers| Answers {
            answers: all.answers + one.answers,
            handed_on: all.handed_on + one.handed_on,
        };
        match self.answers.get(key, 0) {
            Ok(values) => Ok(values.iter().fold(Answers::default(), sum)),
            Err(AyaMapError::KeyNotFound) => Ok(Answers::default()),
            Err(source) => Err(failed(map_names::ANSWERS, "read")(source)),
        }
    }
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").field("id", &self.id).field("written", &self.written).finish_non_exhaustive()
    }
}

/// The interfaces among these on which a program meets what comes in that reads the maps pinned below `bpffs`. The kernel
/// may let this wait for a while.
#[must_use]
pub fn attached<'a>(bpffs: &Path, interfaces: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    let pin = Pins::at(bpffs).speaker_maps().join(map_names::ANNOUNCED);
    let Ok(id) = MapInfo::from_pin(pin).map(|info| info.id()) else { return BTreeSet::new() };
    let reads = |program: &ProgramInfo| program.map_ids().ok().flatten().is_some_and(|ids| ids.contains(&id));
    let is_attached = |interface: &&str| {
        // A kernel that cannot tell (before 6.6) carries no program of ours.
        let attached = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
        attached.is_ok_and(|(_, programs)| programs.iter().any(reads))
    };
    interfaces.into_iter().filter(is_attached).map(str::to_owned).collect()
}

/// Opens one of the pinned maps.
fn open<T: TryFrom<Map, Error = AyaMapError>>(pins: &Pins, name: &'static str) -> Result<T, MapError> {
    let open = || T::try_from(Map::from_map_data(MapData::from_pin(pins.speaker_maps().join(name))?)?);
    open().map_err(failed(name, "open"))
}

fn absent_is_removed(result: Result<(), AyaMapError>) -> Result<(), AyaMapError> {
    match result {
        Err(AyaMapError::KeyNotFound) => Ok(()),
        Err(AyaMapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

fn failed(map: &'static str, operation: &'static str) -> impl FnOnce(AyaMapError) -> MapError {
    move |source| MapError { map, operation, source: Box::new(source) }
}
