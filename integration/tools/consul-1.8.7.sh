#!/bin/sh
# Consul 1.8.7, the oldest Consul that crosshost is tested with: the binary of Debian bullseye's package, unpacked into
# target/tools/consul-1.8.7/ and never installed. apt works on a sources file, lists and cache of its own, so the machine's
# apt configuration and package state stay as they are; apt itself checks the archive's signature. Run again, it does nothing.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
into=$root/target/tools/consul-1.8.7
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

if "$into/usr/bin/consul" version 2>/dev/null | grep -q 'v1\.8\.7'; then
    echo "consul 1.8.7: already in $into"
    exit 0
fi

apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/package" "$apt/parts"
echo "deb [signed-by=$keyring] http://deb.debian.org/debian bullseye main" >"$apt/sources.list"
private() {
    apt-get -q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/parts" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$apt/parts" \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

echo "consul 1.8.7: reading bullseye's package list (private copy in $apt)"
private update
echo "consul 1.8.7: downloading the package"
(cd "$apt/package" && private download consul)
echo "consul 1.8.7: unpacking into $into"
dpkg -x "$apt"/package/consul_1.8.7*.deb "$apt/unpacked"
rm -rf "$into"
mkdir -p "$(dirname "$into")"
mv "$apt/unpacked" "$into"
"$into/usr/bin/consul" version
