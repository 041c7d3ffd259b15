#!/bin/sh
# image.sh BIN TARGET FOLDER: makes the image FOLDER/crosshost-VERSION-TARGET.oci.tar, an OCI archive with the binaries in BIN, built for
# TARGET, and their licences, and nothing else: they are static. `ctr images import` and `nerdctl load` take it, and so do registries'
# tools. The same commit and the same tools give the same bytes, as for the archive (dist.sh).
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$1 target=$2 folder=$3
cd "$root"
version=$(sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' Cargo.toml)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
case $target in
x86_64-*) arch=amd64 ;;
aarch64-*) arch=arm64 ;;
*) echo "image.sh: $target: which architecture of OCI is that?" >&2; exit 1 ;;
esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work/contents" "$work/root/usr/share/doc/crosshost" "$work/oci/blobs/sha256"
integration/tools/contents.sh "$bin" "$target" "$work/contents"
mv "$work/contents/bin" "$work/root/bin"
mv "$work/contents/LICENSE" "$work/contents/THIRD-PARTY" "$work/contents/sbom.cdx.json" "$work/root/usr/share/doc/crosshost"
# Where the host's folders are mounted.
mkdir -p "$work/root/run" "$work/root/etc/crosshost" "$work/root/var/lib/crosshost"
find "$work/root" -type d -exec chmod 755 {} +
find "$work/root" -type f -exec chmod 644 {} +
chmod 755 "$work"/root/bin/*

packed() { # packed FOLDER: as a tar whose bytes follow from the content
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" --format=gnu -C "$1" -cf - .
}
blob() { # blob FILE: puts it where its digest says, and prints the digest
    digest=$(sha256sum "$1" | cut -d' ' -f1)
    mv "$1" "$work/oci/blobs/sha256/$digest"
    echo "$digest"
}
size() { stat -c %s "$work/oci/blobs/sha256/$1"; }

packed "$work/root" >"$work/layer"
diff=$(sha256sum "$work/layer" | cut -d' ' -f1)
gzip -n -9 "$work/layer"
layer=$(blob "$work/layer.gz")
created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
printf '{"created":"%s","architecture":"%s","os":"linux","config":{"Entrypoint":["/bin/crosshost"],"Env":["PATH=/bin"],"Labels":{"org.opencontainers.image.version":"%s","org.opencontainers.image.licenses":"Apache-2.0"}},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"%s","created_by":"integration/tools/image.sh"}]}' \
    "$created" "$arch" "$version" "$diff" "$created" >"$work/config"
config=$(blob "$work/config")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' \
    "$config" "$(size "$config")" "$layer" "$(size "$layer")" >"$work/manifest"
manifest=$(blob "$work/manifest")
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"platform":{"architecture":"%s","os":"linux"},"annotations":{"io.containerd.image.name":"localhost/crosshost:%s","org.opencontainers.image.ref.name":"%s"}}]}' \
    "$manifest" "$(size "$manifest")" "$arch" "$version" "$version" >"$work/oci/index.json"
printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
name=crosshost-$version-$target.oci.tar
packed "$work/oci" >"$folder/$name.new"
mv "$folder/$name.new" "$folder/$name"
(cd "$folder" && sha256sum "$name" >"$name.sha256")
echo "$folder/$name"
