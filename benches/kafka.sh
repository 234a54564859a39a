#!/usr/bin/env bash
# `kubetide run` from Kafka (zstd) against the same events from a file: CPU seconds per event and peak memory.
#
#     benches/kafka.sh
#
# Starts a broker of its own (tests/kafka/start.sh: Java 17, Maven for the first start) and stops it at the end.
# EVENTS (200000), ROUNDS (5) and KUBETIDE (a release build) can be set, as can KUBETIDE_KAFKA_JARS.
# Both sides run with default settings and take turns; the first round is not counted.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
jars=${KUBETIDE_KAFKA_JARS:-$target/tmp/kafka/jars}
port=${PORT:-29092}
export EVENTS=${EVENTS:-200000} ROUNDS=${ROUNDS:-5} PYTHONDONTWRITEBYTECODE=1

if [ -z "${KUBETIDE:-}" ]; then
    cargo build --release --quiet --manifest-path "$root/Cargo.toml" --bin kubetide
    KUBETIDE=$target/release/kubetide
fi
KUBETIDE=$(realpath "$KUBETIDE")
export KUBETIDE

scratch=$(mktemp -d "${TMPDIR:-/tmp}/kubetide-kafka.XXXXXX")
stop() {
    "$root/tests/kafka/stop.sh" --dir "$scratch/broker" || true
    rm -rf "$scratch"
}
trap stop EXIT
broker=$("$root/tests/kafka/start.sh" --dir "$scratch/broker" --jars "$jars" --port "$port" --topics 4 --with $$)

# The same seed makes the same events; one event is one line there and one message here.
"$KUBETIDE" generate --events "$EVENTS" --seed 7 "$scratch/audit.ndjson"
"$KUBETIDE" generate --events "$EVENTS" --seed 7 "kafka://$broker/audit?compression.type=zstd"

cd "$scratch"
BROKER=$broker python3 - <<'END'
import json
import os
import statistics
import subprocess
import sys
import time

program, broker = os.environ["KUBETIDE"], os.environ["BROKER"]
events, rounds = int(os.environ["EVENTS"]), int(os.environ["ROUNDS"])
open("empty.ndjson", "w").close()
megabytes = os.path.getsize("audit.ndjson") / 1e6


def run(source):
    """CPU seconds, wall seconds, peak MB and the uids found."""
    command = [program, "run", source, "--format", "json", "--quiet", "--http", "off", "--dead-letters", "dead.ndjson"]
    started = time.monotonic()
    with open("alerts.ndjson", "wb") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    if status != 0:
        sys.exit(f"{source}: ended with {os.waitstatus_to_exitcode(status)}")
    with open("alerts.ndjson", "rb") as lines:
        uids = {json.loads(line)["finding_info"]["uid"] for line in lines}
    return (used.ru_utime + used.ru_stime, wall, used.ru_maxrss / 1024), uids


figures = {"start only": [], "file": [], "kafka": []}
for number in range(rounds + 1):
    sources = {
        "start only": "empty.ndjson",
        "file": "audit.ndjson",
        "kafka": f"kafka://{broker}/audit?group=bench-{number}&until=end",
    }
    found = {}
    for name, source in sources.items():
        figure, found[name] = run(source)
        if number > 0:
            figures[name].append(figure)
    # The cluster of a bare event is that of its file or of its message's header, so uids differ; their number does not.
    if len(found["file"]) != len(found["kafka"]):
        sys.exit(f"{len(found['file'])} findings in the file, {len(found['kafka'])} in the topic")

print(f"{events} events, {megabytes:.0f} MB, {len(found['file'])} findings on both sides, {rounds} rounds\n")
print(f"{'':12} {'CPU s':>8} {'from':>8} {'to':>8} {'wall s':>8} {'peak MB':>8} {'µs/event':>9} {'less start':>10}")
start = statistics.median(figure[0] for figure in figures["start only"])
cost = {}
for name, runs in figures.items():
    cpu = [figure[0] for figure in runs]
    median, wall, peak = statistics.median(cpu), statistics.median(f[1] for f in runs), max(f[2] for f in runs)
    cost[name] = median / events * 1e6, (median - start) / events * 1e6
    print(
        f"{name:12} {median:8.2f} {min(cpu):8.2f} {max(cpu):8.2f} {wall:8.2f} {peak:8.0f} "
        f"{cost[name][0]:9.2f} {cost[name][1]:10.2f}"
    )
whole, net = (cost["file"][n] / cost["kafka"][n] for n in (0, 1))
print(f"\nevents per CPU second from Kafka against from a file: {whole:.2f} x, without the start {net:.2f} x")
END
