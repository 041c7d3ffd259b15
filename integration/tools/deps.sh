#!/bin/sh
# Installs what the tests, the demo and the lint need, by the names given as arguments, each only if it is missing:
#   build-packages Debian packages for cargo
#   demo-packages  Debian packages for the demo      packages       those and the ones for all tests
#   cnitool        the CNI project's client, built   consul         Consul 1.14.11, built (8 minutes of processor time)
#   oldest-consul  Debian bullseye's Consul 1.8.7    cargo-deny     checks of dependencies, built (5 minutes)
#   nerdctl        the CLI of containerd, built (1 minute)
#   crictl         the CLI of what kubelets speak to containerd, built (1 minute)
#   upstream-portmap  the reference plugin portmap as upstream has it now, with its nftables backend, built
#   containerd     Debian's containerd, runc and static busybox, unpacked and not installed
#   podman         Debian's podman and conmon, unpacked and not installed
#   kernels        Debian's kernels 5.10, 6.1 and the newest, unpacked for guests of qemu
#   guest-packages Debian packages for those guests
#   previous       our own binaries of two earlier commits, built from the history (3 minutes), for the test of upgrades
#   check          runs cargo-deny                 cargo-fuzz     coverage-guided fuzzing, built (1 minute)
#   fuzz-packages  Debian packages for cargo-fuzz: libFuzzer is C++
#   check-packages Debian packages for the tests that need no root    cargo-nextest  runs the tests, built (5 minutes)
# What is built goes to target/tools; the versions are pinned by go.mod and go.sum beside this file. Where these change it is built
# anew: NAME.pinned has their checksums as they were.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
tools=$root/target/tools

# ip, ping and nft are the laboratory's hands and eyes.
for_demo="iproute2 iputils-ping nftables"
# cargo's linker, and what it links with.
for_build="gcc libc6-dev"
for_fuzz="g++"
# cargo builds consulrs for each test of the package that uses it.
for_check="libssl-dev pkg-config"
# The reference plugins; openssl makes the tests' certificates;
# strace counts system calls for the benchmark, and kills at them for a test; curl is typed in the README; the libraries are
# those of the programs that are unpacked and not installed.
for_tests="containernetworking-plugins openssl strace curl
    libseccomp2 libdevmapper1.02.1 libgpgme11 libsubid4 libglib2.0-0 libsystemd0"
# A guest's disk is made by mkfs.ext4.
for_guests="e2fsprogs"

packages() {
    missing=
    for package in "$@"; do
        state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$state" = installed ] || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    echo "deps: installing$missing"
    apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
}

# go_tool NAME PACKAGE [FOLDER]: builds the main package that integration/tools/FOLDER/go.mod pins, by default that of NAME.
go_tool() {
    folder=$root/integration/tools/${3:-$1}
    pinned=$(cat "$folder/go.mod" "$folder/go.sum" | cksum)
    if [ -x "$tools/$1" ] && [ "$(cat "$tools/$1.pinned" 2>/dev/null)" = "$pinned" ]; then
        return 0
    fi
    echo "deps: building $1 (go build $2)"
    mkdir -p "$tools"
    (cd "$folder" && CGO_ENABLED=0 go build -trimpath -o "$tools/$1.new" "$2")
    mv "$tools/$1.new" "$tools/$1"
    echo "$pinned" >"$tools/$1.pinned"
}

# previous COMMIT PACKAGE...: our own binaries as that commit has them, into target/tools/previous/COMMIT. Only the tests run
# them, so they are built as quickly as cargo can.
previous() {
    commit=$1
    shift
    [ ! -d "$tools/previous/$commit" ] || return 0
    if ! git -C "$root" cat-file -e "$commit^{commit}" 2>/dev/null; then
        echo "deps: the history lacks commit $commit, whose binaries the test of upgrades runs: this is a shallow clone or no" \
            "clone; run 'git fetch --unshallow' in a clone of the whole repository" >&2
        exit 1
    fi
    echo "deps: building $* of commit $commit"
    work=$tools/previous-build
    rm -rf "$work/tree"
    mkdir -p "$work/tree" "$tools/previous"
    git -C "$root" archive "$commit" Cargo.toml Cargo.lock crates integration | tar -x -C "$work/tree"
    for package in "$@"; do
        set -- "$@" -p "$package"
        shift
    done
    (cd "$work/tree" && CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo build --quiet --release --locked --target-dir "$work/target" "$@")
    rm -rf "$tools/previous/$commit.new"
    mkdir "$tools/previous/$commit.new"
    for package in "$@"; do
        [ "$package" = -p ] || install -t "$tools/previous/$commit.new" "$work/target/release/$package"
    done
    mv "$tools/previous/$commit.new" "$tools/previous/$commit"
}

