//! Which crate may depend on which, inside and outside.

use cargo_metadata::{DependencyKind, Metadata};

/// Storeys of the house: a crate may depend on crates of lower storeys only.
const STOREYS: &[&[&str]] = &[
    &["ouisync-model"],
    &["ouisync-crypto"],
    &["ouisync-store", "ouisync-sync", "ouisync-net"],
    &["ouisync-engine"],
    &["ouisync-vfs"],
    &["ouisync-worktree", "ouisync-fuse", "ouisync-webdav"],
    &["ouisync-daemon", "ouisync-ffi"],
    &["ouisync-cli"],
];

/// Outside the storeys: data types that only these may know, and that know nobody.
const API: &str = "ouisync-api";
const API_USERS: &[&str] = &["ouisync-daemon", "ouisync-cli"];
/// The command line speaks to the daemon through the API and knows nothing below.
const CLI: (&str, &[&str]) = ("ouisync-cli", &[API, "ouisync-daemon"]);
/// Never part of the product.
const TESTKIT: &str = "ouisync-testkit";

/// Outside crates (a trailing `*` stands for any ending) that only the named crates may depend on.
const RESERVED: &[(&str, &[&str])] = &[
    ("ring", &["ouisync-crypto"]),
    ("ed25519-dalek", &["ouisync-crypto"]),
    ("x25519-dalek", &["ouisync-crypto"]),
    ("hpke", &["ouisync-crypto"]),
    ("argon2", &["ouisync-crypto"]),
    ("aes*", &["ouisync-crypto"]),
    ("chacha20*", &["ouisync-crypto"]),
    ("iroh*", &["ouisync-net"]),
    ("noq*", &["ouisync-net"]),
    ("swarm-discovery", &["ouisync-net"]),
    ("fjall", &["ouisync-store"]),
    ("notify*", &["ouisync-worktree"]),
    ("axum", &["ouisync-daemon"]),
    ("anyhow", &["ouisync-cli", "xtask"]),
];

/// Crates without input and output must not be able to do any.
const PURE: (&[&str], &[&str]) = (
    &["ouisync-model", "ouisync-crypto", "ouisync-sync"],
    &["tokio", "rustix", "tempfile"],
);

/// Findings about the dependencies of the workspace's crates.
pub(super) fn check(metadata: &Metadata) -> Vec<String> {
    let mut findings = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        for dependency in &package.dependencies {
            if dependency.kind == DependencyKind::Development {
                continue;
            }
            if let Some(reason) = objection(name, &dependency.name) {
                findings.push(format!("{name}: depends on {}: {reason}", dependency.name));
            }
        }
    }
    findings
}

fn storey(name: &str) -> Option<usize> {
    STOREYS.iter().position(|crates| crates.contains(&name))
}

/// Why `name` must not depend on `on`, if so.
fn objection(name: &str, on: &str) -> Option<&'static str> {
    for (pattern, allowed) in RESERVED {
        let matches = match pattern.strip_suffix('*') {
            Some(beginning) => on.starts_with(beginning),
            None => on == *pattern,
        };
        if matches && !allowed.contains(&name) {
            return Some("that crate is reserved to another");
        }
    }
    if PURE.0.contains(&name) && PURE.1.contains(&on) {
        return Some("this crate does no input or output");
    }
    if !on.starts_with("ouisync-") || name == TESTKIT {
        return None;
    }
    if on == TESTKIT {
        return Some("tests' crates are development dependencies only");
    }
    if name == CLI.0 && !CLI.1.contains(&on) {
        return Some("the command line knows the API and the daemon only");
    }
    if on == API {
        return (!API_USERS.contains(&name)).then_some("the API is for the daemon and its clients");
    }
    match (storey(name), storey(on)) {
        (Some(user), Some(used)) if used < user => None,
        (None, _) => Some("this crate has no place in the house (xtask/src/tidy/arrows.rs)"),
        (_, None) => Some("that crate has no place in the house (xtask/src/tidy/arrows.rs)"),
        _ => Some("arrows go downwards only"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrows_go_downwards() {
        assert_eq!(objection("ouisync-engine", "ouisync-model"), None);
        assert_eq!(objection("ouisync-daemon", "ouisync-api"), None);
        assert_eq!(objection("ouisync-cli", "ouisync-daemon"), None);
        for (name, on) in [
            ("ouisync-model", "ouisync-crypto"),
            ("ouisync-store", "ouisync-sync"),
            ("ouisync-engine", "ouisync-api"),
            ("ouisync-engine", "ouisync-testkit"),
            ("ouisync-cli", "ouisync-engine"),
            ("ouisync-api", "ouisync-engine"),
            ("ouisync-new", "ouisync-model"),
        ] {
            assert!(objection(name, on).is_some(), "{name} -> {on}");
        }
    }

    #[test]
    fn reserved_crates_stay_with_their_owner() {
        assert_eq!(objection("ouisync-net", "iroh"), None);
        assert_eq!(objection("ouisync-crypto", "ring"), None);
        for (name, on) in [
            ("ouisync-engine", "iroh"),
            ("ouisync-daemon", "iroh-relay"),
            ("ouisync-store", "ring"),
            ("ouisync-engine", "anyhow"),
            ("ouisync-sync", "tokio"),
        ] {
            assert!(objection(name, on).is_some(), "{name} -> {on}");
        }
    }
}
