#!/usr/bin/env bash
# Installs what the end-to-end scenarios call and a machine may lack, or says what to install.
set -euo pipefail
missing=()
for need in ip:iproute2 nft:nftables setpriv:util-linux pkill:procps curl:curl \
    psql:postgresql-client pg_ctlcluster:postgresql; do
    command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >&2 ||
        { apt-get update --quiet >&2 && apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >&2; }
    exit 0
fi
echo "please install: ${missing[*]}" >&2
exit 1
