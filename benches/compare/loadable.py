"""Copies a log without the events that DuckDB cannot load, and says how many those were.

    python loadable.py LOG.ndjson[.gz] > LOADABLE.ndjson
"""

import gzip
import json
import sys

from schema import loadable


def main():
    path = sys.argv[1]
    total = dropped = 0
    with gzip.open(path, "rb") if path.endswith(".gz") else open(path, "rb") as lines:
        for line in lines:
            total += 1
            if loadable(json.loads(line)):
                sys.stdout.buffer.write(line)
            else:
                dropped += 1
    print(f"left out {dropped} of {total} events that DuckDB cannot load (JSON patches)", file=sys.stderr)


if __name__ == "__main__":
    main()
