//! The benchmark's harness: it restores a packet before each run of the program under test, and is a second object that
//! no daemon carries.
//!
//! BPF_PROG_TEST_RUN with a repeat count hands a program its own last output: a translated packet would be translated
//! again. So `restore` runs in its place, writes the headers anew with the address and port of the next flow, and calls
//! the program as a tail call. `null` ends at once and costs what the harness itself costs; `lookup` is the yardstick, so
//! many lookups of a conntrack key in a table of the same kind.

#![no_std]
#![no_main]

mod maps;

use aya_ebpf::{macros::classifier, programs::TcContext};
use roadstead_abi::{
    Addr, Be16, CtKey,
    harness::{HEADER, LOOKUPS, Round},
};

use crate::maps::{PROGRAMS, ROUND, TABLE};

/// Tells the user side that a slot is empty or the setting is missing; no program under test returns it.
const FAILED: i32 = 99;
const PASS: i32 = -1;
const IPPROTO_TCP: u8 = 6;

/// Where IPv4 addresses and ports stand in an Ethernet frame without options.
const SOURCE: (usize, usize) = (26, 34);
const DESTINATION: (usize, usize) = (30, 36);

/// Restores the packet and hands it on.
#[classifier]
pub fn restore(ctx: TcContext) -> i32 {
    let Some(round) = next() else { return FAILED };
    if write(&ctx, round).is_none() {
        return FAILED;
    }
    // SAFETY: the map holds classifiers alone, as this program is one; a call that succeeds does not return.
    let _ = unsafe { PROGRAMS.tail_call(&ctx, round.slot) };
    FAILED
}

/// What remains where the program under test does nothing.
#[classifier]
pub fn null(_: TcContext) -> i32 {
    PASS
}

/// Lookups of keys of the same flows that the packets have, their making included.
#[classifier]
pub fn lookup(_: TcContext) -> i32 {
    let Some(pointer) = ROUND.get_ptr(0) else { return FAILED };
    // SAFETY: the element lives as long as the map; nobody writes it while a measurement runs but this CPU.
    let round = unsafe { &*pointer };
    let mut key =
        CtKey { proto: IPPROTO_TCP, dst: Addr::v4([198, 51, 100, 10]), dport: Be16::new(80), ..CtKey::default() };
    let first = round.counter.wrapping_mul(LOOKUPS as u64);
    let (mut number, mut seen) = (0_u64, 0_u32);
    while number < LOOKUPS as u64 {
        let (address, port) = round.flow(first.wrapping_add(number));
        key.src = Addr::v4(address.to_be_bytes());
        key.sport = Be16::new(port);
        // SAFETY: only a word is read, while nobody writes.
        if let Some(entry) = unsafe { TABLE.get(&key) } {
            seen = seen.wrapping_add(entry.flags).wrapping_add(1);
        }
        number += 1;
    }
    if seen < LOOKUPS { FAILED } else { PASS }
}

/// Counts the packet.
#[inline(always)]
fn next() -> Option<&'static Round> {
    let pointer = ROUND.get_ptr_mut(0)?;
    // SAFETY: one measurement runs at a time, on one CPU; the user side writes before and after it.
    let round = unsafe { &mut *pointer };
    round.counter = round.counter.wrapping_add(1);
    Some(round)
}

/// Writes the headers and what makes the packet that of its flow. Checksums stay as they are: what is under test updates
/// them by the difference.
#[inline(always)]
fn write(ctx: &TcContext, round: &Round) -> Option<()> {
    let start = ctx.data();
    if start + HEADER > ctx.data_end() {
        return None;
    }
    let words = round.header.as_ptr().cast::<u64>();
    let packet = start as *mut u64;
    let mut word = 0;
    while word < HEADER / 8 {
        // SAFETY: both hold HEADER bytes, the packet by the check above, the setting by its type, aligned to eight.
        let value = unsafe { words.add(word).read() };
        // SAFETY: as above; the packet's alignment is not known.
        unsafe { packet.add(word).write_unaligned(value) };
        word += 1;
    }
    let (address, port) = round.flow(round.counter);
    let (address_at, port_at) = if round.side == 0 { SOURCE } else { DESTINATION };
    // SAFETY: both offsets lie within HEADER.
    unsafe { ((start + address_at) as *mut [u8; 4]).write(address.to_be_bytes()) };
    // SAFETY: as above.
    unsafe { ((start + port_at) as *mut [u8; 2]).write(port.to_be_bytes()) };
    Some(())
}

/// Tail calls are for GPL-compatible programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // No path panics: indexing, division and formatting are absent. The loader would refuse the loop.
    loop {}
}
