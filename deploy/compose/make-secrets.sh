#!/usr/bin/env bash
# Random passwords and one API key under ./secrets. Changes nothing that is already there; shows the API key once.
set -euo pipefail
cd "$(dirname "$0")"
umask 077
if [[ -e secrets ]]; then
  echo "deploy/compose/secrets is already there; remove it to make new ones" >&2
  exit 2
fi
folder=$(mktemp -d secrets.XXXXXX)
trap 'rm -rf "$folder"' EXIT
random() { openssl rand -hex 32; }

redis_password=$(random)
api_key=$(random)
api_key_sha256=$(printf %s "$api_key" | sha256sum | cut -d' ' -f1)

cat >"$folder/redis.acl" <<ACL
user default on nopass -@all +ping
user rdrec on >$redis_password ~rdrec:* +@all -@admin -@dangerous
ACL

cat >"$folder/rdrec.toml" <<TOML
# Settings of the service that are secret; all others are RDREC_* variables. See docs/operations.md.
redis_url = "redis://rdrec:$redis_password@redis:6379/0"
log_salt = "$(random)"

[[api_keys]]
name = "first"
sha256 = "$api_key_sha256"
scopes = ["recommend", "write", "admin"]
TOML

random >"$folder/grafana_admin_password"
# Compose mounts these files as they are, and the containers' users are not this one; the folder keeps others out.
chmod 444 "$folder"/*
mv "$folder" secrets
trap - EXIT
echo "API key (shown only now): $api_key"
