//! Which events a query matches, whatever it is planned to.

use arrow::array::AsArray;

use super::super::Shape;
use super::{matches, nothing, planner, row, value_of};
use crate::model::AUDIT_SCHEMA;

/// The query over two events: one that should match and one that should not, in turn and again.
fn tells_apart(sql: &str, yes: &[(&str, &str)], no: &[(&str, &str)]) {
    let planner = planner();
    let plan = planner.plan_event(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let (yes, no) = (row(&planner, yes), row(&planner, no));
    for _ in 0..2 {
        assert!(matches(&planner, &plan, &yes), "{sql} should match");
        assert!(!matches(&planner, &plan, &no), "{sql} should not match");
    }
}

const POD: &[(&str, &str)] =
    &[("verb", "'create'"), ("resource", "'pods'"), ("name", "'a'"), ("images", "['evil/x', 'b']")];
const NODE: &[(&str, &str)] = &[("verb", "'get'"), ("resource", "'nodes'"), ("name", "'b'"), ("images", "['good/x']")];

#[test]
fn filters_and_general_plans_agree_with_their_sql() {
    for sql in [
        "SELECT * FROM audit WHERE verb = 'create'",
        "SELECT * FROM audit WHERE verb = 'create' LIMIT 5",
        "SELECT verb, count(*) AS n FROM audit WHERE resource = 'pods' GROUP BY verb",
        "SELECT count(*) AS n FROM audit WHERE resource = 'pods' HAVING count(*) > 0",
        "SELECT DISTINCT name FROM audit WHERE resource = 'pods'",
        "SELECT name FROM audit WHERE resource = 'pods' UNION ALL SELECT name FROM audit WHERE resource = 'services'",
        "SELECT name FROM audit WHERE resource = 'pods' UNION SELECT name FROM audit WHERE verb = 'delete'",
        "SELECT * FROM audit WHERE name IN (SELECT column1 FROM (VALUES ('a'), ('c')))",
        "SELECT * FROM audit WHERE name NOT IN (SELECT column1 FROM (VALUES ('b'), ('c')))",
        "SELECT a.name FROM audit a JOIN audit b ON a.name = b.name WHERE a.verb = 'create' AND b.resource = 'pods'",
        "SELECT a.name FROM audit a LEFT JOIN audit b ON a.name = b.name AND b.verb = 'get' WHERE b.verb IS NULL",
        "SELECT name FROM (SELECT name, unnest(images) AS image FROM audit) WHERE image LIKE 'evil/%'",
        "SELECT * FROM audit WHERE (SELECT count(*) FROM audit WHERE verb = 'create') = 1",
        "SELECT * FROM audit WHERE EXISTS (SELECT 1 FROM audit b WHERE b.verb = 'create')",
        "SELECT name FROM (SELECT name, row_number() OVER (ORDER BY name) AS n FROM audit WHERE verb = 'create') WHERE n = 1",
        "SELECT name FROM audit WHERE verb = 'create' ORDER BY name LIMIT 1",
        "SELECT * FROM audit WHERE verb = 'create' INTERSECT SELECT * FROM audit WHERE resource = 'pods'",
    ] {
        tells_apart(sql, POD, NODE);
    }
}

#[test]
fn null_is_not_true() {
    tells_apart("SELECT * FROM audit WHERE privileged", &[("privileged", "true")], &[]);
    tells_apart("SELECT * FROM audit WHERE NOT privileged", &[("privileged", "false")], &[]);
    tells_apart("SELECT * FROM audit WHERE privileged IS NOT TRUE", &[], &[("privileged", "true")]);
    tells_apart("SELECT * FROM audit WHERE NOT any_like(images, 'x')", &[("images", "['y']")], &[]);
}

#[test]
fn a_general_plan_returns_its_rows() {
    let planner = planner();
    let plan = planner.plan_event("SELECT name, count(*) AS n FROM audit GROUP BY name").expect("plans");
    let Shape::General { plan: general, .. } = &plan.shape else { panic!("a general plan") };
    let found = general.matches(&row(&planner, POD)).expect("runs").expect("matches");
    assert_eq!(found.num_rows(), 1);
    assert_eq!(found.schema().field(1).name(), "n");
}

#[test]
fn a_general_plan_runs_inside_a_runtime_and_on_many_threads() {
    let planner = planner();
    let plan = planner
        .plan_event("SELECT a.name FROM audit a JOIN audit b ON a.name = b.name WHERE a.verb = 'create'")
        .expect("plans");
    let Shape::General { plan: general, .. } = &plan.shape else { panic!("a general plan") };
    let (pod, node) = (row(&planner, POD), row(&planner, NODE));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert!(runtime.block_on(async { general.matches(&pod) }).expect("runs").is_some());
    std::thread::scope(|scope| {
        for (event, expected) in [(&pod, true), (&node, false), (&pod, true), (&node, false)] {
            scope.spawn(move || {
                for _ in 0..20 {
                    assert_eq!(general.matches(event).expect("runs").is_some(), expected);
                }
            });
        }
    });
}

#[test]
fn a_failing_plan_is_an_error_and_runs_again() {
    let planner = planner();
    let plan = planner.plan_event("SELECT DISTINCT CAST(name AS INT) AS n FROM audit").expect("plans");
    let Shape::General { plan: general, .. } = &plan.shape else { panic!("a general plan") };
    assert!(general.matches(&row(&planner, POD)).is_err());
    assert!(general.matches(&row(&planner, &[("name", "'7'")])).expect("runs").is_some());
}

#[test]
fn predicates_hold_where_they_are_true() {
    let planner = planner();
    let pod = row(&planner, POD);
    for (sql, expected) in [
        ("verb = 'create' AND resource LIKE 'pod%'", true),
        ("verb = 'get'", false),
        ("user_name = 'x'", false),
        ("user_name IS NULL", true),
        ("any_like(images, 'evil/%')", true),
        ("true", true),
        ("false", false),
        ("NULL", false),
    ] {
        let predicate = planner.plan_predicate(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(predicate.holds(&pod).expect("evaluates"), [expected], "{sql}");
    }
    let predicate = planner.plan_predicate("verb = 'create' AND privileged").expect("plans");
    assert_eq!(predicate.columns.iter().map(|column| column.name()).collect::<Vec<_>>(), ["verb", "privileged"]);
    assert_eq!(predicate.holds(&nothing()).expect("evaluates"), [false]);
}

#[test]
fn patterns_may_come_from_columns_row_by_row() {
    let planner = planner();
    let rows = [
        row(
            &planner,
            &[
                ("images", "['evil/x', 'b']"),
                ("name", "'evil/%'"),
                ("source_ip", "'10.1.2.3'"),
                ("account", "'10.0.0.0/8'"),
            ],
        ),
        row(
            &planner,
            &[("images", "['good/x']"), ("name", "'evil/%'"), ("source_ip", "'11.1.2.3'"), ("account", "'10.0.0.0/8'")],
        ),
        row(&planner, &[("images", "['x']"), ("source_ip", "'10.1.2.3'"), ("account", "'nonsense'")]),
        row(&planner, &[("name", "'evil/%'"), ("account", "'10.0.0.0/8'")]),
    ];
    let rows = arrow::compute::concat_batches(&AUDIT_SCHEMA, &rows).expect("one schema");
    for (sql, expected) in [
        ("any_like(images, name)", [Some(true), Some(false), None, None]),
        ("any_like(images, name, 'x')", [Some(true), Some(false), Some(true), None]),
        ("any_like(images, ARRAY[name, 'x'])", [Some(true), Some(false), Some(true), None]),
        ("any_in(images, images)", [Some(true), Some(true), Some(true), None]),
        ("like_any('evil/y', name)", [Some(true), Some(true), None, Some(true)]),
        ("cidr_contains(account, source_ip)", [Some(true), Some(false), None, None]),
        ("ip_in(source_ip, account)", [Some(true), Some(false), Some(false), None]),
        ("any_path_within(images, 'evil')", [Some(true), Some(false), Some(false), None]),
    ] {
        let (expr, _) = planner.expression(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let found = value_of(&planner, &expr, &rows).expect("evaluates");
        assert_eq!(found.as_boolean().iter().collect::<Vec<_>>(), expected, "{sql}");
    }
}

#[test]
fn what_one_event_can_be_made_of_is_bounded_and_the_next_plan_has_its_own_memory() {
    let planner = planner();
    let groups = (0..1500).map(|n| format!("'g{n}'")).collect::<Vec<_>>().join(", ");
    let event = row(&planner, &[("user_groups", &format!("make_array({groups})"))]);
    let each = "(SELECT unnest(user_groups) AS g FROM audit)";
    let joined = format!("SELECT a.g FROM {each} a JOIN {each} b ON a.g < b.g");
    let plan = planner.plan_event(&joined).expect("plans");
    let Shape::General { plan: general, .. } = &plan.shape else { panic!("a general plan") };
    let error = general.matches(&event).expect_err("1,124,250 pairs");
    // On a busy machine time is up before.
    assert!(error.harmful && ["too many rows", "too long"].iter().any(|why| error.message.contains(why)), "{error:?}");
    let cast = planner.plan_event("SELECT DISTINCT CAST(name AS BIGINT) AS n FROM audit").expect("plans");
    let Shape::General { plan: general, .. } = &cast.shape else { panic!("a general plan") };
    let error = general.matches(&row(&planner, &[("name", "'x'")])).expect_err("no number");
    assert!(!error.harmful, "{error:?}");
}
