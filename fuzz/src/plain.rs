//! `plain TARGET SECONDS [FILE]...`: runs a target without libFuzzer and with any compiler: over its seeds, its corpus, the given
//! files, and then over mutations of all of them. What makes it panic is left in `artifacts/TARGET`.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};

/// Longest input that mutation makes.
const LONGEST: usize = 8 << 10;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    if name == "seeds" {
        return write_seeds(&arguments.next().unwrap_or_default());
    }
    let seconds = arguments.next().and_then(|text| text.parse().ok());
    let target = ouisync_fuzz::TARGETS
        .iter()
        .find(|target| target.name == name);
    let (Some(target), Some(seconds)) = (target, seconds) else {
        for target in ouisync_fuzz::TARGETS {
            println!("{}", target.name);
        }
        return if name == "list" {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(2)
        };
    };
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut inputs = (target.seeds)();
    let given: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let kept = fs::read_dir(top.join("corpus").join(&name))
        .into_iter()
        .flatten();
    let kept = kept.filter_map(|entry| Some(entry.ok()?.path()));
    inputs.extend(kept.chain(given).filter_map(|path| fs::read(path).ok()));
    inputs.push(Vec::new());
    let mut random = SmallRng::seed_from_u64(rand::random());
    let (begun, limit) = (Instant::now(), Duration::from_secs(seconds));
    let mut runs = 0_u64;
    let mut next = 0;
    while next < inputs.len() || begun.elapsed() < limit {
        let input = match inputs.get(next) {
            Some(input) => input.clone(),
            None => mutated(&inputs, &mut random),
        };
        next = (next + 1).min(inputs.len());
        runs += 1;
        if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
            let directory = top.join("artifacts").join(&name);
            let file = directory.join(format!("case-{:016x}", random.next_u64()));
            if let Err(error) =
                fs::create_dir_all(&directory).and_then(|()| fs::write(&file, &input))
            {
                eprintln!("{}: {error}", file.display());
            }
            eprintln!("{name}: found something, kept in {}", file.display());
            return ExitCode::FAILURE;
        }
    }
    println!("{name}: {runs} runs, nothing found");
    ExitCode::SUCCESS
}

/// Puts a target's seeds into its corpus, for libFuzzer.
fn write_seeds(name: &str) -> ExitCode {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name);
    let Some(target) = ouisync_fuzz::TARGETS
        .iter()
        .find(|target| target.name == name)
    else {
        return ExitCode::from(2);
    };
    let seeds = (target.seeds)().into_iter().enumerate();
    let written = fs::create_dir_all(&directory).and_then(|()| {
        seeds
            .into_iter()
            .try_for_each(|(index, seed)| fs::write(directory.join(format!("seed-{index}")), seed))
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

fn mutated(inputs: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let pick = |random: &mut SmallRng| &inputs[random.random_range(0..inputs.len())];
    let mut input = pick(random).clone();
    for _ in 0..1 << random.random_range(0..5) {
        let at = random.random_range(0..=input.len());
        match random.random_range(0..7) {
            0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            1 if at < input.len() => input[at] = random.random(),
            2 if at < input.len() => {
                input[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)]
            }
            3 => input.insert(at, random.random()),
            4 => {
                let end = input.len().min(at + random.random_range(0..16));
                input.drain(at..end);
            }
            5 => {
                let other = pick(random);
                let from = random.random_range(0..=other.len());
                let to = other.len().min(from + random.random_range(0..64));
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let length = random.random_range(0..32);
                input.extend((0..length).map(|_| random.random::<u8>()));
            }
        }
    }
    input.truncate(LONGEST);
    input
}
