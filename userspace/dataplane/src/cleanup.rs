//! Taking everything away: `roadstead cleanup`, and what of it the kernel still has.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use aya::{
    maps::{MapInfo, loaded_maps},
    programs::loaded_programs,
};

use crate::pins::{PinsError, remove_versions};

/// Unpins all links and maps of all versions below `--bpffs`, and nothing that others have pinned there. Links and maps live by their pins alone, so programs are
/// detached and flows forgotten at once; tcx leaves no qdisc, and the programs own no address.
///
/// # Errors
/// When something cannot be removed.
pub fn run(bpffs: &Path) -> Result<(), PinsError> {
    remove_versions(bpffs)
}

/// Programs and maps in the kernel by id, with the names that it keeps of them (15 bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Programs.
    pub programs: BTreeMap<u32, String>,
    /// Maps.
    pub maps: BTreeMap<u32, String>,
}

impl Loaded {
    /// The maps that are pinned below `--bpffs`, the programs that use one of them, and the other maps of those.
    #[must_use]
    pub fn below(bpffs: &Path) -> Self {
        let pinned: BTreeSet<u32> = pinned_maps(bpffs).iter().map(MapInfo::id).collect();
        let (mut programs, mut used) = (BTreeMap::new(), pinned.clone());
        // A program that goes while it is looked at is not there.
        for program in loaded_programs().flatten() {
            let maps = program.map_ids().ok().flatten().unwrap_or_default();
            if maps.iter().any(|map| pinned.contains(map)) {
                programs.insert(program.id(), program.name_as_str().unwrap_or_default().to_owned());
                used.extend(maps);
            }
        }
        Self { programs, maps: maps_with(&used) }
    }

    /// Those of them that the kernel still has. It gives a freed id to nothing else for a long time.
    #[must_use]
    pub fn left(&self) -> Self {
        let live: BTreeSet<u32> = loaded_programs().flatten().map(|program| program.id()).collect();
        let programs = self.programs.clone().into_iter().filter(|(id, _)| live.contains(id)).collect();
        Self { programs, maps: maps_with(&self.maps.keys().copied().collect()) }
    }
}

fn maps_with(ids: &BTreeSet<u32>) -> BTreeMap<u32, String> {
    let maps = loaded_maps().flatten().filter(|map| ids.contains(&map.id()));
    maps.map(|map| (map.id(), map.name_as_str().unwrap_or_default().to_owned())).collect()
}

fn pinned_maps(bpffs: &Path) -> Vec<MapInfo> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let versions = entries(bpffs).map(|version| version.join("maps"));
    versions.flat_map(|maps| entries(&maps).collect::<Vec<_>>()).filter_map(|pin| MapInfo::from_pin(pin).ok()).collect()
}
