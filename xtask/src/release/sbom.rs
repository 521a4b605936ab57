//! The list of the program's parts in CycloneDX 1.5: every crate that is compiled into it on this platform, with version, licence and source.
//!
//! It has no serial number and no time, so that one commit gives one list.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Node, Package, PackageId};
use cyclonedx_bom::{
    external_models::{normalized_string::NormalizedString, uri::Purl},
    models::{
        bom::Bom,
        component::{Classification, Component, Components},
        dependency::{Dependencies, Dependency},
        license::{LicenseChoice, Licenses},
        metadata::Metadata as BomMetadata,
    },
};

const ROOT: &str = "ouisync-cli";

/// The list as JSON, for the workspace at `source`.
pub(super) fn describe(source: &Path) -> anyhow::Result<Vec<u8>> {
    let host = host()?;
    let metadata = MetadataCommand::new()
        .current_dir(source)
        .other_options(["--locked".to_owned(), "--filter-platform".to_owned(), host])
        .exec()
        .context("cargo metadata")?;
    let mut json = Vec::new();
    bom(&metadata)?
        .output_as_json_v1_5(&mut json)
        .context("writing the list of parts")?;
    json.push(b'\n');
    Ok(json)
}

/// The compiler's own platform, as `rustc -vV` names it.
fn host() -> anyhow::Result<String> {
    let output = std::process::Command::new("rustc")
        .arg("-vV")
        .output()
        .context("running rustc")?;
    let text = String::from_utf8(output.stdout).context("rustc's answer")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

fn bom(metadata: &Metadata) -> anyhow::Result<Bom> {
    let packages: BTreeMap<&PackageId, &Package> = metadata
        .packages
        .iter()
        .map(|package| (&package.id, package))
        .collect();
    let resolve = metadata.resolve.as_ref().context("nothing is resolved")?;
    let nodes: BTreeMap<&PackageId, &Node> =
        resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let root = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == ROOT)
        .context("the program's package is missing")?;

    let mut reached = BTreeSet::from([&root.id]);
    let mut open = vec![&root.id];
    let mut dependencies = Vec::new();
    while let Some(id) = open.pop() {
        let on = compiled_in(nodes[id]);
        open.extend(on.iter().copied().filter(|id| reached.insert(id)));
        dependencies.push(Dependency {
            dependency_ref: reference(packages[id]),
            dependencies: on.iter().map(|id| reference(packages[id])).collect(),
        });
    }
    dependencies.sort_by(|a, b| a.dependency_ref.cmp(&b.dependency_ref));
    let mut components = Vec::new();
    for id in reached.iter().filter(|id| **id != &root.id) {
        components.push(component(packages[*id], Classification::Library)?);
    }
    components.sort_by(|a, b| a.bom_ref.cmp(&b.bom_ref));
    Ok(Bom {
        serial_number: None,
        metadata: Some(BomMetadata {
            component: Some(component(root, Classification::Application)?),
            ..BomMetadata::default()
        }),
        components: Some(Components(components)),
        dependencies: Some(Dependencies(dependencies)),
        ..Bom::default()
    })
}

/// What a crate needs at run time, or to be built: a build script's parts can put anything into the program.
fn compiled_in(node: &Node) -> Vec<&PackageId> {
    let wanted = |kind: &DependencyKind| *kind != DependencyKind::Development;
    node.deps
        .iter()
        .filter(|dependency| dependency.dep_kinds.iter().any(|info| wanted(&info.kind)))
        .map(|dependency| &dependency.pkg)
        .collect()
}

fn reference(package: &Package) -> String {
    format!("{}@{}", package.name, package.version)
}

fn component(package: &Package, kind: Classification) -> anyhow::Result<Component> {
    let version = package.version.to_string();
    let mut component = Component::new(
        kind,
        package.name.as_str(),
        &version,
        Some(reference(package)),
    );
    component.licenses = package
        .license
        .as_ref()
        // Old packages separate alternatives by a slash, which SPDX doesn't know.
        .map(|licence| {
            Licenses(vec![LicenseChoice::expression(
                &licence.replace('/', " OR "),
            )])
        });
    component.description = package.description.as_deref().map(NormalizedString::new);
    if package.source.is_some() {
        component.purl = Some(Purl::new("cargo", package.name.as_str(), &version)?);
    }
    Ok(component)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_what_is_compiled_in_and_nothing_else() {
        let workspace = crate::workspace();
        let list = describe(&workspace).unwrap();
        assert_eq!(list, describe(&workspace).unwrap());
        let list: serde_json::Value = serde_json::from_slice(&list).unwrap();
        assert_eq!(list["bomFormat"], "CycloneDX");
        assert_eq!(list["metadata"]["component"]["name"], ROOT);
        let parts = list["components"].as_array().unwrap();
        let part = |name: &str| parts.iter().find(|part| part["name"] == name);
        let blake3 = part("blake3").unwrap();
        let version = blake3["version"].as_str().unwrap();
        assert_eq!(blake3["purl"], format!("pkg:cargo/blake3@{version}"));
        assert!(blake3["licenses"][0]["expression"].is_string(), "{blake3}");
        assert!(part("ouisync-store").is_some());
        // Only tests need it.
        assert!(part("proptest").is_none());
    }
}
