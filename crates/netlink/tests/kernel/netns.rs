//! Namespaces: made once, opened only if they are namespaces, entered only by threads of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::thread;

use netlink::{Netns, NetnsError, Sysctl};

use crate::kit::{Lab, sh};

fn gone(path: &Path) -> bool {
    matches!(Netns::open(path), Err(NetnsError::Gone { path: told }) if told == path)
}

#[test]
fn create_opens_what_is_there_and_remove_can_be_repeated() {
    let lab = Lab::new();
    let dir = lab.dir().join("deep/er");
    let first = Netns::create(&dir, "a").unwrap();
    let again = Netns::create(&dir, "a").unwrap();
    let other = Netns::create(&dir, "b").unwrap();
    assert!(
        first.same_as(&again)
            && !first.same_as(&other)
            && !first.same_as(&Netns::current().unwrap())
    );
    assert_eq!(first.id().1, fs::metadata(dir.join("a")).unwrap().ino());
    assert_eq!(Netns::list(&dir).unwrap(), ["a", "b"]);

    assert!(Netns::remove(&dir, "a").unwrap());
    assert!(!Netns::remove(&dir, "a").unwrap());
    assert!(!dir.join("a").exists());
    assert!(Netns::remove(&dir, "b").unwrap());
    assert_eq!(Netns::list(&dir).unwrap(), [""; 0]);
    assert!(!Netns::remove(Path::new("/nonexistent"), "a").unwrap());
    assert_eq!(Netns::list(Path::new("/nonexistent")).unwrap(), [""; 0]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "a mount is left");
}

#[test]
fn what_is_no_namespace_is_gone() {
    let lab = Lab::new();
    let file = lab.dir().join("file");
    fs::write(&file, "").unwrap();
    assert!(gone(&file));
    assert!(gone(&file.join("below")));
    assert!(gone(lab.dir()));
    assert!(gone(&lab.dir().join("absent")));
    assert!(gone(Path::new("/proc/999999999/ns/net")));
    let fifo = lab.dir().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    assert!(gone(&fifo), "and it does not wait for a writer");
}

#[test]
fn a_file_left_by_a_reboot_is_no_obstacle() {
    let lab = Lab::new();
    fs::write(lab.dir().join("a"), "").unwrap();
    assert_eq!(Netns::list(lab.dir()).unwrap(), [""; 0]);
    assert!(!lab.netns("a").same_as(&Netns::current().unwrap()));
    fs::write(lab.dir().join("b"), "").unwrap();
    assert!(Netns::remove(lab.dir(), "b").unwrap());
    assert!(!lab.dir().join("b").exists());
}

#[test]
fn many_creators_get_one_namespace() {
    let lab = Lab::new();
    let ids: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| lab.netns("a").id()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(Netns::remove(lab.dir(), "a").unwrap());
    assert!(gone(&lab.dir().join("a")), "mounted twice");
}

#[test]
fn namespaces_stacked_by_others_are_removed_too() {
    let lab = Lab::new();
    let (path, other) = (lab.dir().join("a"), lab.dir().join("b"));
    lab.netns("a");
    lab.netns("b");
    let mount = Command::new("mount")
        .arg("--bind")
        .args([&other, &path])
        .status();
    assert!(mount.unwrap().success());
    assert!(Netns::remove(lab.dir(), "a").unwrap());
    assert!(!path.exists());
}

#[test]
fn names_are_one_path_part() {
    let lab = Lab::new();
    for name in ["", ".", "..", "a/b", "/a", "a/", "../a"] {
        assert!(Netns::create(lab.dir(), name).is_err(), "{name:?}");
        assert!(Netns::remove(lab.dir(), name).is_err(), "{name:?}");
    }
}

