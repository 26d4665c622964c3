#!/bin/sh
# Every command of a deployment, in one place: the compose files call it in containers, loopback.py on one machine.
# What differs from machine to machine comes from the environment; the defaults are those of the containers.
set -eu
umask 077 # databases, stores and keys are for their owner's eyes

: "${KEYS:=/keys}"              # ca.crt, and a party's own keys
: "${STATE:=/state}"            # what a party keeps between starts
: "${HOST:=0.0.0.0}"            # where a server listens
: "${PORT:=8443}"
: "${SUPERLINK:=superlink:8443}"
: "${SUPERNODE:=supernode:9094}"
: "${SITE_FILE:=/site/site.yaml}"
: "${NODE_CONFIG:=site-file=\"$SITE_FILE\"}" # an adopted app's: site="NAME" store="FOLDER"
: "${RAY_HEAD:=head:6379}"
: "${CPUS:=1}"
: "${FLWR_HOME:=$STATE/flwr}"
: "${AUTHORITY:=$KEYS}"         # where ca.key lies

export KEYS STATE FLWR_HOME FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
export RAY_USAGE_STATS_ENABLED=0 RAY_ENABLE_UV_RUN_RUNTIME_ENV=0

new() { # what others hold a copy of, or know by its key, is never made anew over the old
    [ ! -e "$1" ] || { echo "run.sh: $1 is there already and stays; move it away if it is to be made anew" >&2; exit 1; }
}

case "${1:-}" in

# --- keys, on the coordinator's machine. authority: once. certificate: again before it ends (DAYS), with ca.key in AUTHORITY;
# NAMES are further ones by which others reach the SuperLink: DNS:fed.example.org,IP:192.0.2.7
authority)
    mkdir -p "$KEYS" && cd "$KEYS"
    new "$KEYS/ca.crt" && new "$KEYS/superexec.secret"
    openssl req -x509 -newkey rsa:3072 -nodes -days "${DAYS:-3650}" -subj "/CN=fedunlearn ca" -keyout ca.key -out ca.crt \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"
    openssl rand -out superexec.secret 32
    ;;
certificate)
    cd "$KEYS"
    openssl req -newkey rsa:3072 -nodes -subj "/CN=superlink" -keyout server.key.new -out server.csr
    printf "subjectAltName=%s\nextendedKeyUsage=serverAuth\n" \
        "DNS:superlink,DNS:localhost,IP:127.0.0.1${NAMES:+,$NAMES}" > server.ext
    openssl x509 -req -in server.csr -CA ca.crt -CAkey "$AUTHORITY/ca.key" -days "${DAYS:-365}" -extfile server.ext -out server.pem
    mv server.key.new server.key
    rm server.csr server.ext
    ;;

# --- keys: once a site, on its own machine; site.pub goes to the coordinator, ca.crt comes from there
site-key)
    mkdir -p "$KEYS" && cd "$KEYS"
    new "$KEYS/site"
    ssh-keygen -q -t ecdsa -b 384 -N "" -C "$2" -f site
    [ -e superexec.secret ] || openssl rand -out superexec.secret 32
    ;;

# --- the operator: connection NAME HOST:PORT says how to reach the SuperLink; register-all FOLDER NAME registers FOLDER/<site>.pub
connection)
    mkdir -p "$FLWR_HOME"
    printf '[superlink]\ndefault = "%s"\n\n[superlink.%s]\naddress = "%s"\nroot-certificates = "%s"\n' \
        "$2" "$2" "$3" "$KEYS/ca.crt" > "$FLWR_HOME/config.toml"
    ;;
