//! Which packs are chosen, and how often a byte is copied in its life.

use rand::{RngExt, SeedableRng};

use super::*;

fn candidate(number: u32, exponent: u8, kept: u64) -> Candidate {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    Candidate {
        pack: PackId::from_bytes(id),
        size: PackSize::from_exponent(exponent).unwrap(),
        kept,
    }
}

const MIB: u64 = 1 << 20;

#[test]
fn small_packs_are_merged_once_they_make_a_much_larger_one() {
    let terms = RepackTerms::default();
    let packs = |count| -> Vec<_> { (0..count).map(|n| candidate(n, 0, 10_000)).collect() };
    assert_eq!(choose(&packs(52), &terms, true), []);
    assert_eq!(choose(&packs(53), &terms, true).len(), 53);
    // One that is larger waits for as many again, but keeps nobody waiting.
    let mut with_larger = packs(53);
    with_larger.push(candidate(99, 3, 400_000));
    assert_eq!(choose(&with_larger, &terms, true).len(), 53);
    with_larger.extend((100..110).map(|n| candidate(n, 3, 400_000)));
    assert_eq!(choose(&with_larger, &terms, true).len(), 64);
    // No search copies more than so much; the smallest go first.
    let terms = RepackTerms { most: MIB, ..terms };
    let some = choose(&with_larger, &terms, true);
    assert_eq!(some.len(), 54);
    // Large ones are left alone, however many.
    let large: Vec<_> = (0..100).map(|n| candidate(n, 6, 3 * MIB)).collect();
    assert_eq!(choose(&large, &terms, true), []);
}

#[test]
fn mostly_unused_packs_are_rewritten_once_that_frees_enough() {
    let terms = RepackTerms::default();
    let mut packs = vec![candidate(1, 8, 5 * MIB), candidate(2, 8, 6 * MIB)];
    assert_eq!(choose(&packs, &terms, true), []);
    packs.push(candidate(3, 7, 2 * MIB));
    let chosen = choose(&packs, &terms, true);
    assert_eq!(chosen, [packs[2], packs[0]]);
    // Where history stays for ever nothing would be freed.
    assert_eq!(choose(&packs, &terms, false), []);
}

/// The class of a pack with so many bytes.
fn class(bytes: u64) -> u8 {
    let frames = bytes
        .div_ceil(PackSize::FRAME - 16)
        .max(1)
        .next_power_of_two();
    PackSize::for_frames(frames).unwrap().exponent()
}

/// Years of saves, after each of which what is due is rewritten.
#[test]
fn a_byte_is_copied_a_few_times_however_long_it_lives() {
    for (seed, growth, replaced) in [(1, 8, 0), (2, 8, 50), (3, 8, 95), (4, 4, 30)] {
        let mut rng = StdRng::seed_from_u64(seed);
        let terms = RepackTerms {
            growth,
            ..RepackTerms::default()
        };
        // Files in a pack: their lengths.
        let mut packs: Vec<(Candidate, Vec<u64>)> = Vec::new();
        let (mut written, mut copied, mut most) = (0, 0, 0);
        for number in 0..20_000 {
            let length = rng.random_range(5_000..60_000);
            if rng.random_range(0..100) < replaced && !packs.is_empty() {
                let at = rng.random_range(0..packs.len());
                let (pack, files) = &mut packs[at];
                let file = rng.random_range(0..files.len());
                pack.kept -= files.swap_remove(file);
                if files.is_empty() {
                    packs.swap_remove(at);
                }
            }
            written += length;
            packs.push((candidate(number, class(length), length), vec![length]));
            if number % 50 != 0 {
                continue;
            }
            let candidates: Vec<Candidate> = packs.iter().map(|(pack, _)| *pack).collect();
            let chosen = choose(&candidates, &terms, true);
            let mut files: Vec<u64> = Vec::new();
            packs.retain(|(pack, held)| {
                let goes = chosen.contains(pack);
                if goes {
                    files.extend(held);
                }
                !goes
            });
            copied += files.iter().sum::<u64>();
            for (part, files) in files.chunks(400).enumerate() {
                let kept = files.iter().sum();
                let number = 1_000_000 + number * 100 + part as u32;
                packs.push((candidate(number, class(kept), kept), files.to_vec()));
            }
            most = most.max(packs.len());
        }
        assert!(
            copied <= 3 * written,
            "{copied} bytes were copied for {written} written"
        );
        assert!(most < 800, "{most} packs");
    }
}
