#!/bin/sh
# deb.sh BIN TARGET FOLDER: makes the Debian package FOLDER/crosshost_VERSION_ARCH.deb of the binaries in BIN, built for TARGET
# (docs/decisions/0033-packages.md). The same commit and the same tools give the same bytes, as for the archive (dist.sh).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$1 target=$2 folder=$3
cd "$root"
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)-1
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
case $target in
x86_64-*) arch=amd64 ;;
aarch64-*) arch=arm64 ;;
*) echo "deb.sh: $target: which architecture of Debian is that?" >&2; exit 1 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
from=$work/contents top=$work/package
mkdir -p "$folder" "$from"
integration/tools/contents.sh "$bin" "$target" "$from"

plain() { install -D -m 644 "$1" "$top/$2"; }
program() { install -D -m 755 "$1" "$top/$2"; }

program "$from/bin/crosshost" usr/bin/crosshost
# Debian's folder of CNI plugins, and the one that nerdctl, Nomad and kubelets look into. What others copy over a portmap must not
# reach the other plugins, so it is a file of its own in each.
program "$from/bin/overlay" usr/lib/cni/overlay
program "$from/bin/overlay" usr/lib/cni/portmap
program "$from/bin/overlay" opt/cni/bin/portmap
ln -s overlay "$top/usr/lib/cni/ipam-kv"
ln -s ../../../usr/lib/cni/overlay "$top/opt/cni/bin/overlay"
ln -s ../../../usr/lib/cni/overlay "$top/opt/cni/bin/ipam-kv"
plain dist/crosshost-sync.service usr/lib/systemd/system/crosshost-sync.service
sed -i 's:/usr/local/bin/:/usr/bin/:' "$top/usr/lib/systemd/system/crosshost-sync.service"
plain dist/networkd/10-crosshost.network usr/lib/systemd/network/10-crosshost.network
plain dist/networkd/10-crosshost.link usr/lib/systemd/network/10-crosshost.link
plain dist/NetworkManager/90-crosshost.conf usr/lib/NetworkManager/conf.d/90-crosshost.conf
plain "$from/completions/crosshost.bash" usr/share/bash-completion/completions/crosshost
plain "$from/completions/_crosshost" usr/share/zsh/vendor-completions/_crosshost
plain "$from/completions/crosshost.fish" usr/share/fish/vendor_completions.d/crosshost.fish
for page in "$from"/man/*; do
    plain "$page" "usr/share/man/man8/$(basename "$page")"
done
gzip -n -9 "$top"/usr/share/man/man8/*
doc=usr/share/doc/crosshost
{
    printf 'crosshost, all of it but what THIRD-PARTY/ names:\n\n'
    cat LICENSE
} >"$work/copyright"
plain "$work/copyright" $doc/copyright
plain "$from/sbom.cdx.json" $doc/sbom.cdx.json
cp -r "$from/THIRD-PARTY" "$top/$doc"
plain integration/tools/debian/README.Debian $doc/README.Debian
for file in cni-conf/*.json cni-conf/*.conflist cni-conf/README.md dist/consul/*; do
    plain "$file" "$doc/examples/$(basename "$file")"
done
# The address in the examples is that of the README's Consul.
sed -i 's/192\.168\.1\.11/ADDRESS-OF-CONSUL/' "$top/$doc/examples/config.json" "$top/$doc/examples/operator.json"
mkdir -p "$top/etc/crosshost"

find "$top" -type d -exec chmod 755 {} +
find "$top/$doc" -type f -exec chmod 644 {} +
mkdir -m 755 "$top/DEBIAN"
size=$(du -k -s --apparent-size "$top" | cut -f1)
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/" integration/tools/debian/control >"$top/DEBIAN/control"
for script in preinst postinst prerm postrm; do
    install -m 755 "integration/tools/debian/$script" "$top/DEBIAN/$script"
done
(cd "$top" && find usr opt -type f | LC_ALL=C sort | xargs md5sum >DEBIAN/md5sums)
chmod 644 "$top/DEBIAN/control" "$top/DEBIAN/md5sums"
find "$top" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
file=crosshost_${version}_$arch.deb
# One thread: how xz cuts the data for several depends on the machine. Tests of large debug builds ask for gzip.
dpkg-deb --root-owner-group --threads-max=1 -Z"${DEB_COMPRESSION:-xz}" --build "$top" "$folder/$file.new" >/dev/null
mv "$folder/$file.new" "$folder/$file"
(cd "$folder" && sha256sum "$file" >"$file.sha256")
echo "$folder/$file"
