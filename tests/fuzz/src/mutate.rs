//! Changes of an input: bits, bytes, words of the target's language, pieces moved, doubled, cut out, taken from another input.

use crate::{random::Random, targets::Target};

/// Bytes at which parsers change their mind.
const ODD: [u8; 16] = [0, 1, 9, 10, 13, 32, 34, 37, 44, 47, 58, 59, 64, 127, 128, 255];

/// Changes the input a few times.
pub(crate) fn mutate(input: &mut Vec<u8>, other: &[u8], target: &Target, random: &mut Random) {
    for _ in 0..=random.below(4) {
        change(input, other, target.words, random);
        input.truncate(target.longest);
    }
}

fn change(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    let place = random.below(input.len() + 1);
    match random.below(9) {
        0..3 => replace(input, place, random),
        3 => input.insert(place, odd(random)),
        4 => insert(input, place, random.pick(words).unwrap_or_default()),
        5 => {
            let end = place + random.below(input.len() - place + 1).min(1 + random.below(64));
            input.drain(place..end);
        }
        6 => {
            let end = place + random.below(input.len() - place + 1);
            let copy = input.get(place..end).unwrap_or_default().repeat(1 + random.below(4));
            insert(input, random.below(input.len() + 1), &copy);
        }
        7 => {
            let piece = other.get(random.below(other.len() + 1)..).unwrap_or_default();
            insert(input, place, piece.get(..random.below(piece.len() + 1)).unwrap_or_default());
        }
        _ => input.truncate(place),
    }
}

/// One byte becomes another one: by a bit, by chance, or an odd one.
fn replace(input: &mut [u8], place: usize, random: &mut Random) {
    let Some(byte) = input.get_mut(place) else { return };
    *byte = match random.below(3) {
        0 => *byte ^ 1 << random.below(8),
        1 => random.byte(),
        _ => odd(random),
    };
}

fn odd(random: &mut Random) -> u8 {
    ODD.get(random.below(ODD.len())).copied().unwrap_or(0)
}

fn insert(input: &mut Vec<u8>, place: usize, piece: &[u8]) {
    input.splice(place..place, piece.iter().copied());
}
