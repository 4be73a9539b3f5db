//! What is in the memory of a process, as a core dump that the kernel refuses to write would show it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::canary::{Canary, Found};

/// So much is read at once.
const PIECE: usize = 1 << 20;

/// What a search of a memory came to.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What was found, by the name of the mapping.
    pub(crate) found: BTreeMap<String, Found>,
    /// How many bytes have been searched.
    pub(crate) bytes: usize,
}

impl Memory {
    /// How many copies there are of a secret, in whichever form.
    pub(crate) fn copies_of(&self, name: &str) -> usize {
        let of_it = |found: &Found| -> usize {
            let named = found.iter().filter(|(form, _)| form.starts_with(&format!("{name} (")));
            named.map(|(_, count)| count).sum()
        };
        self.found.values().map(of_it).sum()
    }
}

/// Searches everything that a process has mapped and that can be read.
///
/// # Errors
/// When this process may not look into that one.
pub(crate) fn search(process: u32, canary: &Canary) -> io::Result<Memory> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps"))?;
    let file = File::open(format!("/proc/{process}/mem"))?;
    let mut memory = Memory::default();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let name = words.nth(3).unwrap_or("without a name");
        // The kernel's own pages can't be read this way.
        if !rights.starts_with('r') || name.starts_with("[v") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let address = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let mut found = Found::new();
        memory.bytes += pieces(&file, address(from)..address(to), canary, &mut found);
        if !found.is_empty() {
            let total = memory.found.entry(name.to_owned()).or_default();
            found.into_iter().for_each(|(form, count)| *total.entry(form).or_default() += count);
        }
    }
    Ok(memory)
}

/// Searches one mapping; gives how much of it could be read. Consecutive pieces overlap by less than the longest form,
/// so that none is missed where they meet.
fn pieces(file: &File, range: std::ops::Range<u64>, canary: &Canary, found: &mut Found) -> usize {
    let mut bytes = vec![0; PIECE];
    let (mut at, mut read) = (range.start, 0);
    while at < range.end {
        let wanted = PIECE.min(usize::try_from(range.end - at).unwrap());
        // A page that went away meanwhile, or lies beyond the end of a mapped file.
        let Ok(length @ 1..) = file.read_at(&mut bytes[..wanted], at) else { break };
        canary
            .find(&bytes[..length])
            .into_iter()
            .for_each(|(form, count)| *found.entry(form).or_default() += count);
        read += length;
        let step = if length == PIECE { length - (canary.longest - 1) } else { length };
        at += u64::try_from(step).unwrap();
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A form that lies across the edge of two pieces, wherever it does.
    #[test]
    fn no_place_is_missed() {
        let secret = "Pw0aB3dE5gH7jK9/+mN1pQ2rS4tU6vW=";
        let canary = Canary::of([("planted", secret)]);
        let planted = tempfile::NamedTempFile::new().unwrap();
        for back in 0..=secret.len() {
            let mut bytes = vec![0_u8; PIECE + 4096];
            bytes[PIECE - back..][..secret.len()].copy_from_slice(secret.as_bytes());
            std::fs::write(planted.path(), &bytes).unwrap();
            let mut found = Found::new();
            let length = bytes.len().try_into().unwrap();
            assert!(pieces(planted.as_file(), 0..length, &canary, &mut found) >= bytes.len());
            assert!(found.contains_key("planted (as it is)"), "{back}: {found:?}");
        }
    }
}
