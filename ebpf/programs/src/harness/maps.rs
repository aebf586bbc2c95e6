//! The harness's maps. The benchmark writes them, the harness reads them.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, ProgramArray},
};
use roadstead_abi::{CtEntry, CtKey, harness};

/// The programs under test.
#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(16, 0);

/// The setting, one element; the harness counts in it.
#[map]
pub(crate) static ROUND: Array<harness::Round> = Array::with_max_entries(1, 0);

/// The yardstick: a table of the kind and size of the conntrack table.
#[map]
pub(crate) static TABLE: HashMap<CtKey, CtEntry> = HashMap::with_max_entries(harness::TABLE, 0);
