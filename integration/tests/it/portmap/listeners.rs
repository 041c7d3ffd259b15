//! Programs of the host that listen on a port which a container asks for: they are refused by name, unless they hold the port for
//! that very container, or the configuration says that it is to be published all the same.

use crate::portmap::published;
use crate::portmap::published::{Published, add, at, fetch_at, lab, port, port_mappings, rules};
use integration::{Finished, Host, LIMIT, Programs, Running, until};
use serde_json::{Value, json};
use std::time::Duration;

/// As a runtime's own id.
const ID: &str = "6f2c1f0e1c7c4d5e9f4e0242ac1100026f2c1f0e1c7c4d5e9f4e0242ac110002";

/// A program that listens on port 8080, of UDP if its first word says so. Its other words mean nothing.
const LISTENS: &str = "use Socket; $| = 1;
    my $type = $ARGV[0] eq 'udp' ? SOCK_DGRAM : SOCK_STREAM;
    socket(S, PF_INET, $type, 0) and bind(S, sockaddr_in(8080, INADDR_ANY)) or die;
    $type == SOCK_DGRAM or listen(S, 1) or die;
    print qq(listens\n); sleep 600";

/// A program that starts a listener, and then calls a plugin.
const AGENT: &str = "my ($plugin, $conf, $listens, $word) = @ARGV;
    my $held = open(my $heard, '-|', $^X, '-e', $listens, 'tcp', $word) or die; <$heard>;
    open(my $call, '|-', $plugin) or die; print $call $conf; close $call; my $end = $? >> 8;
    kill 9, $held; waitpid $held, 0; exit $end";

/// Starts a listener of this protocol with one more word, and waits for it.
#[track_caller]
fn listens(host: &Host, protocol: &str, word: &str) -> Running {
    let mut program = host.namespace().command("perl");
    program.args(["-e", LISTENS, protocol, word]);
    let program = Running::start(program, b"");
    let option = format!("-Hln{}", &protocol[..1]);
    until(LIMIT, "listening", || {
        let listening = host.run(&["ss", &option]).ok();
        listening.stdout.contains(":8080 ")
    });
    program
}

/// The configuration of a call for this container.
fn conf(web: &Published<'_>, ports: &Value) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "br",
        "type": "portmap",
        "prevResult": web.result,
        "runtimeConfig": port_mappings(ports),
    })
}

/// An ADD for the container `id` by an agent that has started a listener; each of the two has one more word in its command line.
#[track_caller]
fn add_by_agent(host: &Host, conf: &Value, id: &str, words: [&str; 2]) -> Finished {
    let mut agent = host.namespace().command("perl");
    agent.args(["-e", AGENT]).arg(Programs::product("portmap"));
    agent.args([&conf.to_string(), LISTENS]).args(words);
    agent.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", id);
    agent
        .env("CNI_IFNAME", "eth0")
        .env("CNI_NETNS", "/run/netns/web");
    agent.env("CNI_PATH", Programs::cni_path());
    Running::start(agent, b"").wait(Duration::from_secs(30))
}

#[test]
fn a_program_that_listens_is_refused_by_name() {
    let lab = lab();
    let host = lab.host(1);
    host.container("web");
    let program = published::serve(host.namespace().net(), "host", 8080);
    let said = add(host, "web", &json!([port(8080, 80)])).failed().stderr;
    assert!(
        said.contains("host port 8080/tcp: ") && said.contains("listens on it"),
        "{said}"
    );
    drop(program);
    assert_eq!(rules(host), "", "a refused ADD leaves no table");
    // A program that listens to IPv6 alone is not in the way of a port of IPv4.
    let net = host.namespace().net();
    let program = integration::Server::start(net, at(&host.address6(), 8080), drop);
    host.cnitool("del", "br", "web", "eth0").ok();
    add(host, "web", &json!(["0.0.0.0:8080:80"])).ok();
    host.cnitool("del", "br", "web", "eth0").ok();
    add(host, "web", &json!(["[::]:8080:80"]))
        .failed()
        .warns(&["listens on it"]);
    drop(program);
    host.cnitool("del", "br", "web", "eth0").ok();
    add(host, "web", &json!([port(8080, 80)])).ok();
    host.cnitool("del", "br", "web", "eth0").ok();
}

