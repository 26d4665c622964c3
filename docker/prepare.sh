#!/bin/sh
# prepare.sh FOLDER SITE...: a folder for each party with its own keys, before the first start. Run again with one more site it
# makes what is missing and leaves what is there. With RAY=1 also the token of a Ray cluster, which gives whoever has it everything.
# On machines of their own, each site runs `run.sh site-key SITE` itself, sends site.pub to the coordinator, and gets ca.crt.
set -eu
umask 077
[ "$#" -ge 2 ] || { echo "prepare.sh FOLDER SITE..." >&2; exit 2; }
run="$(dirname "$0")/run.sh"
folder="$1"
shift

mkdir -p "$folder/authority" "$folder/operator/runs" "$folder/operator/keys/sites"
for part in families runs signing; do
    mkdir -p "$folder/coordinator/$part"
done
for party in coordinator operator "$@"; do
    mkdir -p "$folder/$party/keys" "$folder/$party/state"
done
keys="$folder/coordinator/keys"
if [ ! -e "$keys/ca.crt" ]; then
    KEYS="$keys" "$run" authority
    mv "$keys/ca.key" "$folder/authority/ca.key" # signs further certificates; no party needs it
    KEYS="$keys" AUTHORITY="$(cd "$folder/authority" && pwd)" "$run" certificate
    cp "$keys/ca.crt" "$folder/operator/keys/ca.crt"
fi
if [ -n "${RAY:-}" ] && [ ! -e "$keys/ray.token" ]; then
    KEYS="$keys" "$run" ray-token
fi
for site in "$@"; do
    mkdir -p "$folder/$site/rows" "$folder/$site/store"
    if [ ! -e "$folder/$site/keys/site" ]; then
        KEYS="$folder/$site/keys" "$run" site-key "$site"
        cp "$keys/ca.crt" "$folder/$site/keys/"
        cp "$folder/$site/keys/site.pub" "$folder/operator/keys/sites/$site.pub"
    fi
    if [ -e "$keys/ray.token" ]; then
        cp "$keys/ray.token" "$folder/$site/keys/"
    fi
done
