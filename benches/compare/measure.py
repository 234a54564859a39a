"""Measures `kubetide run` against DuckDB on one file, process to process, in turns.

    python measure.py KUBETIDE LOG.ndjson [ROUNDS]

CPU seconds are user + system of the whole process. Prints a table and the ratio of medians, then compares what the
twelve conditions found on both sides. Exit code 1 where they differ.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).parent


def run(command, stdout):
    """CPU seconds, wall seconds and peak memory in MB of a command that has to succeed."""
    started = time.monotonic()
    process = subprocess.Popen([str(word) for word in command], stdout=stdout)
    _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{command[0]} ended with {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime, time.monotonic() - started, used.ru_maxrss // 1024


def kubetide_command(kubetide, log, *more):
    return [kubetide, "run", log, "--format", "json", "--workers", "1", "--quiet", *more]


def counts_of(kubetide, log, scratch):
    """Distinct findings by detection of the twelve."""
    alerts = scratch.with_suffix(".alerts.ndjson")
    with alerts.open("wb") as out:
        run(kubetide_command(kubetide, log, "--no-shipped", "--detections", HERE / "detections"), out)
    found = defaultdict(set)
    with alerts.open("rb") as lines:
        for line in lines:
            finding = json.loads(line)["finding_info"]
            found[finding["analytic"]["uid"]].add(finding["uid"])
    return {name: len(uids) for name, uids in found.items()}


def main():
    kubetide, log = sys.argv[1], Path(sys.argv[2])
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    megabytes = log.stat().st_size / 1e6
    with log.open("rb") as lines:
        events = sum(1 for _ in lines)
    print(f"{events} events, {megabytes:.0f} MB, {rounds} rounds, one thread each\n")
    # Both read the file from memory from the first measured round on.
    report = log.with_suffix(".duckdb.json")
    contenders = {
        "kubetide, shipped pack": kubetide_command(kubetide, log),
        "kubetide, the twelve": kubetide_command(kubetide, log, "--no-shipped", "--detections", HERE / "detections"),
        "duckdb, the twelve": [sys.executable, HERE / "duckdb_12.py", log, "1"],
    }
    figures = defaultdict(list)
    for number in range(rounds + 1):
        for name, command in contenders.items():
            with (report if name.startswith("duckdb") else Path(os.devnull)).open("wb") as out:
                figure = run(command, out)
            if number > 0:
                figures[name].append(figure)
    print(f"{'':24} {'CPU s':>8} {'from':>8} {'to':>8} {'wall s':>8} {'MB':>6} {'events/CPU s':>14}")
    medians = {}
    for name, runs in figures.items():
        cpu = [used for used, _, _ in runs]
        medians[name] = statistics.median(cpu)
        wall = statistics.median(wall for _, wall, _ in runs)
        peak = max(peak for _, _, peak in runs)
        print(
            f"{name:24} {medians[name]:8.3f} {min(cpu):8.3f} {max(cpu):8.3f} {wall:8.3f} {peak:6}"
            f" {events / medians[name]:14,.0f}"
        )
    peer = medians["duckdb, the twelve"]
    for name, cpu in medians.items():
        if name.startswith("kubetide"):
            print(f"\nduckdb / {name}: {peer / cpu:.2f} × the CPU seconds", end="")
    print("\n")
    theirs = json.loads(report.read_text())["counts"]
    ours = counts_of(kubetide, log, log)
    print(f"{'condition':28} {'kubetide':>9} {'duckdb':>9}")
    different = [name for name in theirs if ours.get(name, 0) != theirs[name]]
    for name, count in theirs.items():
        print(f"{name:28} {ours.get(name, 0):9} {count:9}{'   DIFFERENT' if name in different else ''}")
    if different:
        sys.exit(1)
    print("\nall counts are equal")


if __name__ == "__main__":
    main()
