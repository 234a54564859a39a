//! What authors are told about their mistakes.

use super::planner;

/// SQL, then `line:column message | help` with `-` where there is no place.
fn told(sql: &str) -> String {
    match planner().plan_event(sql) {
        Ok(plan) => format!("plans to {:?}", plan.shape),
        Err(error) => {
            let place = match (error.line, error.column) {
                (Some(line), Some(column)) => format!("{line}:{column}"),
                _ => "-".to_owned(),
            };
            format!("{place} {} | {}", error.message, error.help.unwrap_or_default())
        }
    }
}

#[test]
fn mistakes_are_told_with_place_and_remedy() {
    let mut wrong = Vec::new();
    for (sql, expected) in MISTAKES {
        let found = told(sql);
        if !found.starts_with(expected) {
            wrong.push(format!("{sql}\n   found    {found}\n   expected {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const MISTAKES: &[(&str, &str)] = &[
    ("", "- there is no SQL"),
    ("SELEC * FROM audit", "1:1 "),
    ("SELECT * FROM audit WHERE", "1:26 "),
    ("SELECT *\nFROM audit\nWHERE vreb = 'get'", "3:7 unknown column `vreb` | did you mean `verb`?"),
    ("SELECT * FROM audit WHERE verb = \"get\"", "1:34 unknown column `get` | text is written in single quotes: 'get'"),
    ("SELECT zzz FROM audit", "1:8 unknown column `zzz` | `kubetide schema table`"),
    ("SELECT * FROM audits", "1:15 unknown table `audits` | an event detection reads the table `audit`"),
    ("SELECT * FROM audit WHERE any_lik(images, 'x')", "1:27 unknown function `any_lik` | did you mean `any_like`?"),
    ("SELECT * FROM audit WHERE event_time > now()", "1:40 function `now` is not available | a detection must"),
    (
        "SELECT * FROM audit WHERE array_any_match(images, 'x')",
        "1:27 function `array_any_match` is not available | there are no lambdas",
    ),
    (
        "SELECT * FROM audit WHERE verb = 'get' AND\n  any_like(verb, 'x')",
        "2:3 any_like: argument 1 must be a list of text, got text | any_like(list, pattern, …)",
    ),
    ("SELECT * FROM audit WHERE any_like(images)", "1:27 any_like: argument 2 is missing"),
    (
        "SELECT * FROM audit WHERE any_in(user_groups, reference('admingroups'))",
        "1:47 reference: unknown list 'admingroups' | did you mean 'admin-groups'?",
    ),
    (
        "SELECT * FROM audit WHERE any_in(user_groups, reference('zz'))",
        "1:47 reference: unknown list 'zz' | there are admin-groups, ",
    ),
    ("SELECT * FROM audit WHERE name", "1:27 the condition must be true or false: 'name' is of type text"),
    (
        "SELECT * FROM audit WHERE images = 'nginx'",
        "1:27 these types do not go together: list of text and text | for a list use any_in",
    ),
    (
        "SELECT * FROM audit WHERE verb = 'get' AND privileged > 'x'",
        "1:44 these types do not go together: boolean and text",
    ),
    ("SELECT * FROM audit; SELECT * FROM audit", "- only one statement is allowed"),
    ("SELECT * FROM audit WHERE verb = 'get", "1:34 unterminated string literal"),
    ("SELECT * FROM audit WHERE uri ~ '('", "1:27 the regular expression is wrong: unclosed group"),
    ("SELECT * FROM audit WHERE false", "- the condition is never true"),
    ("SELECT * FROM audit WHERE verb = 'a' AND verb = 'b'", "- the condition is never true"),
    ("SELECT count(*) FROM audit", "- the query gives a row even without any event"),
    ("SELECT lower(name) AS name FROM audit", "- the output `name` has the name of a column"),
    (
        "SELECT * FROM audit a WHERE EXISTS (SELECT 1 FROM (SELECT unnest(a.images) AS c) WHERE c = 'x')",
        "- a subquery of this form is not supported | for the elements of a list",
    ),
    ("SELECT name, name FROM audit", "- two outputs are called `name`"),
    ("SELECT a.name FROM audit a, audit b WHERE name = 'x'", "1:43 column `name` is in more than one table"),
    ("SELECT name, count(*) FROM audit", "1:8 'name' must appear in GROUP BY clause"),
    ("SELECT * FROM audit WHERE lower(name, 'x') = 'a'", "1:27 function 'lower' expects 1 arguments but received 2"),
    (
        "SELECT * FROM audit WHERE any_container(containers, 'privilged')",
        "1:27 any_container: a container has no field 'privilged' | did you mean 'privileged'?",
    ),
];

#[test]
fn what_is_not_a_query_over_the_event_is_refused() {
    for (sql, expected) in [
        ("EXPLAIN SELECT * FROM audit", "only a SELECT is allowed"),
        ("EXPLAIN ANALYZE SELECT * FROM audit", "only a SELECT is allowed"),
        ("SHOW TABLES", "only a SELECT is allowed"),
        ("DESCRIBE audit", "only a SELECT is allowed"),
        ("SET datafusion.execution.batch_size = 1", "only a SELECT is allowed"),
        ("CREATE TABLE x AS SELECT * FROM audit", "only a SELECT is allowed"),
        ("CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'", "only a SELECT is allowed"),
        ("DROP TABLE audit", "only a SELECT is allowed"),
        ("INSERT INTO audit SELECT * FROM audit", "only a SELECT is allowed"),
        ("DELETE FROM audit", "only a SELECT is allowed"),
        ("UPDATE audit SET verb = 'x'", "only a SELECT is allowed"),
        ("COPY audit TO 'x.csv'", "only a SELECT is allowed"),
        ("PREPARE p AS SELECT * FROM audit", "only a SELECT is allowed"),
        ("SELECT 1", "the query does not read the table"),
        ("VALUES (1)", "the query does not read the table"),
        ("SELECT * FROM information_schema.tables", "unknown table"),
        ("SELECT * FROM '/etc/passwd'", "unknown table"),
        ("SELECT * FROM generate_series(1, 10)", "table function"),
        ("SELECT * FROM audit, range(1, 10)", "table function"),
        ("SELECT * FROM read_csv('/etc/passwd')", "table function"),
        ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r) SELECT * FROM r", "recursive"),
        ("SELECT * FROM audit WHERE random() < 0.5", "function `random` is not available"),
        ("SELECT * FROM audit WHERE event_time > current_timestamp", "function `current_timestamp` is not available"),
        ("SELECT * FROM audit WHERE event_time > current_date", "function `current_date` is not available"),
        ("SELECT uuid() FROM audit", "function `uuid` is not available"),
        ("SELECT repeat(name, 1000000) FROM audit", "function `repeat` is not available"),
        ("SELECT rpad(name, 1000000) FROM audit", "function `rpad` is not available"),
        ("SELECT lpad(name, 1000000) FROM audit", "function `lpad` is not available"),
        ("SELECT range(1, 1000000) FROM audit", "function `range` is not available"),
        ("SELECT generate_series(1, 1000000) FROM audit", "function `generate_series` is not available"),
        ("SELECT array_repeat(name, 1000000) FROM audit", "function `array_repeat` is not available"),
        ("SELECT version() FROM audit", "unknown function `version`"),
        ("SELECT input_file_name() FROM audit", "unknown function `input_file_name`"),
        ("SELECT * FROM audit WHERE name = $1", "the parameter `$1` has no value"),
        ("SELECT * FROM audit WHERE name = @@version", "unsupported"),
        (
            "SELECT 1 FROM audit a, audit b, audit c, audit d, audit e, audit f, audit g, audit h, audit i",
            "the query reads `audit` 9 times",
        ),
    ] {
        let error = planner().plan_event(sql).expect_err(sql);
        assert!(error.message.contains(expected), "{sql}: {error:?}");
    }
}

#[test]
fn predicates_are_conditions_and_nothing_else() {
    let planner = planner();
    for (sql, expected) in [
        ("name", "the condition must be true or false"),
        ("verb = 'a' GROUP BY verb", "expected: end of expression"),
        ("verb = 'a'; DROP TABLE audit", "expected: end of expression"),
        ("name IN (SELECT name FROM audit)", ""),
        ("event_time > now()", "function `now` is not available"),
        ("vreb = 'a'", "unknown column `vreb`"),
        ("count(*) > 1", ""),
        ("", "there is no sql"),
    ] {
        let error = planner.plan_predicate(sql).expect_err(sql);
        assert!(error.message.to_lowercase().contains(expected), "{sql}: {error:?}");
    }
    let error = planner.plan_predicate("verb = 'a'\n  AND vreb = 'b'").expect_err("no such column");
    assert_eq!((error.line, error.column), (Some(2), Some(7)));
}
