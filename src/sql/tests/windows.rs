//! What is read out of the query of a window.

use super::super::WindowPlan;
use super::planner;

fn plan(sql: &str) -> WindowPlan {
    planner().plan_window(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"))
}

fn told(sql: &str) -> String {
    match planner().plan_window(sql) {
        Ok(plan) => format!("plans to {plan:?}"),
        Err(error) => format!("{} | {}", error.message, error.help.unwrap_or_default()),
    }
}

/// The sides as `output: column` with outputs by name.
fn sides(plan: &WindowPlan) -> Vec<String> {
    let side = |side: &Vec<(usize, crate::model::Column)>| {
        let parts = side.iter().map(|(output, column)| format!("{}: {column}", plan.output[*output]));
        parts.collect::<Vec<_>>().join(", ")
    };
    plan.sides.iter().map(side).collect()
}

#[test]
fn a_row_stands_for_the_events_that_its_plain_columns_name() {
    for (sql, expected) in [
        ("SELECT user_name, count(*) AS n FROM audit GROUP BY user_name", vec!["user_name: user_name"]),
        ("SELECT count(*) AS n FROM audit HAVING count(*) > 3", vec![]),
        ("SELECT lower(user_name) AS who FROM audit GROUP BY lower(user_name)", vec![]),
        (
            "SELECT user_name AS who, source_ip FROM (SELECT DISTINCT source_ip, user_name FROM audit)",
            vec!["who: user_name, source_ip: source_ip"],
        ),
        (
            "SELECT a.user_name, b.name AS gone FROM audit a JOIN audit b ON a.user_name = b.user_name WHERE a.verb = 'create'",
            vec!["user_name: user_name", "user_name: user_name, gone: name"],
        ),
        (
            "SELECT name FROM (SELECT name, row_number() OVER (PARTITION BY name ORDER BY event_time) AS n FROM audit) WHERE n = 3",
            vec!["name: name"],
        ),
        (
            "SELECT name FROM audit WHERE user_name IN (SELECT user_name FROM audit WHERE verb = 'delete')",
            vec!["name: name"],
        ),
        (
            "SELECT name FROM audit WHERE verb = 'get' UNION SELECT namespace FROM audit WHERE verb = 'list'",
            vec!["name: name", "name: namespace"],
        ),
        (
            "SELECT user_name, verb, count(*) AS n FROM audit GROUP BY GROUPING SETS ((user_name), (verb)) HAVING count(*) > 3",
            vec![],
        ),
    ] {
        let mut found = sides(&plan(sql));
        found.sort();
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        expected.sort();
        assert_eq!(found, expected, "{sql}");
    }
}

#[test]
fn the_floor_is_the_fewest_events_of_a_group_that_give_a_row() {
    for (having, expected) in [
        ("count(*) >= 10", Some(10)),
        ("count(*) > 10", Some(11)),
        ("10 <= count(*)", Some(10)),
        ("NOT (count(*) < 10)", Some(10)),
        ("count(*) = 10", Some(10)),
        ("count(*) BETWEEN 10 AND 20", Some(10)),
        ("count(name) >= 10 AND count(DISTINCT verb) >= 3", Some(10)),
        ("count(*) >= 10 OR count(DISTINCT verb) >= 3", Some(3)),
        ("count(*) >= 10 OR max(response_code) > 500", Some(1)),
        ("count(*) FILTER (WHERE verb = 'get') >= 4", Some(4)),
        ("count(*) < 10", Some(1)),
        ("count(*) + 1 >= 10", Some(1)),
        ("count(*) >= (SELECT count(*) FROM audit WHERE verb = 'list')", None),
    ] {
        let plan = plan(&format!("SELECT user_name FROM audit GROUP BY user_name HAVING {having}"));
        assert_eq!(plan.groups.map(|groups| groups.at_least), expected, "{having}");
    }
    for (sql, expected) in [
        ("SELECT user_name FROM (SELECT user_name, count(*) AS n FROM audit GROUP BY user_name) WHERE n >= 5", Some(5)),
        ("SELECT user_name FROM audit GROUP BY user_name HAVING count(*) >= 5 LIMIT 3", None),
        ("SELECT lower(name) AS low FROM audit GROUP BY lower(name) HAVING count(*) >= 5", None),
        (
            "SELECT user_name FROM (SELECT user_name, unnest(images) AS image FROM audit) GROUP BY user_name HAVING count(*) >= 5",
            None,
        ),
        (
            "SELECT user_name, total FROM (SELECT user_name, count(*) AS n, sum(count(*)) OVER () AS total FROM audit GROUP BY user_name) WHERE n >= 5",
            None,
        ),
    ] {
        assert_eq!(plan(sql).groups.map(|groups| groups.at_least), expected, "{sql}");
    }
}

#[test]
fn only_exact_aggregates_are_put_together_out_of_panes() {
    for (outputs, expected) in [
        ("count(*) AS n, count(DISTINCT name) AS names, min(event_time) AS a, max(name) AS b", true),
        ("sum(response_code) AS total", true),
        ("approx_distinct(name) AS names, bool_or(privileged) AS any", true),
        ("count(*) AS n, window_end() AS until", true),
        ("avg(response_code) AS mean", false),
        ("sum(response_code / 3.0) AS total", false),
        ("array_agg(name) AS names", false),
        ("first_value(name ORDER BY event_time) AS first", false),
        ("count(*) FILTER (WHERE event_time > window_start()) AS n", false),
    ] {
        let sql = format!("SELECT user_name, {outputs} FROM audit GROUP BY user_name HAVING count(*) > 1");
        assert_eq!(plan(&sql).merges(), expected, "{sql}");
    }
}

#[test]
fn conditions_on_the_window_itself_are_not_asked_of_single_events() {
    let plan = plan(
        "SELECT user_name FROM audit WHERE verb = 'get' AND event_time >= window_end() - INTERVAL '1 minute' GROUP BY user_name",
    );
    let candidates = plan.candidates.expect("the verb");
    assert_eq!(candidates.iter().map(|part| part.text.as_str()).collect::<Vec<_>>(), ["verb = Utf8(\"get\")"]);
    assert!(plan.moves);
}

#[test]
fn what_a_window_may_not_ask_is_told() {
    for (sql, expected) in [
        (
            "SELECT count(*) AS n FROM audit",
            "the query gives a row even without any event, so it would always be true |",
        ),
        ("SELECT user_name FROM audit WHERE verb = 'a' AND verb = 'b'", "the condition is never true"),
        ("SELECT user_name FROM audit WHERE event_time > now()", "function `now` is not available"),
        ("SELECT user_name FROM audits", "unknown table `audits`"),
        ("SELECT * FROM audit; SELECT * FROM audit", "only one statement is allowed"),
        ("DELETE FROM audit", "only a SELECT is allowed"),
    ] {
        let found = told(sql);
        assert!(found.starts_with(expected), "{sql}: {found}");
    }
    let error = planner().plan_event("SELECT * FROM audit WHERE event_time > window_start()").expect_err("no window");
    assert_eq!(error.message, "function `window_start` is only for the query of a window");
    let error = planner().plan_predicate("event_time > window_end()").expect_err("no window");
    assert_eq!(error.message, "function `window_end` is only for the query of a window");
    assert!(planner().plan_window("SELECT user_name FROM audit WHERE within_bounds()").is_err());
}
