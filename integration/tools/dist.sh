#!/bin/sh
# dist.sh BIN TARGET FOLDER: packs the binaries in BIN, built for TARGET, into FOLDER/crosshost-VERSION-TARGET.tar.gz, with what goes to
# hosts beside them and the licences of all that is linked. The same commit and the same tools give the same bytes: names are
# sorted, the owner is root, and every time is that of the commit (SOURCE_DATE_EPOCH, if it is set).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$1 target=$2 folder=$3
cd "$root"
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
name=crosshost-$version-$target
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
top=$work/$name

mkdir -p "$folder" "$top"
integration/tools/contents.sh "$bin" "$target" "$top"
cp -r README.md cni-conf dist docs "$top"

find "$top" -type d -exec chmod 755 {} +
find "$top" -type f -exec chmod 644 {} +
chmod 755 "$top"/bin/*
(cd "$top" && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum >SHA256SUMS && chmod 644 SHA256SUMS)
(cd "$work" && tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --format=gnu -cf - "$name" | gzip -n -9) \
    >"$folder/$name.tar.gz.new"
mv "$folder/$name.tar.gz.new" "$folder/$name.tar.gz"
(cd "$folder" && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "$folder/$name.tar.gz"
