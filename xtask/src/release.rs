//! `cargo xtask release`: the program as it is given away, with its list of parts and its checksum.
//!
//! Built from an export of the last commit, never from the working tree, and so that the bytes depend on nothing but that commit and the
//! compiler: no paths, no times. `--check` proves it by building again elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, bail, ensure};
use clap::Args;

mod sbom;

const PROGRAM: &str = "ouisync";
/// What separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\u{1f}";

#[derive(Args)]
pub(crate) struct Options {
    /// Where the program, `ouisync.cdx.json` and `SHA256SUMS` go
    #[arg(long, default_value = "target/dist-out")]
    out: PathBuf,
    /// Build twice, in directories of other names, and fail unless the programs are equal in every byte
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let first = Build::of_last_commit("first")?;
    if options.check {
        let second = Build::of_last_commit("the-second-under-a-longer-name")?;
        ensure!(
            fs::read(&first.program)? == fs::read(&second.program)?,
            "two builds of one commit differ: compare them with diffoscope after making them by hand with `git archive`"
        );
        eprintln!("two builds in two places are equal in every byte");
    }
    let out = &options.out;
    fs::create_dir_all(out).with_context(|| format!("making {}", out.display()))?;
    fs::copy(&first.program, out.join(PROGRAM)).context("copying the program")?;
    let parts = format!("{PROGRAM}.cdx.json");
    fs::write(out.join(&parts), sbom::describe(&first.source)?).context("writing the parts")?;
    let sums = Command::new("sha256sum")
        .args([PROGRAM, &parts])
        .current_dir(out)
        .output()
        .context("running sha256sum")?;
    ensure!(sums.status.success(), "sha256sum: {}", sums.status);
    fs::write(out.join("SHA256SUMS"), &sums.stdout).context("writing SHA256SUMS")?;
    eprint!("{}", String::from_utf8_lossy(&sums.stdout));
    eprintln!("in {}", out.display());
    Ok(())
}

/// One build in a directory of its own, which goes with it.
struct Build {
    source: PathBuf,
    program: PathBuf,
    _directory: tempfile::TempDir,
}

impl Build {
    fn of_last_commit(name: &str) -> anyhow::Result<Self> {
        // Gigabytes: not where temporary files may be kept in memory.
        fs::create_dir_all("target")?;
        let directory = tempfile::Builder::new()
            .prefix("release-")
            .tempdir_in("target")
            .context("making a directory")?;
        let place = fs::canonicalize(directory.path())?;
        let (source, target) = (place.join(name), place.join("target"));
        export(&source)?;
        eprintln!("building in {}", source.display());
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--locked", "--profile", "dist", "-p"])
            .arg("ouisync-cli")
            .current_dir(&source)
            .env_remove("RUSTFLAGS")
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_INCREMENTAL", "0")
            .env("SOURCE_DATE_EPOCH", "0")
            .env(
                "CARGO_ENCODED_RUSTFLAGS",
                remap(&source, &target)?.join(SEPARATOR),
            )
            .env(
                "CFLAGS",
                format!("-ffile-prefix-map={}=/build", place.display()),
            )
            .status()
            .context("running cargo")?;
        ensure!(status.success(), "cargo build: {status}");
        Ok(Self {
            program: target.join("dist").join(PROGRAM),
            source,
            _directory: directory,
        })
    }
}

/// Writes the last commit's files to `to`.
fn export(to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    let mut git = Command::new("git")
        .args(["archive", "HEAD"])
        .stdout(Stdio::piped())
        .spawn()
        .context("running git")?;
    let archive = git.stdout.take().context("git's output")?;
    let tar = Command::new("tar")
        .args(["-x", "-C"])
        .arg(to)
        .stdin(archive)
        .status()
        .context("running tar")?;
    let git = git.wait()?;
    ensure!(
        git.success() && tar.success(),
        "git archive: {git}, tar: {tar}"
    );
    Ok(())
}

/// Flags that replace every path of this machine in what the compiler writes.
fn remap(source: &Path, target: &Path) -> anyhow::Result<Vec<String>> {
    let registry = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".cargo"))
        });
    let Some(registry) = registry else {
        bail!("neither CARGO_HOME nor HOME is set");
    };
    Ok([
        (source, "/ouisync"),
        (target, "/target"),
        (&registry, "/cargo"),
    ]
    .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
    .to_vec())
}
