//! What `crosshost doctor` says of a host.

use integration::Host;
use serde_json::Value;

/// Its findings.
pub(crate) struct Findings {
    all: Vec<Value>,
}

/// Asks it.
#[track_caller]
pub(crate) fn ask(host: &Host) -> Findings {
    let said = host.crosshost("doctor --json");
    let all = said.answer().as_array().expect("a list").clone();
    let is_wrong = all.iter().any(|it| it["state"] == "wrong");
    assert_eq!(!said.status.success(), is_wrong, "{said}");
    Findings { all }
}

impl Findings {
    /// Those in this state, with what mends them. That the laboratory's Consul has no access control is of no interest but to
    /// `store::access`.
    pub(crate) fn lines(&self, state: &str) -> Vec<String> {
        let is_open = |it: &Value| it["id"] == "store-access" && it["state"] == "wrong";
        let those = self
            .all
            .iter()
            .filter(|it| it["state"] == state && !is_open(it));
        those
            .map(|it| format!("{} => {}", it["says"], it["mend"]))
            .collect()
    }

    /// Their kinds.
    pub(crate) fn ids(&self) -> Vec<String> {
        let id = |it: &Value| it["id"].as_str().expect("an id").to_owned();
        self.all.iter().map(id).collect()
    }

    /// Those of one kind that are not well.
    pub(crate) fn of(&self, id: &str) -> Vec<&Value> {
        let those = self.all.iter();
        those
            .filter(|it| it["id"] == id && it["state"] != "ok")
            .collect()
    }

    #[track_caller]
    pub(crate) fn assert_well(&self) {
        assert_eq!(self.lines("wrong"), [""; 0]);
    }

    #[track_caller]
    fn mend(&self, state: &str, words: &[&str]) -> String {
        let is = |it: &&Value| {
            let says = it["says"].as_str().unwrap_or_default();
            it["state"] == state && words.iter().all(|word| says.contains(word))
        };
        let found = self.all.iter().find(is);
        let found =
            found.unwrap_or_else(|| panic!("nothing {state} of {words:?}: {:#?}", self.all));
        found["mend"].as_str().expect("text").to_owned()
    }

    /// The command that mends what is reported as wrong in these words.
    #[track_caller]
    pub(crate) fn wrong(&self, words: &[&str]) -> String {
        self.mend("wrong", words)
    }

    /// The same of what is only noted.
    #[track_caller]
    pub(crate) fn noted(&self, words: &[&str]) -> String {
        self.mend("note", words)
    }
}
