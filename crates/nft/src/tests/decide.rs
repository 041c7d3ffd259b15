//! Races on purpose: another program commits between our read and our change.

use std::time::Instant;

use super::CONFIG;
use super::kit::Namespace;
use crate::repair::Comparison;
use crate::{Error, Nft, PATIENCE, Status};

/// The race on purpose: another process makes the table between our look and our commit.
#[test]
fn a_commit_in_between_leads_to_another_look() {
    Namespace::new().run(|| {
        let skeleton = CONFIG.skeleton().unwrap();
        let mut looks = 0;
        let outcome = Nft::open().unwrap().decide(|channel| {
            let found = skeleton.find(channel)?;
            if looks == 0 {
                Nft::open().unwrap().ensure(&CONFIG).unwrap();
            }
            looks += 1;
            let comparison = Comparison::new(&skeleton, &found);
            Ok((comparison.repairs(), comparison.status()))
        });
        assert_eq!((looks, outcome.unwrap()), (2, Status::Complete));
        assert_eq!(
            Nft::open().unwrap().status(&CONFIG).unwrap(),
            Status::Complete
        );
    });
}

#[test]
fn patience_ends() {
    Namespace::new().run(|| {
        let mut other = Nft::open().unwrap();
        let start = Instant::now();
        let outcome = Nft::open().unwrap().decide(|_| {
            other
                .ensure(&CONFIG)
                .and_then(|()| other.remove_table(&CONFIG))?;
            Ok((vec![], ()))
        });
        assert!(matches!(outcome, Err(Error::Busy { .. })), "{outcome:?}");
        assert!((PATIENCE..PATIENCE * 2).contains(&start.elapsed()));
    });
}
