#!/usr/bin/env python3
"""From an event to its alert, at a steady rate.

    benches/latency.py [KUBETIDE] [EVENTS_PER_SECOND] [SECONDS]

Writes a generated log to `kubetide run -` at that rate (10000 a second for 20 seconds by default), and takes the time
from the write of the event that an alert is about to the alert's line. Only alerts of detections that one event decides
count: those with a memory wait for the watermark by design. The first three seconds are not counted.
"""
import json
import os
import subprocess
import sys
import tempfile
import threading
import time

program = sys.argv[1] if len(sys.argv) > 1 else "target/release/kubetide"
rate = int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
seconds = int(sys.argv[3]) if len(sys.argv) > 3 else 20
WARM_UP = 3
# Bursts of 5 ms: finer ones would measure the writer.
TICK = 0.005

with tempfile.TemporaryDirectory() as scratch:
    log = os.path.join(scratch, "audit.ndjson")
    events = str(rate * (seconds + WARM_UP))
    subprocess.run([program, "generate", "--events", events, "--seed", "7", "--attacks", "all", log], check=True,
                   stderr=subprocess.DEVNULL)
    lines = open(log, "rb").readlines()
    ids = [json.loads(line)["auditID"] for line in lines]
    written = {}
    found = []
    command = [program, "run", "-", "--format", "json", "--quiet", "--http", "off",
               "--dead-letters", os.path.join(scratch, "dead.ndjson")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read():
        for line in process.stdout:
            found.append((time.monotonic(), line))

    reader = threading.Thread(target=read)
    reader.start()
    # Planning is done before the first event comes.
    time.sleep(3)
    began = time.monotonic()
    at, behind = 0, 0.0
    while at < len(lines):
        due = min(len(lines), int((time.monotonic() - began) * rate))
        if due > at:
            now = time.monotonic()
            for name in ids[at:due]:
                written[name] = now
            process.stdin.write(b"".join(lines[at:due]))
            process.stdin.flush()
            behind = max(behind, time.monotonic() - now)
            at = due
        time.sleep(TICK)
    process.stdin.close()
    reader.join()
    if process.wait() != 0:
        sys.exit(f"kubetide ended with {process.returncode}")

latencies = []
for seen, line in found:
    alert = json.loads(line)
    related = [event["uid"] for event in alert["finding_info"].get("related_events", [])]
    # One event decides: an alert with one related event, made of no window.
    if alert.get("activity_id") != 1 or len(related) != 1 or related[0] not in written:
        continue
    if written[related[0]] - began >= WARM_UP:
        latencies.append(seen - written[related[0]])
latencies.sort()
if not latencies:
    sys.exit("no alerts to measure")


def percentile(share):
    return latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1e3


print(f"{len(latencies)} alerts at {rate} events a second for {seconds} s; the longest write took {behind * 1e3:.0f} ms")
print(f"event to alert: p50 {percentile(0.5):.0f} ms, p90 {percentile(0.9):.0f} ms, p99 {percentile(0.99):.0f} ms, "
      f"longest {latencies[-1] * 1e3:.0f} ms")
