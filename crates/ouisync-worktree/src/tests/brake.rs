//! Bursts of deleting and rewriting are held back until somebody says what they were.

use super::*;
use crate::brake::{BrakeOrder, BrakeSettings, Burst};

/// Two devices with a hundred files, and a brake that fifty are enough for.
fn hundred() -> (Device, Device) {
    let (one, other) = pair();
    for number in 0..100 {
        let text = format!("text of file {number}, in plain words. ").repeat(40);
        one.write(&format!("d{}/{number}", number % 10), text);
    }
    sync(&one, &other);
    let settings = BrakeSettings {
        files: 50,
        ..BrakeSettings::default()
    };
    set(&other, settings);
    (one, other)
}

fn set(device: &Device, settings: BrakeSettings) {
    let worktree = device.worktree.as_ref().unwrap();
    worktree.order_brake(BrakeOrder::Set(settings));
}

fn text(number: u32) -> String {
    format!("text of file {number}, in plain words. ").repeat(40)
}

fn noise(seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed) << 20 | 1;
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(2000)
    .collect()
}

fn delete(device: &Device, numbers: std::ops::Range<u32>) {
    for number in numbers {
        fs::remove_file(device.path(&format!("d{}/{number}", number % 10))).unwrap();
    }
}

#[track_caller]
fn held(device: &Device) -> Burst {
    device.worktree.as_ref().unwrap().rescan();
    device.fake.wait_until("held", |status| status.failed);
    let problems = device.fake.problems();
    assert!(problems[0].contains("--undo"), "{problems:?}");
    device.worktree.as_ref().unwrap().brake().burst.unwrap()
}

fn order(device: &Device, order: BrakeOrder) {
    device.worktree.as_ref().unwrap().order_brake(order);
    device.fake.wait_until("released", |status| !status.failed);
    device.fake.settle();
    device.assert_in_step();
}

#[test]
fn a_wrong_rm_is_held_back_and_undone() {
    let (one, mut other) = hundred();
    let tree = other.fake.tree();
    delete(&other, 0..60);
    fs::remove_dir_all(other.path("d7")).unwrap();
    let burst = held(&other);
    assert_eq!(
        (burst.deleted, burst.rewritten, burst.of),
        (64, 0, 100),
        "d7 had six of the sixty"
    );
    assert_eq!(other.fake.tree(), tree, "nothing is recorded");
    // Others go on meanwhile, and nothing new here is recorded.
    one.write("new", "from elsewhere");
    one.write("d9/99", "edited elsewhere");
    one.write("d0/0", "deleted there, edited here");
    one.fake.settle();
    other.fake.pull(&one.fake);
    other.write("mine", "written meanwhile");
    let start = Instant::now();
    while !other.exists("new") || other.read("d9/99") != "edited elsewhere" {
        assert!(start.elapsed() < Duration::from_secs(40));
        std::thread::sleep(Duration::from_millis(5));
    }
    // It is still so after a restart.
    other.attach();
    other.fake.wait_until("held", |status| status.failed);
    assert_eq!(other.worktree.as_ref().unwrap().brake().burst, Some(burst));
    assert!(!other.fake.tree().contains_key("/mine"));
    order(&other, BrakeOrder::Undo);
    let undone = other.worktree.as_ref().unwrap().brake().undone.unwrap();
    assert_eq!((undone.put_back, undone.set_aside), (64, 0));
    assert_eq!(other.read("d7/7"), text(7));
    assert_eq!(other.read("d0/0"), "deleted there, edited here");
    assert_eq!(other.read("mine"), "written meanwhile");
    sync(&one, &other);
    assert_eq!(one.disk().len(), 10 + 100 + 2);
    // Afterwards edits are recorded as ever.
    other.write("d1/1", "edited afterwards");
    sync(&one, &other);
    assert_eq!(one.read("d1/1"), "edited afterwards");
}

#[test]
fn scrambled_files_are_put_back_and_kept_aside() {
    let (one, other) = hundred();
    let before = one.disk();
    for number in 0..20 {
        other.write(&format!("d{}/{number}", number % 10), noise(number));
    }
    other.write("d5/25", text(25).replace("plain", "other"));
    fs::rename(other.path("d6/26"), other.path("d6/26.locked")).unwrap();
    other.write("d6/26.locked", noise(26));
    let burst = held(&other);
    assert_eq!((burst.rewritten, burst.scrambled), (22, 21), "{burst:?}");
    order(&other, BrakeOrder::Undo);
    sync(&one, &other);
    let after = one.disk();
    assert_eq!(after.len(), before.len() + 1);
    assert!(before.iter().all(|file| after.get(file.0) == Some(file.1)));
    assert_eq!(after["/d6/26.locked"].as_deref(), Some(&noise(26)[..]));
    let undone = other.worktree.as_ref().unwrap().brake().undone.unwrap();
    assert_eq!((undone.put_back, undone.set_aside), (22, 21));
    let kept = undone.kept_in.unwrap();
    assert_eq!(fs::read(kept.join("d3/13")).unwrap(), noise(13));
    assert_eq!(
        fs::read_to_string(kept.join("d5/25")).unwrap(),
        text(25).replace("plain", "other")
    );
}

