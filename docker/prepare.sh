#!/bin/sh
# prepare.sh FOLDER SITE...: a folder for each party with its own keys. Once, before the first start.
# On machines of their own, each site runs `run.sh site-key SITE` itself, sends site.pub to the coordinator, and gets ca.crt.
set -eu
run="$(dirname "$0")/run.sh"
folder="$1"
shift

for party in coordinator operator "$@"; do
    mkdir -p "$folder/$party/keys" "$folder/$party/state"
done
mkdir -p "$folder/coordinator/families" "$folder/coordinator/runs" "$folder/operator/runs" "$folder/operator/keys/sites"
KEYS="$folder/coordinator/keys" "$run" authority
KEYS="$folder/coordinator/keys" "$run" ray-token
mkdir -p "$folder/authority"
mv "$folder/coordinator/keys/ca.key" "$folder/authority/ca.key" # signs further certificates; no party needs it
cp "$folder/coordinator/keys/ca.crt" "$folder/operator/keys/ca.crt"
for site in "$@"; do
    KEYS="$folder/$site/keys" "$run" site-key "$site"
    cp "$folder/coordinator/keys/ca.crt" "$folder/coordinator/keys/ray.token" "$folder/$site/keys/"
    cp "$folder/$site/keys/site.pub" "$folder/operator/keys/sites/$site.pub"
done
