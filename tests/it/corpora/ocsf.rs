//! Alerts against the checked-in OCSF schema and its captions.

use std::sync::LazyLock;

use serde_json::Value;

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema = include_str!("../../../schemas/ocsf/detection_finding.schema.json");
    jsonschema::validator_for(&serde_json::from_str(schema).expect("JSON")).expect("a schema")
});

static ENUMS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../../schemas/ocsf/enums.json")).expect("JSON"));

/// Where objects of an OCSF type stand in a finding: the type as `enums.json` names it, and the path.
const PLACES: [(&str, &str); 8] = [
    ("detection_finding", ""),
    ("analytic", "finding_info.analytic"),
    ("account", "cloud.account"),
    ("user", "evidences[].actor.user"),
    ("resource_details", "resources[]"),
    ("observable", "observables[]"),
    ("evidences", "evidences[]"),
    ("network_endpoint", "evidences[].src_endpoint"),
];

/// Fails unless the alert keeps to the schema and every caption is that of its number.
pub fn check(alert: &Value) {
    let errors: Vec<String> =
        SCHEMA.iter_errors(alert).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{alert:#}");
    let mut captions = 0;
    for (class, path) in PLACES {
        for object in at(alert, path) {
            for (key, id) in object.as_object().into_iter().flatten() {
                let table = &ENUMS["enums"][format!("{class}.{key}")];
                if let Some(sibling) = table["sibling"].as_str() {
                    let caption = &table["values"][id.to_string()];
                    assert!(caption.is_string(), "{path}.{key}: {id} is not known");
                    assert_eq!(object[sibling], *caption, "{path}.{sibling}");
                    captions += 1;
                }
            }
        }
    }
    assert!(captions >= 5, "only {captions} captions were looked at");
}

/// Everything at a path such as `evidences[].actor.user`.
fn at<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let below = found.into_iter().filter_map(|value| value.get(step.trim_end_matches("[]")));
        found =
            below.flat_map(|value| value.as_array().map_or_else(|| vec![value], |all| all.iter().collect())).collect();
    }
    found
}
