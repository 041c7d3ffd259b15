//! Who may read and write the store: nobody without a token, and with a token what the policies of docs/security.md say. Here they
//! are, word for word, enough for a host and for an operator, and for no more.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use integration::{
    Attachment, Backend, Container, Finished, Host, LIMIT, Lab, Programs, Running, conflist,
    end_all, netconf, until, workspace,
};
use serde_json::json;

use crate::doctor_report::ask;
use crate::ownership::block_of;

const NETWORK: &str = "ov_net1";
const SUBNET: &str = "10.0.0.0/24";
const TOKEN: &str = "/etc/crosshost/token";

fn page(path: &str) -> String {
    std::fs::read_to_string(workspace().join(path)).expect("a page")
}

/// The policy of this title in docs/security.md.
fn policy(title: &str) -> String {
    let page = page("docs/security.md");
    let start = format!("```hcl {title}\n");
    let text = page.split(&start).nth(1);
    let text = text.unwrap_or_else(|| panic!("docs/security.md has no {title}"));
    text.split("```").next().expect("its end").to_owned()
}

/// Gives a host a token with these rules of Consul's.
fn give(lab: &Lab, host: &Host, file: &str, rules: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let token = lab.consul().token(&format!("policy{number}"), rules);
    host.write(file, &token);
    host.script(&format!("chmod 600 {file}"));
    token
}

/// A cluster in which each host has a token with the policy of this title, and docker01 the operator's configuration, too; and the
/// hosts' tokens.
fn guarded(hosts: u8, title: &str) -> (Lab, Vec<String>) {
    let lab = Lab::new(hosts, Backend::GuardedConsul);
    let rules = policy(title).replace("NET", NETWORK);
    let tokens = lab.hosts().iter().map(|host| {
        let token = give(&lab, host, TOKEN, &rules.replace("HOST", host.name()));
        host.configure_store(&json!({ "url": lab.store_url(), "tokenFile": TOKEN }));
        token
    });
    let tokens = tokens.collect();
    operate(&lab, "operator");
    (lab, tokens)
}

/// Registers all hosts, and makes the network with the operator's token.
fn with_network(lab: &Lab) {
    lab.sync();
    operator(lab, &format!("network create {NETWORK} --subnet {SUBNET}")).ok();
    lab.install(&conflist(NETWORK, SUBNET));
}

/// Writes the operator's configuration on docker01, with a token of this policy.
fn operate(lab: &Lab, title: &str) {
    let (host, file) = (
        lab.host(1),
        format!("/etc/crosshost/{}", title.replace(' ', "-")),
    );
    give(lab, host, &file, &policy(title));
    let config = json!({
        "store": { "url": lab.store_url(), "tokenFile": file },
        "node": { "name": host.name(), "vtep": host.vtep() },
    });
    host.write("/etc/crosshost/operator.json", config.to_string());
}

/// A command of the operator on docker01.
fn operator(lab: &Lab, words: &str) -> integration::Finished {
    let host = lab.host(1);
    let crosshost = host.program("crosshost");
    let line = format!(
        "CROSSHOST_CONFIG=/etc/crosshost/operator.json exec {} {words}",
        crosshost.display()
    );
    host.run(&["sh", "-c", &line])
}

/// What Consul answers to a request with this token from a host: the status.
fn status(host: &Host, lab: &Lab, method: &str, target: &str, token: &str) -> String {
    let url = format!("http://{}/v1/{target}", lab.consul().address());
    let token = format!("X-Consul-Token: {token}");
    let words = [
        "curl",
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-X",
        method,
        "-H",
        &token,
        "-d",
        "{}",
        &url,
    ];
    host.run(&words).ok().stdout
}

#[test]
fn the_shipped_policies_are_those_of_the_page() {
    for (title, file) in [
        ("host on all networks", "dist/consul/host.hcl"),
        ("operator", "dist/consul/operator.hcl"),
    ] {
        let shipped = page(file);
        let rules = shipped.lines().filter(|line| !line.starts_with('#'));
        let rules = rules.collect::<Vec<_>>().join("\n") + "\n";
        assert_eq!(rules, policy(title), "{file}");
    }
}

