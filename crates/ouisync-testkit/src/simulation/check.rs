//! What must be true of a world in which all has been well for a while.

use std::path::Path;

use ouisync_engine::{engine::CheckProgress, status::Role};

use ouisync_model::operation::Value;

use super::{
    user::{MARK, Written, read, walk},
    world::{World, text},
};

/// Nobody watches a check.
pub(in crate::simulation) struct Silent;

impl CheckProgress for Silent {
    fn progress(&mut self, _done: u64, _total: u64) -> bool {
        true
    }
}

/// Why the members are not of one mind yet.
pub(super) fn apart(world: &mut World<'_>) -> Result<Option<String>, String> {
    let folder = world.folder()?;
    let mut first: Option<(usize, Vec<String>)> = None;
    for index in 0..world.devices.len() {
        let device = &world.devices[index];
        if world.is_gone(index) {
            continue;
        }
        let Some(running) = &device.running else {
            return Ok(Some(format!("{} is off", device.name)));
        };
        if let Some(reason) = running.unrest(folder).map_err(text)? {
            let status = world.wait(running.engine().status(folder)).map_err(text)?;
            let name = &device.name;
            return Ok(Some(format!(
                "{name} is not at rest: {reason} ({status:?})"
            )));
        }
        if device.is_asked() {
            return Ok(Some(format!("{} does something for somebody", device.name)));
        }
        if device.role == Role::Safe {
            continue;
        }
        let Some(view) = world.view(index) else {
            return Ok(Some(format!("{} has no view", device.name)));
        };
        let seen = walk(&view, usize::MAX).map_err(text)?;
        let mut shown = Vec::new();
        for seen in seen {
            shown.push(format!("{} {:?}", seen.path, seen.entry));
        }
        match &first {
            None => first = Some((index, shown)),
            Some((other, expected)) if *expected != shown => {
                let missing = expected.iter().find(|line| !shown.contains(line));
                let more = shown.iter().find(|line| !expected.contains(line));
                return Ok(Some(format!(
                    "{} shows another tree than {}: {missing:?} against {more:?}",
                    device.name, world.devices[*other].name
                )));
            }
            Some(_) => {}
        }
    }
    Ok(None)
}

/// All that must be true.
pub(super) fn everything(world: &mut World<'_>) -> Result<(), String> {
    nothing_lost(world)?;
    everything_sound(world)?;
    nothing_readable(world)?;
    nothing_new_for_removed(world)
}

/// What people were told is kept can be read: of whoever reads, at least of the first owner.
fn nothing_lost(world: &mut World<'_>) -> Result<(), String> {
    let folder = world.folder()?;
    let visible = match world.forgetful {
        true => {
            let view = world.view(0).ok_or("the owner has no view")?;
            let seen = walk(&view, usize::MAX).map_err(text)?;
            let values = seen.into_iter().map(|seen| seen.entry.value);
            Some(values.collect::<Vec<_>>())
        }
        false => None,
    };
    // What is forgotten by the policy is nobody's loss; what is visible stays.
    let is_kept = |written: &Written| {
        let value = Value::File(written.content.clone());
        let is_visible = visible
            .as_ref()
            .is_none_or(|values| values.contains(&value));
        is_visible && !world.excused.contains(&written.commit)
    };
    let kept = world.written.iter().filter(|written| is_kept(written));
    let kept: Vec<Written> = kept.cloned().collect();
    for written in &kept {
        let Some(running) = &world.devices[0].running else {
            return Err("the owner is off".to_owned());
        };
        if !running.has_commit(folder, written.commit).map_err(text)? {
            return Err(format!(
                "the commit {} of {} was acknowledged by {} and is gone",
                written.commit, written.name, world.devices[written.device].name
            ));
        }
        // What is not live any more comes from those who keep it.
        world
            .wait(running.want(folder, &written.content))
            .map_err(text)?;
    }
    world.settle(0)?;
    world.pass(std::time::Duration::from_secs(30))?;
    let view = world.view(0).ok_or("the owner has no view")?;
    for written in &kept {
        let what = || format!("{} (commit {})", written.name, written.commit);
        let content = read(&view, &written.content);
        // What a removed device did that the owner hadn't seen is set aside.
        if content.is_err() && world.is_gone(written.device) {
            continue;
        }
        match content.map_err(|error| format!("{}: {error}", what()))? {
            Some(bytes) if bytes == *written.bytes => {}
            Some(_) => return Err(format!("{} has other content", what())),
            None => {
                let missing = view.missing_packs(&written.content).map_err(text)?;
                // What was replaced before anybody fetched it is in its author's history alone, who need not be connected to the owner.
                let holders = world.holders(&missing);
                if holders.iter().any(|(_, holders)| holders.is_empty()) {
                    return Err(format!("nobody has all of {}: {holders:?}", what()));
                }
            }
        }
    }
    Ok(())
}

