//! What the store holds, read without any of our code: on Consul by the independent client consulrs, on `dir` from the files.

use std::collections::{BTreeMap, BTreeSet};

use consulrs::api::kv::requests::ReadKeyRequestBuilder;
use consulrs::client::{ConsulClient, ConsulClientSettingsBuilder};
use consulrs::error::ClientError;
use integration::{Backend, Consul, Lab};

/// Every record of ours by its key below `crosshost/v1/`; a record is its JSON text.
pub(crate) fn records(lab: &Lab) -> BTreeMap<String, String> {
    match lab.backend() {
        Backend::Dir => from_files(lab),
        _ => through_consulrs(lab.consul()),
    }
}

/// The same without the hosts' own records: their last contact moves with every verb.
pub(crate) fn records_but_nodes(lab: &Lab) -> BTreeMap<String, String> {
    let mut all = records(lab);
    all.retain(|key, _| !key.starts_with("nodes/"));
    all
}

/// The keys of a kind of record, say of `leases/ov_net1/`.
pub(crate) fn keys_below(records: &BTreeMap<String, String>, prefix: &str) -> Vec<String> {
    let keys = records.keys().filter(|key| key.starts_with(prefix));
    keys.cloned().collect()
}

/// Insists that there is no lease, on any network.
#[track_caller]
pub(crate) fn assert_no_lease(lab: &Lab, when: &str) {
    let leases = keys_below(&records(lab), "leases/");
    assert!(leases.is_empty(), "{when}: {leases:?}");
}

/// The leased addresses of a network.
pub(crate) fn leased(lab: &Lab, network: &str) -> BTreeSet<String> {
    let below = format!("leases/{network}/");
    let keys = keys_below(&records(lab), &below);
    keys.iter()
        .map(|key| key[below.len()..].to_owned())
        .collect()
}

/// The key `a/b` is the file `a/b=`: a line with the revision, then the value.
fn from_files(lab: &Lab) -> BTreeMap<String, String> {
    lab.stored_files()
        .into_iter()
        .filter_map(|(path, bytes)| {
            let key = path.strip_prefix("crosshost/v1/")?.strip_suffix('=')?;
            let text = String::from_utf8(bytes).unwrap();
            let (_, value) = text.split_once('\n').unwrap();
            Some((key.to_owned(), value.to_owned()))
        })
        .collect()
}

/// The same of one Consul agent, whatever world it is in.
pub(crate) fn through_consulrs(consul: &Consul) -> BTreeMap<String, String> {
    let mut settings = ConsulClientSettingsBuilder::default();
    settings.address(format!("http://{}", consul.address()));
    if let Some(token) = consul.management_token() {
        settings.token(token);
    }
    let settings = settings.build().unwrap();
    let answer = consul.namespace().net().run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let client = ConsulClient::new(settings).unwrap();
        let mut all = ReadKeyRequestBuilder::default();
        let all = all.recurse(true);
        runtime.block_on(consulrs::kv::read(&client, "crosshost", Some(all)))
    });
    let pairs = match answer {
        Ok(answer) => answer.response,
        Err(ClientError::APIError { code: 404, .. }) => Vec::new(),
        Err(error) => panic!("consulrs: {error}"),
    };
    pairs
        .into_iter()
        .map(|pair| {
            let key = pair.key.strip_prefix("crosshost/v1/").unwrap().to_owned();
            let value: Vec<u8> = pair.value.unwrap_or_default().try_into().unwrap();
            (key, String::from_utf8(value).unwrap())
        })
        .collect()
}
