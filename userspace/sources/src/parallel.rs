//! Reading on all processors: the first look at a large directory is most of what a start takes.

use std::{
    panic,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Most threads at once; beyond these the disk and the allocator are the bound.
const THREADS: usize = 8;

/// Applies the function to every item, `chunk` items at a time on whichever thread is free; the results in order of the
/// items. Less than two chunks are done here.
pub(crate) fn map<T: Sync, R: Send>(items: &[T], chunk: usize, function: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let chunks = items.len().div_ceil(chunk.max(1));
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS)).min(chunks);
    if threads < 2 {
        return items.iter().map(function).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = items.chunks(chunk).nth(index) else { return done };
            done.push((index, part.iter().map(&function).collect::<Vec<R>>()));
        }
    };
    let mut done = thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().name("parse".to_owned()).spawn_scoped(scope, work).ok();
        // Where no thread is to be had, this one does all.
        let others: Vec<_> = (1..threads).filter_map(spawn).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_of_the_items() {
        for (count, chunk) in [(0, 4), (1, 4), (4, 4), (5, 4), (1000, 7), (3, 1)] {
            let items: Vec<usize> = (0..count).collect();
            let expected: Vec<_> = items.iter().map(|item| item * 2).collect();
            assert_eq!(map(&items, chunk, |item| item * 2), expected, "{count} by {chunk}");
        }
    }
}
