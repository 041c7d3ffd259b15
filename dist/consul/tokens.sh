#!/bin/sh
# tokens.sh FOLDER HOST...: makes the tokens with which crosshost uses a Consul that has access control: FOLDER/operator, and
# FOLDER/HOST for each host. The first time it begins Consul's access control; FOLDER/management is then the token that may do
# everything. What is there stays, so that a host can be added later.
set -eu
umask 077

here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
mkdir -p "$folder"
secret() { sed -n 's/.*"SecretID": "\(.*\)".*/\1/p'; }

# A server that has just started has no leader yet.
tries=0
until [ -s "$folder/management" ]; do
    if answer=$(consul acl bootstrap -format=json 2>&1); then
        echo "$answer" | secret >"$folder/management"
    elif [ $((tries += 1)) -gt 30 ]; then
        echo "tokens.sh: consul acl bootstrap: $answer" >&2
        exit 1
    else
        sleep 1
    fi
done
export CONSUL_HTTP_TOKEN_FILE="$folder/management"

# token NAME: the policy on standard input, and a token with it. Either may be there from an earlier run.
token() {
    [ ! -s "$folder/$1" ] || return 0
    consul acl policy read -name "crosshost-$1" >/dev/null 2>&1 ||
        consul acl policy create -name "crosshost-$1" -rules - >/dev/null
    made=$(consul acl token create -description "crosshost: $1" -policy-name "crosshost-$1" -format=json)
    echo "$made" | secret >"$folder/$1"
}

token operator <"$here/operator.hcl"
for host; do
    sed "s/HOST/$host/" "$here/host.hcl" | token "$host"
done