# unpacked NAME PACKAGE...: Debian packages in a folder of their own. Installed, containerd would be a service of this machine,
# and podman would put a network into /etc/cni/net.d.
unpacked() {
    folder=$tools/$1
    shift
    [ ! -d "$folder" ] || return 0
    echo "deps: unpacking $*"
    rm -rf "$folder.new"
    mkdir -p "$folder.new/packages"
    apt-get update -q
    # apt's sandbox user may not write below a private folder.
    (cd "$folder.new/packages" && apt-get download -q -o APT::Sandbox::User=root "$@")
    for package in "$folder.new"/packages/*.deb; do
        dpkg -x "$package" "$folder.new"
    done
    rm -r "$folder.new/packages"
    mv "$folder.new" "$folder"
}

for part in "$@"; do
    case $part in
    build-packages) packages $for_build ;;
    check-packages) packages $for_build $for_check ;;
    fuzz-packages) packages $for_build $for_fuzz ;;
    demo-packages) packages $for_demo ;;
    packages) packages $for_build $for_check $for_demo $for_tests ;;
    cnitool) go_tool cnitool github.com/containernetworking/cni/cnitool ;;
    nerdctl) go_tool nerdctl github.com/containerd/nerdctl/v2/cmd/nerdctl ;;
    crictl) go_tool crictl sigs.k8s.io/cri-tools/cmd/crictl ;;
    upstream-portmap) go_tool upstream-portmap github.com/containernetworking/plugins/plugins/meta/portmap plugins ;;
    containerd) unpacked containerd containerd runc busybox-static ;;
    podman) unpacked podman podman conmon ;;
    consul) go_tool consul github.com/hashicorp/consul ;;
    previous)
        previous 86dc1f2 overlay ipam-kv portmap crosshost
        # The last one whose egress bridge was an interface of the host.
        previous 505b5ca overlay ipam-kv crosshost
        rm -rf "$tools/previous-build"
        ;;
    oldest-consul)
        [ -d "$tools/consul-1.8.7" ] ||
            "$root/integration/tools/of-suite.sh" bullseye "$tools/consul-1.8.7" consul consul
        ;;
    guest-packages) packages $for_build $for_demo $for_guests ;;
    kernels) "$root/integration/tools/kernels.sh" ;;
    cargo-deny)
        [ -x "$tools/bin/cargo-deny" ] ||
            cargo install --locked --root "$tools" --target-dir "$tools/cargo-deny-build" cargo-deny@0.20.2
        rm -rf "$tools/cargo-deny-build"
        ;;
    cargo-nextest)
        # Built as quickly as cargo can: it waits for tests.
        [ -x "$tools/bin/cargo-nextest" ] ||
            CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
                cargo install --locked --root "$tools" --target-dir "$tools/cargo-nextest-build" \
                --no-default-features --features default-no-update cargo-nextest@0.9.151
        rm -rf "$tools/cargo-nextest-build"
        ;;
    cargo-fuzz)
        [ -x "$tools/bin/cargo-fuzz" ] ||
            cargo install --locked --root "$tools" --target-dir "$tools/cargo-fuzz-build" cargo-fuzz@0.13.2
        rm -rf "$tools/cargo-fuzz-build"
        ;;
    check)
        # The advisory database is a git repository, which not every place that runs this can reach.
        echo "deps: SKIPPED: the RustSec advisories (run 'target/tools/bin/cargo-deny check advisories' where git can fetch them)"
        cd "$root" && "$tools/bin/cargo-deny" --locked check bans licenses sources
        ;;
    *)
        echo "deps.sh: no part is called $part" >&2
        exit 2
        ;;
    esac
done
