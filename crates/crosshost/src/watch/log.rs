//! The watcher's log: one line on standard error for each change of state, however often the same attempt fails.

use std::collections::BTreeMap;

/// Everything that is wrong now, by subject.
#[derive(Default)]
pub struct Log {
    wrong: BTreeMap<String, String>,
}

impl Log {
    /// Logs what was done.
    pub fn note(text: &str) {
        cni::log(&format!("crosshost: {}", cni::line(text.to_owned())));
    }

    /// A subject failed. Logged if it worked before, or failed for another reason.
    pub fn wrong(&mut self, about: &str, why: &str) {
        let before = self.wrong.insert(about.to_owned(), gist(why));
        if before != self.wrong.get(about).cloned() {
            Self::note(&format!("{about}: {why}"));
        }
    }

    /// A subject works. Logged if it failed before.
    pub fn right(&mut self, about: &str) {
        if self.wrong.remove(about).is_some() {
            Self::note(&format!("{about}: works again"));
        }
    }

    /// The first subject that is wrong.
    pub fn first(&self) -> Option<&str> {
        self.wrong.keys().next().map(String::as_str)
    }
}

/// A message without its numbers: a different duration is no change.
fn gist(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_one_state() {
        let mut log = Log::default();
        log.wrong("sync", "no answer within 1.5s");
        log.wrong("sync", "no answer within 2.5s");
        assert_eq!((log.first(), log.wrong.len()), (Some("sync"), 1));
        log.right("sync");
        assert_eq!(log.first(), None);
    }
}