/// Stores are in order, and nothing is wrong but what must be told.
fn everything_sound(world: &mut World<'_>) -> Result<(), String> {
    let folder = world.folder()?;
    let restored = world.devices.iter().any(|device| device.restored);
    let removed = (0..world.devices.len()).any(|device| world.is_gone(device));
    for (index, device) in world.devices.iter().enumerate() {
        let Some(running) = &device.running else {
            continue;
        };
        if world.is_gone(index) {
            continue;
        }
        let verified = world.wait(running.engine().verify(folder, Box::new(Silent)));
        let verified = verified.map_err(text)?;
        if !verified.ok {
            return Err(format!("{}: {:?}", device.name, verified.problems));
        }
        let status = world.wait(running.engine().status(folder)).map_err(text)?;
        let expected = |message: &str| {
            (restored && message.contains("signed two versions"))
                || (removed && message.contains("kept aside and not merged"))
        };
        let mut problems = status.problems.iter();
        if let Some(problem) = problems.find(|problem| !expected(&problem.message)) {
            return Err(format!("{}: {}", device.name, problem.message));
        }
    }
    Ok(())
}

/// Safes have nothing of what people wrote in the clear, and no secret that reads it.
fn nothing_readable(world: &World<'_>) -> Result<(), String> {
    let folder = world.folder()?;
    let mut needles = vec![MARK.as_bytes().to_vec()];
    for device in &world.devices {
        let secrets = device.running.iter();
        let secrets = secrets.flat_map(|running| running.reading_secrets(folder));
        needles.extend(secrets.map(|secret| secret.to_vec()));
    }
    needles.sort();
    needles.dedup();
    for device in world
        .devices
        .iter()
        .filter(|device| device.role == Role::Safe && !device.is_discarded())
    {
        for needle in &needles {
            let mut places = device.around.disks().into_iter();
            let mut place = places.find_map(|disk| disk.find(needle));
            if place.is_none() {
                place = find_below(&device.home(), needle).map_err(text)?;
            }
            if let Some(place) = place {
                return Err(format!("{} can read something in {place}", device.name));
            }
        }
    }
    Ok(())
}

/// The file below a directory that holds these bytes.
fn find_below(directory: &Path, needle: &[u8]) -> std::io::Result<Option<String>> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let found = match path.is_dir() {
            true => find_below(&path, needle)?,
            false => {
                let bytes = std::fs::read(&path)?;
                let within = bytes.windows(needle.len()).any(|window| window == needle);
                within.then(|| path.display().to_string())
            }
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Who was removed has no commit of the owner's that came after.
fn nothing_new_for_removed(world: &World<'_>) -> Result<(), String> {
    let folder = world.folder()?;
    for (device, commit) in &world.removals {
        if let Some(running) = &world.devices[*device].running
            && running.has_commit(folder, *commit).map_err(text)?
        {
            let name = &world.devices[*device].name;
            return Err(format!("{name} was removed and got the commit {commit}"));
        }
    }
    Ok(())
}