#[test]
fn what_was_meant_is_recorded() {
    let (one, other) = hundred();
    delete(&other, 0..60);
    held(&other);
    order(&other, BrakeOrder::Allow);
    sync(&one, &other);
    assert_eq!(one.disk().len(), 10 + 40);
}

#[test]
fn a_burst_in_steps_is_held_back_too() {
    let (_one, other) = hundred();
    for step in 0..2 {
        delete(&other, step * 20..step * 20 + 20);
        other.fake.settle();
        assert_eq!(other.worktree.as_ref().unwrap().brake().burst, None);
    }
    delete(&other, 40..60);
    let burst = held(&other);
    assert_eq!(burst.deleted, 60);
    assert_eq!(other.fake.tree().len(), 10 + 60);
}

#[test]
fn ordinary_work_is_not_held_back() {
    let (one, other) = hundred();
    // New times, moved directories, many new files, a few edits.
    for number in 0..100 {
        let file = other.path(&format!("d{}/{number}", number % 10));
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(number))
            .unwrap();
    }
    other.fake.settle();
    fs::create_dir(other.path("sub")).unwrap();
    for number in 0..5 {
        fs::rename(
            other.path(&format!("d{number}")),
            other.path(&format!("sub/d{number}")),
        )
        .unwrap();
    }
    for number in 0..200 {
        other.write(&format!("new/{number}"), noise(number));
    }
    for number in 0..10 {
        other.write(&format!("d9/{number}9"), "edited");
    }
    sync(&one, &other);
    // A small folder, whatever happens to it.
    let small = Device::new(3);
    for number in 0..30 {
        small.write(&format!("{number}"), text(number));
    }
    small.fake.settle();
    for number in 0..16 {
        small.write(&format!("{number}"), noise(number));
    }
    small.fake.settle();
    small.assert_in_step();
}

#[test]
fn a_file_that_is_saved_often_is_one_file() {
    let (_one, other) = hundred();
    set(
        &other,
        BrakeSettings {
            files: 10,
            percent: 0,
            ..BrakeSettings::default()
        },
    );
    for save in 0..12 {
        for number in 0..9 {
            other.write(
                &format!("d{number}/{number}"),
                format!("saved {save} times"),
            );
        }
        other.fake.settle();
        other.assert_in_step();
    }
}

#[test]
fn git_may_pack_its_objects_and_a_lost_repository_is_a_loss() {
    let (one, other) = hundred();
    fs::create_dir_all(other.path("work/.git/objects/pack")).unwrap();
    other.write("work/.git/HEAD", "ref: refs/heads/main");
    for number in 0..200 {
        other.write(
            &format!("work/.git/objects/{:02x}/{number}", number % 32),
            noise(number),
        );
    }
    sync(&one, &other);
    other.write("work/.git/objects/pack/all.pack", noise(7));
    for number in 0..32 {
        fs::remove_dir_all(other.path(&format!("work/.git/objects/{number:02x}"))).unwrap();
    }
    sync(&one, &other);
    assert!(!one.exists("work/.git/objects/00"));
    for number in 0..200 {
        other.write(
            &format!("work/.git/objects/{:02x}/{number}", number % 32),
            noise(number),
        );
    }
    sync(&one, &other);
    fs::remove_dir_all(other.path("work")).unwrap();
    assert_eq!(held(&other).deleted, 202);
}

#[test]
fn the_brake_can_be_set_and_stays_so() {
    let (one, mut other) = hundred();
    let settings = BrakeSettings {
        enabled: false,
        ..BrakeSettings::default()
    };
    set(&other, settings);
    delete(&other, 0..60);
    sync(&one, &other);
    assert_eq!(one.disk().len(), 10 + 40);
    let small = BrakeSettings {
        files: 5,
        percent: 1,
        ..BrakeSettings::default()
    };
    set(&other, small);
    other.fake.settle();
    other.attach();
    other.fake.settle();
    assert_eq!(other.worktree.as_ref().unwrap().brake().settings, small);
    delete(&other, 60..66);
    assert_eq!(held(&other).deleted, 6);
}
