//! What a query is planned to.

use super::super::{EventPlan, Shape};
use super::planner;

/// `filter` with its conjuncts, or `general` with its candidates, and the columns read.
fn shape(sql: &str) -> String {
    let plan = planner().plan_event(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let texts = |conjuncts: &[super::super::Conjunct]| {
        conjuncts.iter().map(|conjunct| conjunct.text.clone()).collect::<Vec<_>>().join(" & ")
    };
    match &plan.shape {
        Shape::Filter { conjuncts } => format!("filter: {}", texts(conjuncts)),
        Shape::General { candidates: Some(candidates), .. } => format!("general: {}", texts(candidates)),
        Shape::General { candidates: None, .. } => "general".to_owned(),
    }
}

fn columns(plan: &EventPlan) -> String {
    plan.columns.iter().map(|column| column.name()).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_filter_is_split_into_its_conjuncts() {
    for (sql, expected) in [
        ("SELECT * FROM audit", "filter: "),
        ("SELECT * FROM audit WHERE true", "filter: "),
        ("SELECT * FROM audit WHERE verb = 'create'", "filter: verb = Utf8(\"create\")"),
        (
            "SELECT * FROM audit a WHERE a.verb IN ('update', 'create') AND a.resource = 'pods'",
            "filter: verb IN ([Utf8(\"create\"), Utf8(\"update\")]) & resource = Utf8(\"pods\")",
        ),
        (
            "SELECT verb FROM audit WHERE verb = 'update' OR (verb = 'create' OR verb IN ('update', 'patch'))",
            "filter: verb IN ([Utf8(\"create\"), Utf8(\"patch\"), Utf8(\"update\")])",
        ),
        (
            "SELECT * FROM audit WHERE NOT (verb <> 'get' OR privileged)",
            "filter: verb = Utf8(\"get\") & NOT privileged",
        ),
        (
            "WITH writes AS (SELECT * FROM audit WHERE verb = 'create') SELECT name FROM writes WHERE resource = 'pods'",
            "filter: verb = Utf8(\"create\") & resource = Utf8(\"pods\")",
        ),
        (
            "SELECT low FROM (SELECT lower(name) AS low FROM audit) WHERE low LIKE 'a%'",
            "filter: lower(name) LIKE Utf8(\"a%\")",
        ),
        ("SELECT * FROM audit WHERE response_code >= 1 + 1", "filter: response_code >= Int64(2)"),
        (
            "SELECT * FROM audit WHERE any_in(user_groups, reference('admin-groups'))",
            "filter: any_in(user_groups, List([system:masters, cluster-admins]))",
        ),
    ] {
        assert_eq!(shape(sql), expected, "{sql}");
    }
}

#[test]
fn anything_more_is_a_general_plan_with_its_candidates() {
    for (sql, expected) in [
        ("SELECT * FROM audit WHERE verb = 'get' LIMIT 1", "general"),
        ("SELECT verb, count(*) FROM audit WHERE verb = 'get' GROUP BY verb", "general: verb = Utf8(\"get\")"),
        ("SELECT DISTINCT verb FROM audit", "general"),
        (
            "SELECT name FROM audit WHERE verb = 'get' AND resource = 'pods' UNION ALL SELECT name FROM audit WHERE verb = 'get' AND resource = 'nodes'",
            "general: verb = Utf8(\"get\") & resource IN ([Utf8(\"nodes\"), Utf8(\"pods\")])",
        ),
        ("SELECT name FROM audit WHERE verb = 'get' UNION SELECT name FROM audit", "general"),
        (
            "SELECT * FROM audit WHERE verb = 'get' AND name IN (SELECT column1 FROM (VALUES ('a'), ('b')))",
            "general: verb = Utf8(\"get\")",
        ),
        (
            "SELECT a.name FROM audit a JOIN audit b ON a.name = b.name WHERE a.verb = 'get' AND b.resource = 'pods'",
            "general",
        ),
        (
            "SELECT name FROM (SELECT name, unnest(containers) AS c FROM audit WHERE verb = 'create') WHERE c['image'] LIKE 'evil/%'",
            "general: verb = Utf8(\"create\")",
        ),
    ] {
        let found = shape(sql);
        assert!(found.starts_with("general"), "{sql}: {found}");
        if expected != "general" {
            assert_eq!(found, expected, "{sql}");
        }
    }
}

#[test]
fn columns_are_those_that_are_read() {
    let planner = planner();
    for (sql, expected) in [
        ("SELECT * FROM audit", ""),
        ("SELECT name, verb FROM audit WHERE resource = 'pods'", "resource"),
        ("SELECT *, lower(name) AS low FROM audit WHERE verb = 'get'", "verb name"),
        ("SELECT user_name AS who FROM audit", "user_name"),
        ("SELECT verb, count(*) FROM audit WHERE resource = 'pods' GROUP BY verb", "verb resource"),
    ] {
        let plan = planner.plan_event(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(columns(&plan), expected, "{sql}");
    }
}

#[test]
fn outputs_and_computed_columns_are_named() {
    let planner = planner();
    let plan =
        planner.plan_event("SELECT name, lower(name) AS low, user_name AS who, 1 AS one FROM audit").expect("plans");
    assert_eq!(plan.output, ["name", "low", "who", "one"]);
    assert_eq!(plan.computed.iter().map(|(name, _)| name.as_ref()).collect::<Vec<_>>(), ["low", "who", "one"]);
    let plan = planner.plan_event("SELECT *, lower(name) AS low FROM audit").expect("plans");
    assert_eq!(plan.output.len(), crate::model::COLUMNS.len() + 1);
    assert_eq!(plan.computed.len(), 1);
}

#[test]
fn equal_conditions_have_equal_conjuncts() {
    let conjunct = |condition: &str| shape(&format!("SELECT * FROM audit WHERE {condition}"));
    assert_eq!(conjunct("verb IN ('a', 'b', 'c', 'd')"), conjunct("verb IN ('d', 'c', 'b', 'a', 'a')"));
    assert_eq!(conjunct("verb = 'a' OR verb = 'b'"), conjunct("verb IN ('b', 'a')"));
    assert_eq!(conjunct("'a' = verb"), conjunct("verb = 'a'"));
}

#[test]
fn large_conditions_plan_or_are_refused_but_never_overflow() {
    let planner = planner();
    let query = |condition: &str| format!("SELECT * FROM audit WHERE {condition}");
    let chain = |terms: usize| (0..terms).map(|i| format!("uri LIKE '%{i}%'")).collect::<Vec<_>>().join(" OR ");
    let plan = planner.plan_event(&query(&chain(400))).expect("plans");
    let Shape::Filter { conjuncts } = &plan.shape else { panic!("a filter") };
    assert_eq!(conjuncts.len(), 1);
    planner.plan_event(&format!("SELECT DISTINCT name FROM audit WHERE {}", chain(100))).expect("plans");
    for terms in [1000, 5000] {
        let error = planner.plan_event(&query(&chain(terms))).expect_err("too long");
        assert!(error.message.contains("at most"), "{error}");
    }
    for deep in [
        format!("{}privileged{}", "(".repeat(900), ")".repeat(900)),
        format!("{} privileged", "NOT ".repeat(1900)),
        format!("response_code = response_code{}", " + response_code".repeat(300)),
        format!("{}name{} = 'a'", "lower(".repeat(600), ")".repeat(600)),
    ] {
        assert!(planner.plan_event(&query(&deep)).is_err(), "{deep}");
        assert!(planner.plan_predicate(&deep).is_err(), "{deep}");
    }
}

#[test]
fn no_depth_overflows_the_stack() {
    let planner = planner();
    let nested = |open: &str, inner: &str, close: &str, depth: usize| {
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    for depth in [30, 10_000] {
        for deep in [
            nested("(", "privileged", ")", depth),
            nested("NOT ", "privileged", "", depth),
            nested("NOT(", "privileged", ")", depth),
            nested("- ", "response_code", "", depth) + " = 1",
            nested("lower(", "name", ")", depth) + " = 'a'",
        ] {
            // Planned or refused, and what is planned can be run on a small stack.
            let sql = format!("SELECT * FROM audit WHERE {deep}");
            let (event, predicate) = (planner.plan_event(&sql), planner.plan_predicate(&deep));
            let window = planner
                .plan_window(&format!("SELECT user_name, count(*) AS n FROM audit WHERE {deep} GROUP BY user_name"));
            assert!(depth < 10_000 || (event.is_err() && predicate.is_err() && window.is_err()), "{deep}");
            let run = || {
                if let Ok(plan) = &event {
                    super::matches(&planner, plan, &super::nothing());
                }
            };
            std::thread::scope(|scope| {
                let small = std::thread::Builder::new().stack_size(2 << 20);
                let ran = small.spawn_scoped(scope, run).expect("a thread").join();
                assert!(ran.is_ok(), "{deep}");
            });
        }
    }
}
