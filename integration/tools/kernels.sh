#!/bin/sh
# Debian's kernels for the guests of `make test-vm`, each in a folder of target/tools/kernels that has two files: `vmlinuz`, and
# `modules.cpio`, an initramfs that has those of its modules that a host of ours may load, with what modprobe has to know of them.
# They are the cloud flavour: the stock configuration without drivers for hardware. Run again, it does nothing.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
kernels=$root/target/tools/kernels
busybox=$root/target/tools/containerd/bin/busybox

# kernel NAME SUITE
kernel() {
    [ ! -d "$kernels/$1" ] || return 0
    work=$kernels/$1.new
    rm -rf "$work"
    "$root/integration/tools/of-suite.sh" "$2" "$work/package" linux-image-cloud-amd64 \
        'linux-(image|binary|modules)-[0-9].*-cloud-amd64'
    # In newer ones /lib is a part of /usr, and the kernel lies among its modules.
    modules=$(find "$work/package" -path '*/lib/modules/*' -prune)
    release=$(basename "$modules")
    kept=$work/root/lib/modules/$release
    for part in net lib crypto arch drivers/net drivers/virtio drivers/block; do
        [ -d "$modules/kernel/$part" ] || continue
        mkdir -p "$(dirname "$kept/kernel/$part")"
        mv "$modules/kernel/$part" "$kept/kernel/$part"
    done
    # What is built in, where the package says so: modprobe must not miss that.
    find "$modules" -maxdepth 1 -name 'modules.*' -exec cp {} "$kept" \;
    find "$work/root" -name '*.xz' -exec "$busybox" unxz {} +
    "$busybox" depmod -b "$work/root" "$release"
    (cd "$work/root" && find . | "$busybox" cpio -o -H newc) >"$work/modules.cpio"
    find "$work/package" -name 'vmlinuz*' -exec mv {} "$work/vmlinuz" \;
    rm -r "$work/package" "$work/root"
    mv "$work" "$kernels/$1"
}

kernel 5.10 bullseye-security
kernel 6.1 bookworm-security
kernel newest trixie-backports