#[test]
fn a_host_does_all_its_work_by_the_policy_of_the_page_and_changes_no_record_of_another() {
    for title in ["host on one network", "host on all networks"] {
        let (lab, tokens) = guarded(3, title);
        let untouched = lab.footprints();
        with_network(&lab);
        let (one, two) = (lab.host(1), lab.host(2));
        let attached = Attachment::on_each(&lab, NETWORK);
        let [t1, t2, t3]: &[Attachment<'_>; 3] = &attached;
        for (from, to) in [(t1, t2), (t2, t3), (t3, t1)] {
            assert!(from.container.pings(to.address, &[]), "{title}");
        }
        let watcher = two.watch();
        // More than its block holds: a host takes another one, and gives it back.
        let more: Vec<_> = (0..9)
            .map(|n| Attachment::new(one, &format!("more{n}"), NETWORK))
            .collect();
        assert!(t2.container.pings(more[8].address, &[]), "{title}");
        // An address of another host's block: its owner, and all that forward, say yes.
        let wanted = block_of(&lab, NETWORK, two).nth(6).to_string();
        let fixed = one.container("static");
        let mut conf = netconf(NETWORK, SUBNET, "1.0.0");
        conf["runtimeConfig"] = json!({ "ips": [wanted] });
        watcher.until(Duration::from_secs(20), "given up", || {
            lab.host(3).sync();
            let asked = fixed.call("ADD", &conf).run();
            asked.status.success()
        });
        fixed.call("DEL", &conf).run().ok();
        fixed.remove();
        for it in &attached {
            it.check().ok();
        }
        let status_of = one.call("overlay", "STATUS");
        status_of
            .conf(&netconf(NETWORK, SUBNET, "1.1.0"))
            .run()
            .ok();
        for host in lab.hosts() {
            host.sync();
            for words in [
                "gc",
                "node ls",
                "network ls",
                "network inspect ov_net1",
                "endpoint ls",
            ] {
                host.crosshost(words).ok();
            }
            let found = ask(host);
            found.assert_well();
            assert_eq!(found.of("store-access").len(), 0, "{title}");
            assert!(found.ids().contains(&"store-access".to_owned()));
            let said = host.crosshost("doctor").ok();
            let said = said.stdout + &said.stderr;
            assert!(tokens.iter().all(|token| !said.contains(token)), "a secret");
        }
        changes_no_record_of_another(&lab, title, &tokens[0]);
        one.crosshost("node rm --force docker03").failed();
        one.crosshost("network rm ov_net1").failed();
        drop(watcher);
        end_all(&more);
        end_all(&attached);
        operator(&lab, "network rm ov_net1").ok();
        for host in lab.hosts() {
            host.sync();
            operator(&lab, &format!("node rm --force {}", host.name())).ok();
        }
        let left = lab
            .consul()
            .request("GET", "/v1/kv/crosshost/v1/?keys", "")
            .1;
        let left: Vec<String> = serde_json::from_str(&left).expect("keys");
        let is_note = |key: &&String| !key.contains("/removed/") && !key.ends_with("/subnets");
        assert_eq!(left.iter().filter(is_note).count(), 0, "{left:?}");
        lab.assert_same_as(&untouched, title);
    }
}

/// Its own record, and what is of its networks; but no record of another host, and none that says which networks there are.
fn changes_no_record_of_another(lab: &Lab, title: &str, token: &str) {
    let put = |key: &str| {
        let target = format!("kv/crosshost/v1/{key}?cas=1");
        status(lab.host(1), lab, "PUT", &target, token)
    };
    assert_eq!(put("nodes/docker01"), "200");
    assert_eq!(put("leases/ov_net1/10.0.0.250"), "200");
    let mut closed = vec![
        "nodes/docker02",
        "nodes/docker010",
        "networks/ov_net1",
        "networks/new",
        "vnis/4097",
        "subnets",
        "removed/ov_net1",
    ];
    if title == "host on one network" {
        closed.extend([
            "ledgers/ov_net1/docker02",
            "acks/ov_net1/docker02",
            "leases/other/10.1.0.2",
            "blocks/other/10.1.0.0_29",
            "blocks/ov_net10/10.1.0.0_29",
        ]);
    }
    for key in closed {
        assert_eq!(put(key), "403", "{title}: {key}");
    }
}

#[test]
fn networks_are_made_by_the_policy_of_the_page_and_by_no_host() {
    let (lab, _) = guarded(2, "host on all networks");
    lab.sync();
    operate(&lab, "operator who only makes networks");
    operator(&lab, "network create made --subnet 10.1.0.0/24").ok();
    let blocks = lab.host(2).listed("network inspect made")["blocks"].clone();
    assert_eq!(blocks.as_array().map(Vec::len), Some(2), "for each host");
    for words in ["network rm made", "node rm --force docker02"] {
        operator(&lab, words).failed().warns(&["denies"]);
    }
    // A host: neither by a command nor by a first container.
    let host = lab.host(2);
    host.crosshost("network create mine --subnet 10.2.0.0/24")
        .failed()
        .warns(&["denies", "crosshost/v1/subnets"]);
    let container = host.container("t1");
    let refused = container.call("ADD", &netconf("mine", "10.2.0.0/24", "1.0.0"));
    refused.run().refused(106, &["crosshost/v1/subnets"]);
    container
        .call("DEL", &netconf("mine", "10.2.0.0/24", "1.0.0"))
        .run()
        .ok();
    operate(&lab, "operator");
    operator(&lab, "network rm made").ok();
    assert_eq!(host.listed("network ls"), json!([]));
}

/// What Consul answers to a program without rights in a container that writes another host's record: the status.
fn attack(container: &Container<'_>, lab: &Lab) -> String {
    let url = format!(
        "http://{}/v1/kv/crosshost/v1/nodes/docker02",
        lab.consul().address()
    );
    let words = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "curl",
        "-s",
        "-m",
        "5",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "-X",
        "PUT",
        "-d",
        "x",
        &url,
    ];
    container.run(&words).stdout
}