#[test]
fn run_enters_and_returns() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    let before = Netns::current().unwrap();
    let borrowed = String::from("borrowed");
    let (inside, len) = ns
        .run(|| (Netns::current().unwrap(), borrowed.len()))
        .unwrap();
    assert!(inside.same_as(&ns));
    assert_eq!(len, 8);
    assert!(Netns::current().unwrap().same_as(&before));
}

#[test]
fn a_visit_within_a_visit_returns_to_the_first_namespace() {
    let lab = Lab::new();
    let (one, two) = (lab.netns("a"), lab.netns("b"));
    let before = Netns::current().unwrap();
    for _ in 0..2 {
        let within = one.run(|| {
            let is_two = two.run(|| Netns::current().unwrap().same_as(&two));
            let is_one = |()| Netns::current().unwrap().same_as(&one);
            (is_two.unwrap(), two.run(|| ()).map(is_one).unwrap())
        });
        assert_eq!(within.unwrap(), (true, true));
        assert!(Netns::current().unwrap().same_as(&before));
    }
}

#[test]
fn what_cannot_be_entered_leaves_the_thread_where_it_is() {
    let before = Netns::current().unwrap();
    let mount = Netns::open(Path::new("/proc/self/ns/mnt")).unwrap();
    assert!(mount.run(|| ()).is_err());
    assert!(Netns::current().unwrap().same_as(&before));
    let lab = Lab::new();
    let ns = lab.netns("a");
    assert!(ns.run(|| Netns::current().unwrap().same_as(&ns)).unwrap());
}

#[test]
fn a_panic_inside_is_an_error_and_returns_too() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    let before = Netns::current().unwrap();
    let error = ns.run(|| panic!("over {}", 9000)).unwrap_err();
    assert!(Netns::current().unwrap().same_as(&before));
    assert!(
        error
            .to_string()
            .contains("the work inside panicked: over 9000"),
        "{error}"
    );
    assert!(
        error.to_string().contains(ns.path().to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_namespace_of_another_kind_cannot_be_entered() {
    let mount = Netns::open(Path::new("/proc/self/ns/mnt")).unwrap();
    let error = mount.run(|| ()).unwrap_err();
    assert!(matches!(error, NetnsError::OtherKind { .. }), "{error}");
}

#[test]
fn sysctls_are_read_and_written_inside() {
    let lab = Lab::new();
    let ns = lab.netns("a");
    let here = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let forward = Sysctl::new("ipv4/ip_forward");
    let accept_ra = Sysctl::of_link("ipv6", "nosuch", "accept_ra");
    ns.set_sysctls(&[
        (forward.clone(), "1"),
        (accept_ra.clone(), "0"),
        (Sysctl::of_link("ipv6", "all", "forwarding"), "1"),
    ])
    .unwrap();
    assert_eq!(
        sh(
            &ns,
            "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"
        ),
        "1\n1\n"
    );
    assert_eq!(
        fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
        here
    );
    let read = ns.read_sysctls(&[forward.clone(), accept_ra]).unwrap();
    assert_eq!(read, [Some("1".to_owned()), None]);
    let changed = ns.run(|| [forward.set("1"), forward.set("0"), forward.set("0")]);
    assert_eq!(changed.unwrap(), [Ok(false), Ok(true), Ok(false)]);
    ns.run(|| forward.check_writable()).unwrap().unwrap();
    let error = ns.set_sysctls(&[(Sysctl::new("ipv4/nosuch"), "1")]);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("set net.ipv4.nosuch to 1"), "{error}");
}

#[test]
fn a_directory_that_another_process_keeps_locked_is_busy_and_not_waited_for_without_end() {
    let lab = Lab::new();
    let dir = fs::File::open(lab.dir()).unwrap();
    dir.lock().unwrap();
    let refused = Netns::create(lab.dir(), "a").unwrap_err();
    assert!(refused.is_busy(), "{refused}");
    drop(dir);
    Netns::create(lab.dir(), "a").unwrap();
    assert!(Netns::remove(lab.dir(), "a").unwrap());
}
