#!/bin/sh
# contents.sh BIN TARGET FOLDER: puts into FOLDER what both the archive and the package have: the binaries in BIN, built for TARGET, what
# they say of themselves (man pages, completions), the licences of all that is linked, and a list of it (SBOM).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$1 target=$2 top=$3
cd "$root"
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)

mkdir -p "$top/THIRD-PARTY/glibc" "$top/THIRD-PARTY/gcc" "$top/THIRD-PARTY/rust" "$top/completions"
install -D -t "$top/bin" "$bin/overlay" "$bin/crosshost"
ln -s overlay "$top/bin/ipam-kv"
ln -s overlay "$top/bin/portmap"
cp LICENSE "$top"
"$bin/crosshost" man --out "$top/man" >/dev/null
"$bin/crosshost" completion bash >"$top/completions/crosshost.bash"
"$bin/crosshost" completion zsh >"$top/completions/_crosshost"
"$bin/crosshost" completion fish >"$top/completions/crosshost.fish"

# What the linker takes from this machine: static parts of the C library and of the compilers.
of() { dpkg-query -W -f '${source:Package} ${source:Version}' "$1" 2>/dev/null || echo "$1, not a Debian package here"; }
text() {
    [ -e "$1" ] || { echo "contents.sh: $1 is missing: whose licence is it?" >&2; exit 1; }
    cp -L "$1" "$2"
}
gcc=$(gcc -dumpversion | cut -d. -f1)
rust=$(rustc --version | cut -d' ' -f1,2)
text /usr/share/doc/libc6-dev/copyright "$top/THIRD-PARTY/glibc"
text /usr/share/common-licenses/LGPL-2.1 "$top/THIRD-PARTY/glibc"
text "/usr/share/doc/libgcc-$gcc-dev/copyright" "$top/THIRD-PARTY/gcc"
text /usr/share/common-licenses/GPL-3 "$top/THIRD-PARTY/gcc"
sysroot=$(rustc --print sysroot)
if [ -e "$sysroot/share/doc/rust/COPYRIGHT-library.html" ]; then
    text "$sysroot/share/doc/rust/COPYRIGHT-library.html" "$top/THIRD-PARTY/rust"
fi
cargo run --quiet --locked -p integration --bin licences -- "$top/THIRD-PARTY" "$top/sbom.cdx.json" "crosshost $version" \
    "rust-std ${rust#rustc }: MIT OR Apache-2.0" \
    "$(of "libgcc-$gcc-dev"): GPL-3.0-or-later WITH GCC-exception-3.1" \
    "$(of libc6-dev): LGPL-2.1-or-later"
cat >"$top/THIRD-PARTY/README" <<END
Crosshost is licensed under the Apache License 2.0. Its two binaries, built for $target, are static: each also contains

- the crates that CRATES lists with their licences; the texts are in the folder of each;
- Rust's standard library ($rust; MIT or Apache-2.0; rust/ names those that it contains);
- parts of GCC's runtime library ($(of "libgcc-$gcc-dev"); GPL-3.0 with the GCC Runtime Library Exception);
- the GNU C Library ($(of libc6-dev); LGPL-2.1 or later).

The last one asks that you can link the binaries anew with another version of that library. You can: all of the source is
in the repository at commit $(git rev-parse HEAD 2>/dev/null || echo unknown), and \`make build\` links it with the C library of the
machine on which it runs. The library's own source is Debian's source package of the version above.
END
