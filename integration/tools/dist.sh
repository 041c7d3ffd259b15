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

mkdir -p "$top/THIRD-PARTY/glibc" "$top/THIRD-PARTY/gcc" "$top/THIRD-PARTY/rust" "$folder"
install -D -t "$top/bin" "$bin/overlay" "$bin/crosshost"
ln -s overlay "$top/bin/ipam-kv"
ln -s overlay "$top/bin/portmap"
cp -r LICENSE README.md cni-conf dist docs "$top"
cargo run --quiet --locked -p integration --bin licences -- "$top/THIRD-PARTY"

# What the linker takes from this machine: static parts of the C library and of the compilers.
of() { dpkg-query -W -f '${source:Package} ${source:Version}' "$1" 2>/dev/null || echo "$1, not a Debian package here"; }
text() {
    [ -e "$1" ] || { echo "dist.sh: $1 is missing: whose licence is it?" >&2; exit 1; }
    cp -L "$1" "$2"
}
gcc=$(gcc -dumpversion | cut -d. -f1)
text /usr/share/doc/libc6-dev/copyright "$top/THIRD-PARTY/glibc"
text /usr/share/common-licenses/LGPL-2.1 "$top/THIRD-PARTY/glibc"
text "/usr/share/doc/libgcc-$gcc-dev/copyright" "$top/THIRD-PARTY/gcc"
text /usr/share/common-licenses/GPL-3 "$top/THIRD-PARTY/gcc"
sysroot=$(rustc --print sysroot)
if [ -e "$sysroot/share/doc/rust/COPYRIGHT-library.html" ]; then
    text "$sysroot/share/doc/rust/COPYRIGHT-library.html" "$top/THIRD-PARTY/rust"
fi
cat >"$top/THIRD-PARTY/README" <<END
Crosshost is licensed under the Apache License 2.0 (../LICENSE). Its two binaries are static: each also contains

- the crates that CRATES lists with their licences; the texts are in the folder of each;
- Rust's standard library ($(rustc --version | cut -d' ' -f1,2); MIT or Apache-2.0; rust/ names those that it contains);
- parts of GCC's runtime library ($(of "libgcc-$gcc-dev"); GPL-3.0 with the GCC Runtime Library Exception);
- the GNU C Library ($(of libc6-dev); LGPL-2.1 or later).

The last one asks that you can link the binaries anew with another version of that library. You can: all of the source is
in the repository at commit $(git rev-parse HEAD 2>/dev/null || echo unknown), and \`make build\` links it with the C library of the
machine on which it runs. The library's own source is Debian's source package of the version above.
END

find "$top" -type d -exec chmod 755 {} +
find "$top" -type f -exec chmod 644 {} +
chmod 755 "$top"/bin/*
(cd "$work" && tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --format=gnu -cf - "$name" | gzip -n -9) \
    >"$folder/$name.tar.gz.new"
mv "$folder/$name.tar.gz.new" "$folder/$name.tar.gz"
echo "$folder/$name.tar.gz"
