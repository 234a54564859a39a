//! The report as a layer of the ATT&CK Navigator, format 4.5.

use serde_json::{Value, json};

use super::{Report, ids, level_text};
use crate::detection::coverage::Cell;
use crate::detection::{ATTACK_VERSION, Tactic};

/// From the first detection to many.
const COLOURS: [&str; 3] = ["#dceefb", "#4f9bd9", "#0b3d6e"];

/// The layer as JSON text.
pub(super) fn layer(report: &Report) -> String {
    let most = report.cells.iter().map(Cell::count).max().unwrap_or(0).max(1);
    let layer = json!({
        "name": "Kubetide detections",
        "versions": { "attack": ATTACK_VERSION, "navigator": "5.1.0", "layer": "4.5" },
        "domain": "enterprise-attack",
        "description": report.scope(),
        "filters": { "platforms": ["Containers"] },
        "sorting": 3,
        "layout": {
            "layout": "side",
            "showID": true,
            "showName": true,
            "showAggregateScores": false,
            "countUnscored": false,
            "aggregateFunction": "max",
            "expandedSubtechniques": "annotated",
        },
        "hideDisabled": false,
        "techniques": report.cells.iter().map(technique).collect::<Vec<Value>>(),
        "gradient": { "colors": COLOURS, "minValue": 0, "maxValue": most },
        "legendItems": [
            { "label": "many detections", "color": COLOURS[2] },
            { "label": "few detections", "color": COLOURS[0] },
        ],
        "metadata": [
            { "name": "log", "value": report.feed.title },
            { "name": "audit level", "value": level_text(report.level) },
            { "name": "enabled detections", "value": report.enabled.len().to_string() },
        ],
        "showTacticRowBackground": false,
        "selectTechniquesAcrossTactics": false,
        "selectSubtechniquesWithParent": false,
        "selectVisibleTechniques": false,
    });
    format!("{layer:#}\n")
}

fn technique(cell: &Cell) -> Value {
    let count = cell.count();
    let mut value = json!({
        "techniqueID": cell.technique.id,
        "tactic": short_name(cell.tactic),
        "score": count,
        "comment": comment(cell),
        "enabled": true,
        "metadata": [],
        "showSubtechniques": !cell.through.is_empty(),
    });
    let detections = cell.direct.iter();
    value["metadata"] = detections
        .map(|detection| json!({ "name": format!("{} ({})", detection.id, detection.severity.as_str()), "value": &*detection.title }))
        .collect();
    value
}

fn comment(cell: &Cell) -> String {
    match (cell.direct.is_empty(), cell.through.is_empty()) {
        (true, true) => "no enabled detection".to_owned(),
        (false, true) => ids(&cell.direct).join(", "),
        (true, false) => format!("by sub-techniques: {}", ids(&cell.through).join(", ")),
        (false, false) => {
            format!("{}; by sub-techniques: {}", ids(&cell.direct).join(", "), ids(&cell.through).join(", "))
        }
    }
}

/// The tactic as ATT&CK's data names it: `privilege-escalation`.
fn short_name(tactic: &Tactic) -> String {
    tactic.name.to_lowercase().replace(' ', "-")
}
