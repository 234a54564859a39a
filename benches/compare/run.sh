#!/usr/bin/env bash
# Kubetide against DuckDB on the same log, process to process.
#
#     benches/compare/run.sh [LOG.ndjson[.gz]]
#
# Without a log, one is generated. EVENTS (200000), ROUNDS (5) and KUBETIDE (a release build) can be set.
# Needs Python 3 and network access to PyPI for the first run.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
here=$root/benches/compare
target=${CARGO_TARGET_DIR:-$root/target}
scratch=$target/compare
events=${EVENTS:-200000}
rounds=${ROUNDS:-5}
export PYTHONDONTWRITEBYTECODE=1

mkdir -p "$scratch"
if [ -z "${KUBETIDE:-}" ]; then
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" --bin kubetide
    KUBETIDE=$target/release/kubetide
fi
if [ ! -x "$scratch/venv/bin/python" ]; then
    python3 -m venv "$scratch/venv"
fi
python=$scratch/venv/bin/python
"$python" -c 'import duckdb; assert duckdb.__version__ == "2.0.0"' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check duckdb==2.0.0

log=${1:-}
if [ -z "$log" ]; then
    log=$scratch/generated.ndjson
    "$KUBETIDE" generate --events "$events" --seed 7 --attacks all "$log"
fi
"$python" "$here/loadable.py" "$log" >"$scratch/loadable.ndjson"
"$python" "$here/measure.py" "$KUBETIDE" "$scratch/loadable.ndjson" "$rounds"
