//! A JSON patch as the fragment of an object that it writes.

use serde_json::{Map, Value};

/// Deepest path and largest list index that are followed; what lies beyond is left out of the fragment.
const DEPTH: usize = 32;
const INDEX: usize = 64;

/// The parts of the object that the patch's `add` and `replace` operations set, as JSON text.
///
/// Values that only `move` or `copy` would bring are not known from the patch. Returns `None` where the text is no
/// JSON patch.
pub(super) fn fragment(patch: &[u8]) -> Option<Vec<u8>> {
    let operations: Vec<Value> = serde_json::from_slice(patch).ok()?;
    let mut root = Value::Object(Map::new());
    for operation in operations {
        let kind = operation.get("op").and_then(Value::as_str)?;
        let path = operation.get("path").and_then(Value::as_str)?;
        if let ("add" | "replace", Some(value)) = (kind, operation.get("value")) {
            let segments: Vec<String> =
                path.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
            if segments.len() <= DEPTH {
                set(&mut root, &segments, "", value.clone());
            }
        }
    }
    serde_json::to_vec(&root).ok()
}

/// Whether members of this key are named by people, so that a number among them is a name and not an index.
fn is_map(parent: &str) -> bool {
    matches!(
        parent,
        "labels" | "annotations" | "data" | "stringData" | "binaryData" | "selector" | "matchLabels" | "nodeSelector"
    )
}

fn set(place: &mut Value, path: &[String], parent: &str, value: Value) {
    let Some((head, rest)) = path.split_first() else {
        *place = value;
        return;
    };
    let index = head.parse::<usize>().ok();
    if (head == "-" || index.is_some()) && !is_map(parent) {
        if !place.is_array() {
            *place = Value::Array(Vec::new());
        }
        let Some(list) = place.as_array_mut() else { return };
        let index = index.filter(|index| *index < INDEX && !rest.is_empty()).unwrap_or(list.len());
        if list.len() <= index {
            list.resize(index + 1, Value::Null);
        }
        set(&mut list[index], rest, "", value);
    } else {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Some(map) = place.as_object_mut() else { return };
        set(map.entry(head.clone()).or_insert(Value::Null), rest, head, value);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::fragment;

    fn of(patch: Value) -> Value {
        let text = fragment(patch.to_string().as_bytes()).expect("a patch");
        serde_json::from_slice(&text).expect("JSON")
    }

    #[test]
    fn operations_become_the_parts_that_they_set() {
        let patch = json!([
            {"op": "test", "path": "/metadata/name", "value": "x"},
            {"op": "add", "path": "/spec/template/spec/volumes/-", "value": {"name": "h", "hostPath": {"path": "/"}}},
            {"op": "replace", "path": "/spec/template/spec/containers/1/image", "value": "evil"},
            {"op": "add", "path": "/metadata/labels/1", "value": "a~b"},
            {"op": "add", "path": "/metadata/annotations/example.com~1key", "value": "v"},
            {"op": "remove", "path": "/spec/replicas"}
        ]);
        assert_eq!(
            of(patch),
            json!({
                "metadata": {"labels": {"1": "a~b"}, "annotations": {"example.com/key": "v"}},
                "spec": {"template": {"spec": {
                    "volumes": [{"name": "h", "hostPath": {"path": "/"}}],
                    "containers": [null, {"image": "evil"}]
                }}}
            })
        );
    }

    #[test]
    fn whole_object_and_hostile_paths_do_no_harm() {
        assert_eq!(of(json!([{"op": "replace", "path": "", "value": {"a": 1}}])), json!({"a": 1}));
        assert_eq!(of(json!([{"op": "add", "path": "/x/99999999999/y", "value": 1}])), json!({"x": [{"y": 1}]}));
        assert_eq!(of(json!([{"op": "add", "path": "/a".repeat(1000), "value": 1}])), json!({}));
        assert_eq!(fragment(b"{\"spec\":{}}"), None);
        assert_eq!(fragment(b"[1,2]"), None);
    }
}