register-all)
    failed=0
    for key in "$2"/*.pub; do
        [ -e "$key" ] || { echo "run.sh: no public key, SITE.pub, in $2" >&2; exit 1; }
        site="$(basename "$key" .pub)"
        if told="$(flwr supernode register "$key" "$3" --name "$site" 2>&1)"; then
            echo "$site: $told"
        elif echo "$told" | tr -s ' \n' ' ' | grep -qi "key already in use"; then
            echo "$site: is registered"
        else
            echo "run.sh: $site is not registered: $told" >&2
            failed=1
        fi
    done
    exit "$failed"
    ;;
fedunlearn)
    exec "$@"
    ;;
flwr)
    exec "$@"
    ;;

# --- Flower: the coordinator's machine
superlink)
    exec flower-superlink --host "$HOST" --port "$PORT" --isolation process --enable-supernode-auth \
        --ssl-ca-certfile "$KEYS/ca.crt" --ssl-certfile "$KEYS/server.pem" --ssl-keyfile "$KEYS/server.key" \
        --superexec-auth-secret-file "$KEYS/superexec.secret" --database "$STATE/superlink.db" \
        --disable-runtime-dependency-installation
    ;;
purge) # after a seal: what was deleted from the SuperLink's database still stands in its log of changes, weights included
    exec python -c "import os, sqlite3
there = sqlite3.connect('file:' + os.environ['STATE'] + '/superlink.db?mode=rw', uri=True, timeout=60, isolation_level=None)
there.execute('PRAGMA secure_delete = ON'); there.execute('VACUUM')
busy = there.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone()[0]
raise SystemExit('run.sh: the database is in use, so its log of changes stays; try again' if busy else 0)"
    ;;
healthy)
    exec python -c "import os, ssl, urllib.request as u; u.urlopen('https://localhost:$PORT/health', timeout=5,
context=ssl.create_default_context(cafile=os.environ['KEYS'] + '/ca.crt'))"
    ;;
serverapp) # FEDUNLEARN_FAMILIES says where the families live
    : "${FEDUNLEARN_FAMILIES:?the folder of families}"
    exec flower-superexec --runtime-api-address "$SUPERLINK" --root-certificates "$KEYS/ca.crt" \
        --superexec-auth-secret-file "$KEYS/superexec.secret"
    ;;

# --- Flower: a site's machine
supernode)
    exec flower-supernode --superlink "$SUPERLINK" --root-certificates "$KEYS/ca.crt" \
        --auth-supernode-private-key "$KEYS/site" --isolation process --host "$HOST" --port "$PORT" \
        --superexec-auth-secret-file "$KEYS/superexec.secret" --node-config "$NODE_CONFIG"
    ;;
clientapp)
    exec flower-superexec --insecure --runtime-api-address "$SUPERNODE" --superexec-auth-secret-file "$KEYS/superexec.secret"
    ;;

# --- Ray: whoever has the token may do anything on every machine of the cluster
ray-token)
    new "$KEYS/ray.token"
    openssl rand -hex 32 | tr -d '\n' > "$KEYS/ray.token"
    ;;
ray-head) # ray-head [SITE]: the coordinator's machine, which may be a site too
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$KEYS/ray.token"
    exec ray start --head --block ${NODE_IP:+--node-ip-address "$NODE_IP"} --port "$PORT" --num-cpus "$CPUS" \
        --include-dashboard=false --disable-usage-stats --temp-dir "${RAY_TEMP:-/tmp/ray}" --resources "{${2:+\"site:$2\": 1}}"
    ;;
ray-worker) # ray-worker SITE; FEDUNLEARN_SITES says where SITE/site.yaml is
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$KEYS/ray.token"
    : "${FEDUNLEARN_SITES:?the folder with $2/site.yaml}"
    exec ray start --block --address "$RAY_HEAD" ${NODE_IP:+--node-ip-address "$NODE_IP"} --num-cpus "$CPUS" --disable-usage-stats \
        --resources "{\"site:$2\": 1}"
    ;;
*)
    echo "run.sh: ${1:-nothing} is none of: authority, certificate, site-key, connection, register-all, superlink, purge, healthy," \
        "serverapp, supernode, clientapp, fedunlearn, flwr, ray-token, ray-head, ray-worker" >&2
    exit 2
    ;;
esac
