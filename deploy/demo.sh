#!/usr/bin/env bash
# The whole way on the made-up sample shop: reviews -> dataset -> rationales -> training -> bundle -> answers over HTTP.
# With --check it stops after the first answers; otherwise it stays up until Ctrl-C. Called by `make demo`.
set -euo pipefail
cd "$(dirname "$0")/.."

check=false
[[ "${1:-}" == "--check" ]] && check=true
work=work/demo
host=127.0.0.1
port=${RDREC_DEMO_PORT:-8000}

step() { printf '\n\033[1m== %s\033[0m\n' "$*"; }

rm -rf "$work"
mkdir -p "$work"
step "1/7 a sample shop: made-up users, board games and reviews"
rdrec sample --out "$work/shop"
step "2/7 prepare: reviews -> dataset"
rdrec prepare --reviews "$work"/shop/reviews.json.gz --metadata "$work"/shop/metadata.json.gz --out "$work/dataset" --name demo
step "3/7 distill: rationales by rule (an LLM teacher is one flag away)"
rdrec distill "$work/dataset" --teacher extractive
step "4/7 train a tiny RDRec"
OMP_NUM_THREADS=1 rdrec train "$work/dataset" --out "$work/checkpoint" --backbone scratch:tiny \
  --time-budget 2.8 --batch-size 32 --learning-rate 0.002 --ratio 2:1:0.5:0 --set dropout=0.1 # small and often: the shop is small, and texts are what is slow to learn
step "5/7 fit the fusion with the item graph on validation, evaluate on test"
rdrec fuse "$work/checkpoint" "$work/dataset"
rdrec evaluate "$work/checkpoint" "$work/dataset" --task sequential --baselines --no-sasrec --out "$work/sequential.json"
rdrec evaluate "$work/checkpoint" "$work/dataset" --task topn --out "$work/topn.json"
step "6/7 export the bundle"
rdrec export "$work/checkpoint" --out "$work/bundle"
step "7/7 serve it on http://$host:$port"
rdrec-serve --bundle "$work/bundle" --host "$host" --port "$port" >"$work/serve.log" 2>&1 &
server=$!
trap 'kill -TERM $server 2>/dev/null || true; wait $server 2>/dev/null || true' EXIT
user=$(python -c "from rdrec_core.bundle import Bundle; print(Bundle.open('$work/bundle').users.user_ids[0])")
python deploy/first_answers.py "http://$host:$port" "$user" || { tail -n 20 "$work/serve.log"; exit 1; }

if $check; then
  kill -TERM "$server"
  wait "$server"
  trap - EXIT
  printf '\nmake demo-check: every step ended well\n'
else
  printf '\nThe console is at http://%s:%s/ and the API reference at http://%s:%s/docs - Ctrl-C stops the service.\n' \
    "$host" "$port" "$host" "$port"
  wait "$server"
fi
