//! The benchmark's harness: it restores a packet before each run of the program under test, and is a second object that
//! no daemon carries.
//!
//! BPF_PROG_TEST_RUN with a repeat count hands a program its own last output: a translated packet would be translated
//! again. So `restore` runs in its place, writes the headers anew with the address and port of the next flow, and calls
//! the program as a tail call. `null` ends at once and costs what the harness itself costs; `lookup_once` and `lookup_row`
//! are the yardsticks: lookups of a conntrack key in a table of the same kind.

#![no_std]
#![no_main]

mod maps;

use aya_ebpf::{macros::classifier, programs::TcContext};
use roadstead_abi::{
    Addr, Be16, CtKey,
    harness::{self, HEADER, LOOKUPS, Round},
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

/// One lookup of the key of the packet's flow, its making included: what a program pays that does nothing else.
#[classifier]
pub fn lookup_once(_: TcContext) -> i32 {
    let Some(round) = round() else { return FAILED };
    if find(round, round.counter) == 0 { FAILED } else { PASS }
}

/// Lookups one after the other: the processor overlaps them, so that each costs less than a lone one.
#[classifier]
pub fn lookup_row(_: TcContext) -> i32 {
    let Some(round) = round() else { return FAILED };
    let first = round.counter.wrapping_mul(LOOKUPS as u64);
    let (mut number, mut found) = (0_u32, 0_u32);
    while number < LOOKUPS {
        found = found.wrapping_add(find(round, first.wrapping_add(number as u64)));
        number += 1;
    }
    if found < LOOKUPS { FAILED } else { PASS }
}

/// Looks the key of a flow up: 1 where it is there, and what its entry's flags are, which are 0. A sum of words that the
/// verifier knows nothing of keeps it from walking every outcome of every lookup.
#[inline(always)]
fn find(round: &Round, number: u64) -> u32 {
    let (address, port) = round.flow(number);
    let key = CtKey {
        src: Addr::v4(address.to_be_bytes()),
        dst: Addr::v4([198, 51, 100, 10]),
        sport: Be16::new(port),
        dport: Be16::new(80),
        proto: IPPROTO_TCP,
        reserved: [0; 3],
    };
    // SAFETY: only a word is read, while nobody writes.
    unsafe { TABLE.get(&key) }.map_or(0, |entry| entry.flags.wrapping_add(1))
}

#[inline(always)]
fn round() -> Option<&'static Round> {
    let pointer = ROUND.get_ptr(0)?;
    // SAFETY: the element lives as long as the map; nobody but this CPU writes it while a measurement runs.
    Some(unsafe { &*pointer })
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
    if round.side & harness::SOURCE != 0 {
        // SAFETY: SOURCE lies within HEADER.
        unsafe { set(start, SOURCE, address, port) };
    }
    if round.side & harness::DESTINATION != 0 {
        // SAFETY: DESTINATION lies within HEADER.
        unsafe { set(start, DESTINATION, address.wrapping_add(harness::APART), port) };
    }
    Some(())
}

/// Writes an address and a port.
///
/// # Safety
/// Both offsets lie within what was checked.
#[inline(always)]
unsafe fn set(start: usize, at: (usize, usize), address: u32, port: u16) {
    // SAFETY: as the caller promises.
    unsafe { ((start + at.0) as *mut [u8; 4]).write(address.to_be_bytes()) };
    // SAFETY: as above.
    unsafe { ((start + at.1) as *mut [u8; 2]).write(port.to_be_bytes()) };
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
