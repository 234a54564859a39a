"""The columns that the twelve queries read, as nested types: a dict is a STRUCT, a list of one a LIST, a word a type.

DuckDB refuses a file in which one value does not fit, so `loadable` tells which events to leave out (for both sides).
"""

CONTAINER = {
    "name": "VARCHAR",
    "image": "VARCHAR",
    "securityContext": {"privileged": "BOOLEAN", "capabilities": {"add": ["VARCHAR"]}},
}

BODY = {
    "kind": "VARCHAR",
    "metadata": {"name": "VARCHAR", "namespace": "VARCHAR"},
    "spec": {
        "type": "VARCHAR",
        "containers": [CONTAINER],
        "initContainers": [CONTAINER],
        "ephemeralContainers": [CONTAINER],
        "volumes": [{"name": "VARCHAR", "hostPath": {"path": "VARCHAR"}}],
    },
    "rules": [{"verbs": ["VARCHAR"], "apiGroups": ["VARCHAR"], "resources": ["VARCHAR"]}],
    "roleRef": {"kind": "VARCHAR", "name": "VARCHAR"},
}

USER = {"username": "VARCHAR", "groups": ["VARCHAR"]}

COLUMNS = {
    "auditID": "VARCHAR",
    "stage": "VARCHAR",
    "verb": "VARCHAR",
    "requestURI": "VARCHAR",
    "user": USER,
    "impersonatedUser": USER,
    "sourceIPs": ["VARCHAR"],
    "userAgent": "VARCHAR",
    "objectRef": {
        "resource": "VARCHAR",
        "namespace": "VARCHAR",
        "name": "VARCHAR",
        "apiGroup": "VARCHAR",
        "subresource": "VARCHAR",
    },
    "responseStatus": {"code": "BIGINT", "reason": "VARCHAR"},
    "requestReceivedTimestamp": "TIMESTAMP",
    "stageTimestamp": "TIMESTAMP",
    "requestObject": BODY,
}


def sql_type(shape):
    """A shape as DuckDB writes it."""
    if isinstance(shape, dict):
        return "STRUCT(" + ", ".join(f'"{key}" {sql_type(inner)}' for key, inner in shape.items()) + ")"
    if isinstance(shape, list):
        return sql_type(shape[0]) + "[]"
    return shape


def loadable(value, shape=COLUMNS):
    """Whether a value fits a shape. Only containers matter: scalars are cast, and a VARCHAR takes anything."""
    if value is None:
        return True
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(loadable(value.get(key), inner) for key, inner in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(loadable(item, shape[0]) for item in value)
    if shape == "VARCHAR":
        return True
    return not isinstance(value, (dict, list))