/// Nomad's `raw_exec` tasks and what a supervisor starts are children of the program that calls, as are holders of ports.
#[test]
fn only_what_names_the_container_holds_the_port_for_it() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([]));
    let conf = conf(&web, &json!([port(8080, 80)]));
    let del = || {
        let call = host.call("portmap", "DEL").id(ID);
        call.conf(&conf).run().ok();
        assert_eq!(rules(host), "");
    };
    let refused = |said: Finished| {
        said.refused(111, &["host port 8080/tcp: perl", "listens on it"]);
        assert_eq!(rules(host), "");
    };
    // A task of the agent's own, and the holder of another container.
    refused(add_by_agent(host, &conf, ID, ["task", "agent"]));
    let other = ID.replace('6', "7");
    refused(add_by_agent(host, &conf, ID, [&other, "agent"]));
    // As podman's conmon, and with the name of a containerd namespace, as nerdctl's calls have it.
    for id in [ID.to_owned(), format!("default-{ID}")] {
        add_by_agent(host, &conf, &id, [ID, "agent"]).ok();
        host.call("portmap", "DEL").id(&id).conf(&conf).run().ok();
        // As nerdctl's `sleep`, which says nothing, below a hook that was started for the container.
        add_by_agent(host, &conf, &id, ["infinity", ID]).ok();
        host.call("portmap", "DEL").id(&id).conf(&conf).run().ok();
    }
    // A short name may be any word.
    refused(add_by_agent(host, &conf, "web", ["web", "web"]));
    // And one that none of these started.
    let conmon = listens(host, "tcp", ID);
    let call = host.call("portmap", "ADD").id(ID).netns("/run/netns/web");
    call.conf(&conf).run().ok();
    let call = host
        .call("portmap", "ADD")
        .id(&other)
        .netns("/run/netns/web");
    call.conf(&conf)
        .run()
        .refused(111, &["8080/tcp: eth0 of container", ID, "has it"]);
    del();
    let call = host
        .call("portmap", "ADD")
        .id(&other)
        .netns("/run/netns/web");
    refused(call.conf(&conf).run());
    conmon.kill();
}

/// Nomad asks for both protocols, whichever the service is for.
#[test]
fn a_listener_of_the_other_protocol_is_told_with_the_key_that_publishes_all_the_same() {
    let lab = lab();
    let host = lab.host(1);
    let web = Published::new(host, "web", "br", &json!([]));
    let program = listens(host, "udp", "");
    let udp = json!({ "hostPort": 8080, "containerPort": 80, "protocol": "udp" });
    let both = json!([port(8080, 80), udp]);
    let call = |verb: &str, conf: &Value| {
        let call = host.call("portmap", verb).id(ID).netns("/run/netns/web");
        call.conf(conf).run()
    };
    let says = [
        "host port 8080/udp: perl (process ",
        "8080/tcp was asked for as well",
        "\"listeners\": \"warn\"",
    ];
    call("ADD", &conf(&web, &both)).refused(111, &says);
    let said = call("ADD", &conf(&web, &json!([udp]))).refused(111, &says[..1]);
    assert!(
        !said.contains("listeners"),
        "nothing else was asked for: {said}"
    );
    call("ADD", &conf(&web, &json!([port(8080, 80)]))).ok();
    call("DEL", &conf(&web, &both)).ok();

    let mut conf = conf(&web, &both);
    conf["listeners"] = "ignore".into();
    call("ADD", &conf).refused(7, &["listeners: \"ignore\"", "refuse, warn"]);
    conf["listeners"] = "warn".into();
    let said = call("ADD", &conf).ok().stderr;
    assert!(
        said.contains(says[0]) && said.contains("published"),
        "{said}"
    );
    let _server = web.serves(80);
    assert!(fetch_at(lab.host(2).namespace(), host.vtep(), 8080).starts_with("web "));
    call("CHECK", &conf).ok();
    // Another container's port is refused all the same.
    let late = host
        .call("portmap", "ADD")
        .id("late")
        .netns("/run/netns/web");
    late.conf(&conf).run().refused(111, &[ID, "has it"]);
    call("DEL", &conf).ok();
    assert_eq!(rules(host), "");
    program.kill();
}
