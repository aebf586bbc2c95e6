//! Where a [`Drop`] becomes a counter and a verdict.

use roadstead_abi::{Addr, Be16, CtKey, DropKey, DropReason};

use crate::{counters, maps::DROPS};

/// The one error type of the programs: why, and of which Service.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Drop {
    /// A [`DropReason`] as a number.
    reason: u32,
    /// Id of the Service's port, 0 where none is known.
    pub(crate) service: u32,
}

impl From<DropReason> for Drop {
    #[inline(always)]
    fn from(reason: DropReason) -> Self {
        Self::of(reason, 0)
    }
}

impl Drop {
    #[inline(always)]
    pub(crate) fn of(reason: DropReason, service: u32) -> Self {
        Self { reason: reason as u32, service }
    }

    /// Of no Service, by the reason's number.
    #[inline(always)]
    pub(crate) fn numbered(reason: u32) -> Self {
        Self { reason, service: 0 }
    }

    /// The same after its way through the scratch element: the verifier then walks what follows once, not once for every
    /// place that a packet may be refused at (as `packet::Parcel`).
    #[inline(always)]
    pub(crate) fn by_way_of(self, room: &mut Self) -> Self {
        // SAFETY: the reference is valid; volatile, so that the compiler remembers nothing of it.
        unsafe { core::ptr::from_mut(room).write_volatile(self) };
        // SAFETY: as above.
        unsafe { core::ptr::from_ref(room).read_volatile() }
    }

    /// Whether it has this reason.
    #[inline(always)]
    pub(crate) fn is(self, reason: DropReason) -> bool {
        self.reason == reason as u32
    }

    /// [`DropReason::is_rejected`].
    #[inline(always)]
    pub(crate) fn is_rejected(self) -> bool {
        self.is(DropReason::NoEndpoints) || self.is(DropReason::UnknownPort)
    }

    /// Moves the counter. A full map counts under service 0, where that is there.
    #[inline(always)]
    pub(crate) fn count(self) {
        let key = DropKey { reason: self.reason, service: self.service };
        if let Some(count) = DROPS.get_ptr_mut(key) {
            // SAFETY: the map returned the pointer, and the element is this CPU's own. A socket program may be interrupted
            // by a packet of its CPU between load and store; a count lost that way is a count, not a verdict.
            unsafe { *count += 1 };
            return;
        }
        if DROPS.insert(key, 1, 0).is_err() && self.service != 0 {
            Self { reason: self.reason, service: 0 }.count_unnamed();
        }
    }

    /// Tells whoever traces.
    #[inline(always)]
    pub(crate) fn tell(self, key: &CtKey, hook: u16, ifindex: u32) {
        counters::tell(counters::Telling {
            key,
            backend: &Addr::UNSPECIFIED,
            backend_port: Be16(0),
            hook,
            reason: self.reason,
            service: self.service,
            ifindex,
        });
    }

    #[inline(always)]
    fn count_unnamed(self) {
        let key = DropKey { reason: self.reason, service: 0 };
        if let Some(count) = DROPS.get_ptr_mut(key) {
            // SAFETY: as in `count`.
            unsafe { *count += 1 };
        }
    }
}
