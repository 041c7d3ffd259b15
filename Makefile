# The commands of the project. `make help` lists them.
export PATH := $(PATH):/usr/local/go/bin:$(HOME)/.cargo/bin
STORE ?= dir
PREFIX ?= /usr/local
CNI_BIN ?= /opt/cni/bin
# Recursive on purpose: make runs rustc only if a recipe needs the answer.
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
BIN ?= bin
DIST ?= target/dist
RELEASE = target/$(HOST)/release
DEPS = integration/tools/deps.sh
NEXTEST = target/tools/bin/cargo-nextest nextest run --locked
# Makes static binaries smaller with lld, rustc's own linker on x86_64 (docs/decisions/0003-binary-size.md, 0018).
LEAN_x86_64 = -C link-arg=-Wl,--icf=all,--pack-dyn-relocs=relr,--no-eh-frame-hdr,-T,$(CURDIR)/crates/unwind.ld
STATIC = -C target-feature=+crt-static $(LEAN_$(firstword $(subst -, ,$(HOST))))

.DEFAULT_GOAL := help
.PHONY: deps build check test test-vm guests demo bench scale soak fuzz lint fmt install install-dist dist clean help

deps: ## install what tests need: Debian packages, cnitool, Consul, containerd, podman, their clients, upstream's portmap, our own earlier binaries, cargo-nextest (instant when nothing is missing)
	$(DEPS) packages cnitool consul oldest-consul containerd podman nerdctl crictl upstream-portmap previous cargo-nextest

build: ## build static, stripped binaries into bin/, where all plugins are one file (needs Rust; installs gcc if it is missing)
	$(DEPS) build-packages
	RUSTFLAGS="$(STATIC)" cargo build --release --locked --target $(HOST) -p crosshost-cni -p crosshost
	install -D $(RELEASE)/crosshost-cni bin/overlay && install -t bin $(RELEASE)/crosshost && ln -sf overlay bin/ipam-kv && ln -sf overlay bin/portmap

check: ## test what needs neither root nor a Consul, in two minutes after the build: units, properties, ten thousand runs of the simulator
	$(DEPS) check-packages cargo-nextest
	$(NEXTEST) --profile check --workspace --exclude integration
	$(NEXTEST) --profile check -p integration --lib --bins --test tree

test: deps build ## run the whole test suite (as root: it makes network namespaces), and name the ten slowest tests
	@test "$$(id -u)" = 0 || { echo "make test: run it as root, it makes network namespaces"; exit 1; }
	$(NEXTEST) --workspace; status=$$?; integration/tools/slowest.sh target/nextest/default/junit.xml; exit $$status

test-vm: ## test with Debian's kernels 5.10, 6.1 and the newest in qemu, and a power cut; skipped without qemu
	@if command -v qemu-system-x86_64 >/dev/null; then $(MAKE) --no-print-directory guests; \
		else echo "make test-vm: SKIPPED: there is no qemu-system-x86_64 (Debian's package qemu-system-x86 has it)"; fi

guests: build
	$(DEPS) guest-packages cnitool consul containerd kernels
	cargo test --locked -p integration --test guests -- --ignored --test-threads=1

demo: build ## show three hosts and one network on this machine, in under a minute; STORE=dir or STORE=consul
	$(DEPS) demo-packages cnitool $(STORE:dir=)
	cargo run --quiet --locked -p integration --bin demo -- $(STORE)

bench: deps build ## time ADD and DEL beside the reference plugins; table and plot in target/bench/; ROUNDS=40, AGAINST=folder of earlier binaries
	RUSTFLAGS="$(STATIC)" cargo build --release --locked --target $(HOST) -p integration --bin bench -p netlink --example floor
	AGAINST=$(AGAINST) $(RELEASE)/bench $(ROUNDS)

scale: deps build ## time many leases, hosts, and ADDs at once; tables in target/bench/; PART=growth|burst|traffic|news|many|path|ports|herd ROUNDS=60, for path AGAINST=folder
	RUSTFLAGS="$(STATIC)" cargo build --release --locked --target $(HOST) -p integration --bin bench -p store --example bare_write
	AGAINST=$(AGAINST) $(RELEASE)/bench scale $(PART) $(ROUNDS)

soak: ## simulate the allocation protocol with a million seeds (hours); SEEDS=1000000 FIRST=0
	SEEDS=$(or $(SEEDS),1000000) cargo test --locked -p cluster --test simulation -- seeds_keep --nocapture

FUZZED = configuration cni_args store_record store_key prev_result
fuzz: ## fuzz the parsers of foreign input with libFuzzer, each target for SECONDS=60; findings go to fuzz/artifacts
	$(DEPS) fuzz-packages cargo-fuzz
	set -e; for target in $(FUZZED); do mkdir -p fuzz/corpus/$$target; \
		target/tools/bin/cargo-fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
			-max_total_time=$(or $(SECONDS),60) -dict=fuzz/words.dict -print_final_stats=1; done

lint: deps ## check formatting, clippy pedantic, licences and sources of dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	$(DEPS) cargo-deny check

fmt: ## format all code
	cargo fmt --all

install: build install-dist ## install plugins into CNI_BIN (/opt/cni/bin), crosshost and its unit below PREFIX (/usr/local); honours DESTDIR
	install -D -t $(DESTDIR)$(CNI_BIN) bin/overlay bin/portmap
	ln -sf overlay $(DESTDIR)$(CNI_BIN)/ipam-kv
	install -D -t $(DESTDIR)$(PREFIX)/bin bin/crosshost

install-dist:
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system dist/crosshost-sync.service
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/network dist/networkd/10-crosshost.network dist/networkd/10-crosshost.link
	install -D -m 644 -t $(DESTDIR)/etc/NetworkManager/conf.d dist/NetworkManager/90-crosshost.conf

dist: build ## pack a reproducible archive for this architecture into target/dist, with the licences of everything linked
	$(DEPS:deps.sh=dist.sh) $(BIN) $(HOST) $(DIST)

clean: ## remove everything that was built, including the tools
	rm -rf bin target

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
