#!/usr/bin/env bash
# Stops the broker that start.sh started with the same --dir, and waits until it is gone.
#
#   tests/kafka/stop.sh --dir DIR [--kill]
#
#   --kill   no clean shutdown, for crash tests
set -euo pipefail

dir= signal=TERM
while [ $# -gt 0 ]; do
  case $1 in
    --dir) dir=$2; shift 2 ;;
    --kill) signal=KILL; shift ;;
    *) echo "stop.sh: unknown argument $1" >&2; exit 2 ;;
  esac
done
[ -n "$dir" ] || { echo "stop.sh: --dir is needed" >&2; exit 2; }
[ -s "$dir/pid" ] || exit 0

pid=$(cat "$dir/pid")
kill -s $signal "$pid" 2>/dev/null || true
for ((tick = 0; tick < 150; tick++)); do
  kill -0 "$pid" 2>/dev/null || break
  sleep 0.2
done
kill -s KILL "$pid" 2>/dev/null || true
rm -f "$dir/pid"
