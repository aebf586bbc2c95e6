//! The harness, embedded in this program alone.

/// An ELF image must be aligned as its headers are.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

const LEN: usize = include_bytes!(concat!(env!("OUT_DIR"), "/harness.o")).len();

static OBJECT: Aligned<LEN> = Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/harness.o")));

/// The ELF object of the harness.
pub(crate) fn bytes() -> &'static [u8] {
    &OBJECT.0
}
