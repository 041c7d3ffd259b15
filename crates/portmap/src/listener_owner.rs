//! Decides for which container a program listens.
//!
//! Some runtimes hold each published port by a socket that nothing reads, so that no other program takes the port: nerdctl
//! 2.2 and later give it to a `sleep`, podman to its `conmon`. Such a socket is no conflict, but only for the container that
//! it was opened for. A runtime may also be the parent of ordinary programs, as Nomad and supervisors are, so a position in
//! the process tree proves nothing by itself: a process has to name the container in its command line or cgroup. `conmon -c
//! ID` does; nerdctl's hook is started by `runc create ... ID`.

use std::fs;

use netlink::SocketOwner;

/// A shorter name may be any word of a command line.
const SHORTEST: usize = 12;
/// The end of a name is taken for the runtime's own id if it has at least this many hexadecimal digits: nerdctl's
/// `NAMESPACE-ID`.
const DIGITS: usize = 32;

/// Whether a program provably holds its socket for this container: it names the container; or it is our caller or the
/// caller's child, and the caller was started for the container.
pub(crate) fn is_for(holder: &SocketOwner, container: &str) -> bool {
    let caller = std::os::unix::process::parent_id();
    names(holder.pid, container)
        || ([holder.pid, holder.parent].contains(&caller) && is_made_for(caller, container))
}

/// Whether a process or its parent names the container.
fn is_made_for(process: u32, container: &str) -> bool {
    let parent = SocketOwner::of(process).map(|it| it.parent);
    names(process, container) || parent.is_some_and(|parent| names(parent, container))
}

/// Whether a process names the container in its command line or its cgroup.
fn names(process: u32, container: &str) -> bool {
    ["cmdline", "cgroup"].iter().any(|file| {
        let text = fs::read(format!("/proc/{process}/{file}")).unwrap_or_default();
        mentions(&String::from_utf8_lossy(&text), container)
    })
}

/// Whether a text contains the container's id, or the runtime's part of it, as a word.
fn mentions(text: &str, container: &str) -> bool {
    let own = container.rsplit_once('-').map(|(_, own)| own);
    let own = own.filter(|it| it.len() >= DIGITS && it.bytes().all(|c| c.is_ascii_hexdigit()));
    let is_there = |id: &str| {
        text.match_indices(id).any(|(start, _)| {
            let is_part = |c: char| c.is_ascii_alphanumeric();
            !text[..start].ends_with(is_part) && !text[start + id.len()..].starts_with(is_part)
        })
    };
    container.len() >= SHORTEST && (is_there(container) || own.is_some_and(is_there))
}

#[cfg(test)]
mod tests {
    use super::mentions;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_container_is_named_by_its_id_as_a_word() {
        for text in [
            format!("/usr/bin/conmon\0-c\0{ID}\0-u\0{ID}\0"),
            format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"),
            format!("runc\0create\0--bundle\0/run/x/{ID}\0{ID}\0"),
        ] {
            assert!(mentions(&text, ID), "{text}");
            assert!(mentions(&text, &format!("default-{ID}")), "{text}");
        }
        let alloc = "6f2c1f0e-1c7c-4d5e-9f4e-0242ac110002";
        assert!(mentions(&format!("0::/nomad/{alloc}.web.scope\n"), alloc));
        for text in [
            "nomad\0agent\0".to_owned(),
            format!("conmon\0-c\0{ID}0\0"),
            format!("conmon\0-c\0{}\0", &ID[1..]),
            // The end of an id that is no runtime's own.
            "sleep 0242ac110002".to_owned(),
        ] {
            assert!(!mentions(&text, ID) && !mentions(&text, alloc), "{text}");
        }
    }

    #[test]
    fn a_short_name_proves_nothing() {
        assert!(!mentions("nginx\0-c\0web\0", "web"));
        assert!(!mentions("python3\0-m\0http.server\08080\0", "8080"));
    }
}
