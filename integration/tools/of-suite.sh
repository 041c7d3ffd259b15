#!/bin/sh
# of-suite.sh SUITE FOLDER PACKAGE PATTERN: unpacks packages of another Debian suite into FOLDER, and never installs them: of
# PACKAGE and all that it depends on those whose names match PATTERN whole. apt works on a sources file, lists and cache of its
# own, so the machine's apt configuration and package state stay as they are; apt itself checks the archive's signature.
set -eu

suite=$1 folder=$2 package=$3 pattern=$4
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
case $suite in
*-security) archive=debian-security ;;
*) archive=debian ;;
esac

apt=$(mktemp -d)
trap 'rm -rf "$apt"' EXIT
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/packages" "$apt/unpacked" "$apt/parts"
echo "deb [signed-by=$keyring] http://deb.debian.org/$archive $suite main" >"$apt/sources.list"
private() {
    tool=$1
    shift
    "$tool" -q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/parts" \
        -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts="$apt/parts" \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root \
        -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false "$@"
}

echo "$package of $suite: reading the package list (private copy in $apt)"
private apt-get update
needed=$(private apt-cache depends --recurse --important "$package" | grep -x -E "$pattern" | sort -u)
[ -n "$needed" ] || {
    echo "of-suite.sh: $suite has nothing like $pattern" >&2
    exit 1
}
echo "$package of $suite: unpacking $needed"
# shellcheck disable=SC2086 # a list of words
(cd "$apt/packages" && private apt-get download $needed)
for file in "$apt"/packages/*.deb; do
    dpkg -x "$file" "$apt/unpacked"
done
rm -rf "$folder"
mkdir -p "$(dirname "$folder")"
mv "$apt/unpacked" "$folder"