/// What an agent of Consul's in a container gets that asks the servers to write another host's record: their ports for agents are
/// reached from containers, too.
fn attack_by_an_agent(attached: &Attachment<'_>, lab: &Lab) -> Finished {
    let (container, consul) = (&attached.container, Programs::consul());
    container.run("ip link set lo up").ok();
    let outer = container.address("gw0").expect("a way out");
    let mut agent = container.command("setpriv");
    agent
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&consul)
        .args(["agent", "-node=evil", "-client=127.0.0.1"])
        .args(["-data-dir=/dev/shm/evil", "-retry-interval=1s"])
        .arg(format!("-bind={outer}"))
        .arg(format!("-retry-join={}", lab.consul().address().ip()));
    let _agent = Running::start(agent, b"");
    let consul = consul.display().to_string();
    let put = [&consul, "kv", "put", "crosshost/v1/nodes/docker02", "x"];
    let mut said = None;
    until(LIMIT, "joined", || {
        let put = container.run(&put);
        let is_alone = |it: &Finished| {
            let alone = ["No known Consul servers", "connection refused"];
            alone.iter().any(|word| it.stderr.contains(word))
        };
        said = Some(put).filter(|it| !is_alone(it));
        said.is_some()
    });
    said.expect("an answer")
}

#[test]
fn a_container_reaches_the_store_and_is_let_in_nowhere_without_a_token() {
    let (lab, _) = guarded(2, "host on one network");
    with_network(&lab);
    let attached = Attachment::on_each(&lab, NETWORK);
    let [t1, t2]: &[Attachment<'_>; 2] = &attached;
    assert_eq!(attack(&t1.container, &lab), "403");
    attack_by_an_agent(t1, &lab)
        .failed()
        .warns(&["Permission denied", "nodes/docker02"]);
    assert!(t1.container.pings(t2.address, &[]));
    end_all(&attached);

    // Where there is no access control: anybody may, and the doctor of each host says so.
    let open = Lab::with_network(2, Backend::Consul, &conflist(NETWORK, SUBNET));
    let t1 = Attachment::new(open.host(1), "t1", NETWORK);
    let found = ask(open.host(1));
    let says = [
        "containers too",
        "change all records",
        "without a token",
        "docs/security.md",
    ];
    let open_store = found.of("store-access");
    let [finding] = open_store.as_slice() else {
        panic!("{open_store:?}")
    };
    assert_eq!(finding["state"], "wrong");
    let text = finding["says"].as_str().expect("text");
    assert!(says.iter().all(|word| text.contains(word)), "{text}");
    open.host(1).crosshost("doctor").failed();
    assert_eq!(attack(&t1.container, &open), "200");
    attack_by_an_agent(&t1, &open).ok();
}

#[test]
fn a_token_that_may_change_the_records_of_other_hosts_is_told() {
    let (lab, _) = guarded(2, "host on all networks");
    let host = lab.host(1);
    let told = || {
        let found = ask(host);
        found.assert_well();
        let lines = found.lines("note").into_iter();
        lines
            .filter(|it| it.contains("records"))
            .collect::<Vec<_>>()
    };
    host.sync();
    assert_eq!(told(), [""; 0], "the only one");
    lab.sync();
    assert_eq!(told(), [""; 0]);
    let before = lab
        .consul()
        .request("GET", "/v1/kv/crosshost/?recurse", "")
        .1;
    let broad = give(
        &lab,
        host,
        TOKEN,
        r#"key_prefix "crosshost/" { policy = "write" }"#,
    );
    let said = told();
    let [one] = &said[..] else { panic!("{said:?}") };
    assert!(
        one.contains("node docker02") && one.contains("docs/security.md"),
        "{one}"
    );
    assert!(!one.contains(&broad));
    // Asking changed nothing.
    let after = lab
        .consul()
        .request("GET", "/v1/kv/crosshost/?recurse", "")
        .1;
    assert_eq!(after, before);
    // What everybody may read, but not write.
    let rules = json!({ "Name": "readers", "Rules": r#"key_prefix "" { policy = "read" }"# });
    lab.consul()
        .request("PUT", "/v1/acl/policy", &rules.to_string());
    let anonymous = "/v1/acl/token/00000000-0000-0000-0000-000000000002";
    let policies = json!({ "Policies": [{ "Name": "readers" }] });
    let (code, answer) = lab
        .consul()
        .request("PUT", anonymous, &policies.to_string());
    assert_eq!(code, 200, "{answer}");
    let said = told();
    let [one] = &said[..] else { panic!("{said:?}") };
    assert!(one.contains("read all records without a token"), "{one}");
}

/// A host may not make networks, and so none again either.
#[test]
fn a_network_that_the_store_lost_comes_back_by_the_operators_token() {
    let (lab, _) = guarded(2, "host on all networks");
    with_network(&lab);
    let attached = Attachment::on_each(&lab, NETWORK);
    let [t1, t2]: &[Attachment<'_>; 2] = &attached;
    lab.consul()
        .request("DELETE", "/v1/kv/crosshost?recurse", "");
    for host in lab.hosts() {
        host.crosshost("sync").failed().warns(&["denies"]);
        assert_eq!(host.listed("network ls"), json!([]));
    }
    assert!(t1.container.pings(t2.address, &[]), "they go on");
    operator(&lab, "sync").ok();
    lab.sync();
    for host in lab.hosts() {
        let listed = host.listed("endpoint ls");
        assert_eq!(listed.as_array().map(Vec::len), Some(2), "{listed}");
        ask(host).assert_well();
    }
    assert!(t1.container.pings(t2.address, &[]));
    end_all(&attached);
}
