"""Loads a log into DuckDB with explicit columns and runs the twelve queries.

    python duckdb_12.py LOG.ndjson [THREADS]

Prints one JSON object: the counts by detection, and CPU and wall seconds of this process, start-up included.
"""

import json
import os
import resource
import sys
import time

import duckdb

from schema import COLUMNS, sql_type

CREATED = "verb = 'create' AND code BETWEEN 200 AND 299 AND subresource IS NULL"
CONTAINERS = """list_concat(list_concat(coalesce(body.spec.containers, []), coalesce(body.spec.initContainers, [])),
    coalesce(body.spec.ephemeralContainers, []))"""

# The same conditions as detections/*.yaml, in DuckDB's words.
QUERIES = {
    "bench-dashboard-exposed": f"""{CREATED} AND api_group IS NULL AND resource = 'services'
        AND name = 'kubernetes-dashboard' AND body.spec.type IN ('NodePort', 'LoadBalancer')""",
    "bench-wildcard-role": f"""{CREATED} AND resource = 'clusterroles'
        AND len(list_filter(body.rules, lambda rule: list_contains(rule.verbs, '*'))) > 0
        AND len(list_filter(body.rules, lambda rule: list_contains(rule.resources, '*'))) > 0""",
    "bench-host-path": f"""{CREATED} AND resource = 'pods'
        AND len(list_filter(body.spec.volumes, lambda volume:
            rtrim(volume.hostPath.path, '/') IN ('', '/etc', '/root', '/proc', '/var/run/docker.sock'))) > 0""",
    "bench-privileged": f"""{CREATED} AND resource = 'pods'
        AND len(list_filter({CONTAINERS}, lambda one: one.securityContext.privileged)) > 0""",
    "bench-exec-system": """resource = 'pods' AND subresource = 'exec' AND namespace = 'kube-system'
        AND code BETWEEN 101 AND 299""",
    "bench-anonymous": "\"user\".username = 'system:anonymous' AND resource IS NOT NULL AND code BETWEEN 101 AND 299",
    "bench-cluster-admin": f"""{CREATED} AND resource IN ('clusterrolebindings', 'rolebindings')
        AND body.roleRef.name = 'cluster-admin'""",
    "bench-secrets-list": """resource = 'secrets' AND verb = 'list' AND "user".username NOT LIKE 'system:%'
        AND code BETWEEN 200 AND 299""",
    "bench-impersonation": "impersonatedUser.username IS NOT NULL AND code BETWEEN 101 AND 299",
    "bench-webhook": f"""{CREATED}
        AND resource IN ('mutatingwebhookconfigurations', 'validatingwebhookconfigurations')
        AND "user".username NOT LIKE 'system:%'""",
    "bench-sys-admin": f"""{CREATED} AND resource = 'pods'
        AND len(list_filter({CONTAINERS}, lambda one:
            list_contains(one.securityContext.capabilities."add", 'SYS_ADMIN'))) > 0""",
    "bench-secret-denied": "resource = 'secrets' AND verb IN ('get', 'list') AND code = 403",
}


def main():
    started = time.monotonic()
    log, threads = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1
    database = duckdb.connect(config={"threads": threads})
    columns = ", ".join(f"'{name}': '{sql_type(shape)}'" for name, shape in COLUMNS.items())
    database.execute(
        f"""CREATE TABLE audit AS
        SELECT *, objectRef.resource AS resource, objectRef.subresource AS subresource, objectRef.namespace AS namespace,
            objectRef.name AS name, objectRef.apiGroup AS api_group, responseStatus.code AS code, requestObject AS body
        FROM read_json(?, format = 'newline_delimited', columns = {{{columns}}})
        WHERE stage <> 'RequestReceived'""",
        [log],
    )
    # The stages of one request count once, as they do in an alert's identity.
    counts = {
        name: database.execute(f"SELECT count(DISTINCT auditID) FROM audit WHERE {condition}").fetchone()[0]
        for name, condition in QUERIES.items()
    }
    events = database.execute("SELECT count(*) FROM audit").fetchone()[0]
    used = resource.getrusage(resource.RUSAGE_SELF)
    report = {
        "duckdb": duckdb.__version__,
        "events": events,
        "counts": counts,
        "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        "wall_s": round(time.monotonic() - started, 3),
        "rss_mb": used.ru_maxrss // 1024,
    }
    print(json.dumps(report))
    sys.stdout.flush()
    # Leave without tearing the table down, which is no part of the job.
    os._exit(0)


if __name__ == "__main__":
    main()
