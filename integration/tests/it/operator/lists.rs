//! The lists as an operator reads and pipes them: names, short ids, filters, one item a line.

use integration::{Backend, Lab, netconf};

const HEX: &str = "5ca1ab1e0123456789abcdef0123456789abcdef0123456789abcdef01234567";

#[test]
fn containers_have_names_and_short_ids_and_can_be_picked_out() {
    let lab = Lab::registered(2, Backend::Dir);
    let [one, two] = [1, 2].map(|number| lab.host(number));
    one.create_network("ov_net1", "10.0.0.0/24");
    let conf = netconf("ov_net1", "10.0.0.0/24", "1.0.0");
    let nerdctl = format!("default-{HEX}");
    let containers = [
        (
            one,
            "t1",
            nerdctl.as_str(),
            "IgnoreUnknown=1;K8S_POD_NAME=web",
        ),
        (one, "t2", "c2", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0"),
        (two, "t3", "c3", ""),
    ];
    let added = containers.map(|(host, name, id, args)| {
        let container = host.container(name);
        let add = container.call("ADD", &conf).id(id).env("CNI_ARGS", args);
        add.run().ok();
        (container, id)
    });

    let rows = |words: &str| -> Vec<Vec<String>> {
        let said = one.crosshost(words).ok().stdout;
        let rows = said.lines().skip(1);
        rows.map(|row| row.split_whitespace().map(str::to_owned).collect())
            .collect()
    };
    let short = &HEX[..12];
    for words in ["endpoint ls", "endpoint list"] {
        let found = rows(words);
        let column = |at: usize| found.iter().map(|row| row[at].clone()).collect::<Vec<_>>();
        assert_eq!(column(3), [short, "c2", "c3"]);
        assert_eq!(column(4), ["web", "shop/db-0", "-"]);
    }
    assert_eq!(rows("endpoint ls --no-trunc")[0][3], nerdctl);
    let local = rows("endpoint ls --local");
    assert_eq!((local[0][2].as_str(), local[0][3].as_str()), (short, "web"));
    let endpoints = rows("network inspect ov_net1");
    let of = |endpoint: &&Vec<String>| endpoint.get(2).is_some_and(|it| it == short);
    assert!(endpoints.iter().any(|row| of(&row)), "{endpoints:?}");
    one.crosshost("network inspect ov_net1 --no-trunc")
        .ok()
        .says(&[&nerdctl]);

    for (filter, found) in [
        ("container=web", &["10.0.0.2"][..]),
        ("container=5ca1", &["10.0.0.2"]),
        ("container=default-5ca1", &["10.0.0.2"]),
        ("node=docker01", &["10.0.0.2", "10.0.0.3"]),
        ("node=docker01 --filter container=c2", &["10.0.0.3"]),
        ("address=10.0.0.8/29", &["10.0.0.8"]),
        ("network=ov_net2", &[]),
    ] {
        let said = one.crosshost(&format!("endpoint ls -q --filter {filter}"));
        assert_eq!(said.ok().stdout.lines().collect::<Vec<_>>(), found);
    }
    let said = one.crosshost("node ls --quiet --filter name=02");
    assert_eq!(said.ok().stdout, "docker02\n");
    for wrong in [
        "endpoint ls --filter id=c2",
        "endpoint ls --filter address=x",
        "node ls --filter name",
        "port ls -f port=x",
        "node ls -q --json",
    ] {
        let said = one.crosshost(wrong);
        assert_eq!(said.status.code(), Some(2), "{said}");
    }
    for (container, id) in added {
        container.call("DEL", &conf).id(id).run().ok();
    }
}
