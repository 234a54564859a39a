//! Windows against plain loops over all events, and against DataFusion run from scratch for each hop.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::record_batch::RecordBatch;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use super::*;
use crate::detection::Length;
use crate::model::{KeptRows, plain_schema};
use crate::sql::tests::Scratch;
use crate::sql::{Lists, Planner};
use crate::stage::memory::Kept;

const SECOND: i64 = 1_000_000;

/// One event: second, user, verb, name, code.
type Event = (i64, &'static str, &'static str, &'static str, i64);

/// What is known of the events, as the flow would keep it.
fn columns() -> ColumnSet {
    [Column::EventId, Column::EventTime, Column::UserName, Column::Verb, Column::Name, Column::ResponseCode]
        .into_iter()
        .collect()
}

fn batch(events: &[(usize, Event)]) -> RecordBatch {
    let text = |of: fn(&Event) -> &'static str| -> ArrayRef {
        let texts = events.iter().map(|(_, event)| Some(of(event)).filter(|text| !text.is_empty()));
        Arc::new(texts.collect::<StringArray>())
    };
    let times = events.iter().map(|(_, event)| event.0 * SECOND);
    let ids = events.iter().map(|(index, _)| format!("e{index:04}"));
    let schema = plain_schema(columns());
    let columns = schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "event_id" => Arc::new(StringArray::from_iter_values(ids.clone())),
            "event_time" => Arc::new(TimestampMicrosecondArray::from_iter_values(times.clone()).with_timezone("UTC")),
            "user_name" => text(|event| event.1),
            "verb" => text(|event| event.2),
            "name" => text(|event| event.3),
            _ => Arc::new(Int64Array::from_iter_values(events.iter().map(|(_, event)| event.4))),
        }
    });
    let columns = columns.collect();
    RecordBatch::try_new(schema, columns).expect("one value for each column")
}

fn numbered(events: &[Event]) -> Vec<(usize, Event)> {
    events.iter().copied().enumerate().collect()
}

/// When the first event arrived, milliseconds since the epoch: later than all of them happened.
const ARRIVED: i64 = 10_000_000_000;

fn entries(events: &[(usize, Event)]) -> Vec<Entry> {
    let arrival_ms = events.iter().map(|(index, _)| Some(ARRIVED + *index as i64)).collect();
    let kept = Arc::new(Kept::new(KeptRows { rows: batch(events), arrival_ms }));
    (0..events.len()).map(|row| Entry::new(&kept, row, kept.event_us(row).unwrap_or_default(), [].into())).collect()
}

#[derive(Debug, Clone, Copy)]
struct Lengths {
    size: i64,
    every: i64,
    suppress: i64,
}

fn planner() -> Planner {
    Planner::new(Lists::default())
}

fn rule(planner: &Planner, sql: &str, entity: &[&str], lengths: Lengths) -> WindowRule {
    let length = |seconds: i64| Length(Duration::from_secs(seconds.unsigned_abs()));
    let spec = WindowSpec { size: length(lengths.size), every: Some(length(lengths.every)), early: false };
    let plan = Arc::new(planner.plan_window(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}")));
    let entity: Vec<Field> = entity.iter().map(|name| Field::new(name)).collect();
    WindowRule::new(3, plan, &spec, &entity, lengths.suppress * SECOND, columns()).expect("the entity is selected")
}

fn window(rule: WindowRule) -> Window {
    Window::new(Arc::new(rule), "cluster".into())
}

/// Wakes it at all times that it asks for.
fn finish(window: &mut Window, out: &mut Vec<Finding>) {
    while let Some(due) = window.due() {
        window.wake(due, out);
    }
}

fn run(window: &mut Window, events: &[Event]) -> Vec<Finding> {
    let mut out = Vec::new();
    entries(&numbered(events)).iter().for_each(|entry| window.see(0, entry, &mut out));
    finish(window, &mut out);
    assert_eq!(window.failures(), Vec::<String>::new());
    out
}

fn ids(rows: &RecordBatch) -> BTreeSet<String> {
    let ids = rows.column_by_name("event_id").expect("kept").as_string::<i32>();
    ids.iter().flatten().map(str::to_owned).collect()
}

/// By identity: all events that were told.
type Told = BTreeMap<String, BTreeSet<String>>;

fn told(findings: &[Finding]) -> Told {
    let mut told = Told::new();
    for finding in findings {
        assert_eq!((finding.detection, finding.cluster_id.as_ref()), (3, "cluster"));
        let events = told.entry(json_of(&finding.identity)).or_default();
        let before = events.len();
        events.extend(ids(&finding.evidence.rows));
        assert!(events.len() > before, "{:?} is told again without anything new", finding.identity);
    }
    told
}

/// What a query says of the events of one window: keys as JSON, each with its events.
type Answer = BTreeMap<String, BTreeSet<String>>;

fn json_of(values: &[Value]) -> String {
    Value::from(values).to_string()
}

/// What is expected, by a walk over every hop at which some event is in the window.
fn expected(events: &[Event], lengths: Lengths, mut answer: impl FnMut(&[(usize, Event)], Span) -> Answer) -> Told {
    let events = numbered(events);
    let first = events.iter().map(|(_, event)| event.0).min().unwrap_or_default();
    let last = events.iter().map(|(_, event)| event.0).max().unwrap_or_default();
    let mut hop = (first / lengths.every) * lengths.every;
    let mut told = Told::new();
    // By key: the hop of its edge, the last hop at which it was true.
    let mut edges: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    while hop <= last + lengths.size + lengths.every {
        let inside: Vec<_> =
            events.iter().filter(|(_, event)| (hop - lengths.size..hop).contains(&event.0)).copied().collect();
        let span = Span { start_us: (hop - lengths.size) * SECOND, end_us: hop * SECOND };
        let found = if inside.is_empty() { Answer::new() } else { answer(&inside, span) };
        for (key, evidence) in found {
            let (edge, _) = match edges.get(&key) {
                Some((edge, last)) if *last == hop - lengths.every || hop - last <= lengths.suppress => (*edge, hop),
                _ => (hop, hop),
            };
            edges.insert(key.clone(), (edge, hop));
            let mut identity: Vec<Value> = serde_json::from_str(&key).expect("written above");
            identity.push(time_text(edge * SECOND).into());
            told.entry(json_of(&identity)).or_default().extend(evidence);
        }
        hop += lengths.every;
    }
    told
}

fn id(index: usize) -> String {
    format!("e{index:04}")
}

/// A query, its entity, and which events a row of its answer stands for.
struct Case {
    sql: &'static str,
    entity: &'static [&'static str],
    /// Places of outputs in the answer that make the key.
    key: &'static [usize],
    /// Whether an event belongs to a row.
    belongs: fn(&Event, &[Value]) -> bool,
    /// Whether the query can see the event at all.
    seen: fn(&Event) -> bool,
}

fn of_user(event: &Event, row: &[Value]) -> bool {
    row.first() == Some(&if event.1.is_empty() { Value::Null } else { event.1.into() })
}

fn of_user_and_name(event: &Event, row: &[Value]) -> bool {
    of_user(event, row) && row.get(1) == Some(&event.3.into())
}

fn all(_: &Event) -> bool {
    true
}

const CASES: &[Case] = &[
    Case {
        sql: "SELECT user_name, count(*) AS n FROM audit WHERE verb = 'get' GROUP BY user_name HAVING count(*) >= 3",
        entity: &["user_name"],
        key: &[0],
        belongs: of_user,
        seen: |event| event.2 == "get",
    },
    Case {
        sql: "SELECT user_name AS who, count(DISTINCT name) AS names FROM audit GROUP BY user_name HAVING count(DISTINCT name) > 2",
        entity: &["cluster", "user_name"],
        key: &[0],
        belongs: of_user,
        seen: all,
    },
    Case {
        sql: "SELECT user_name, name, count(*) AS n, min(event_time) AS since FROM audit WHERE response_code >= 400 GROUP BY user_name, name HAVING 1 < count(*)",
        entity: &["user_name"],
        key: &[0],
        belongs: of_user_and_name,
        seen: |event| event.4 >= 400,
    },
    Case {
        sql: "SELECT user_name, count(*) FILTER (WHERE verb = 'delete') AS n FROM audit GROUP BY user_name HAVING count(*) FILTER (WHERE verb = 'delete') >= 2 AND NOT count(*) < 4",
        entity: &["user_name"],
        key: &[0],
        belongs: of_user,
        seen: all,
    },
    Case {
        sql: "SELECT user_name FROM audit GROUP BY user_name HAVING count(*) BETWEEN 4 AND 6 OR count(DISTINCT verb) >= 3",
        entity: &["user_name"],
        key: &[0],
        belongs: of_user,
        seen: all,
    },
    Case {
        sql: "SELECT user_name, n FROM (SELECT user_name, sum(response_code) AS total, count(*) AS n FROM audit GROUP BY user_name) WHERE total > 900 AND n > 1",
        entity: &["user_name"],
        key: &[0],
        belongs: of_user,
        seen: all,
    },
    Case {
        sql: "SELECT a.user_name, a.name, b.name AS gone FROM audit a JOIN audit b ON a.user_name = b.user_name AND b.event_time > a.event_time WHERE a.verb = 'create' AND b.verb = 'delete'",
        entity: &["user_name"],
        key: &[0],
        belongs: |event, row| {
            let names = [row.get(1).cloned(), row.get(2).cloned()];
            of_user(event, row) && names.contains(&Some(event.3.into()))
        },
        seen: |event| event.2 == "create" || event.2 == "delete",
    },
    Case {
        sql: "SELECT DISTINCT user_name FROM (SELECT user_name, verb, lag(verb) OVER (PARTITION BY user_name ORDER BY event_time, event_id) AS before FROM audit) WHERE verb = 'delete' AND before = 'create'",
        entity: &["user_name"],
        key: &[0],
        belongs: of_user,
        seen: all,
    },
    Case {
        sql: "SELECT user_name, max(event_time) AS last, window_end() AS until FROM audit GROUP BY user_name HAVING max(event_time) < window_end() - INTERVAL '12 seconds' AND min(event_time) >= window_start()",
        entity: &["user_name"],
        key: &[0],
        belongs: of_user,
        seen: all,
    },
    Case {
        sql: "SELECT count(*) AS n FROM audit WHERE verb <> 'get' HAVING count(*) >= 5",
        entity: &["cluster"],
        key: &[],
        belongs: |_, _| true,
        seen: |event| event.2 != "get",
    },
    Case {
        sql: "SELECT DISTINCT a.user_name FROM audit a WHERE a.verb = 'create' AND NOT EXISTS (SELECT 1 FROM audit b WHERE b.user_name = a.user_name AND b.verb = 'delete')",
        entity: &["user_name"],
        key: &[0],
        belongs: of_user,
        seen: |event| event.2 == "create" || event.2 == "delete",
    },
];

impl Case {
    fn answer(&self, scratch: &Scratch, inside: &[(usize, Event)], span: Span) -> Answer {
        let mut answer = Answer::new();
        for row in scratch.answer(self.sql, &batch(inside), span) {
            let key: Vec<Value> = self.key.iter().map(|place| row[*place].clone()).collect();
            let events = inside.iter().filter(|(_, event)| (self.seen)(event) && (self.belongs)(event, &row));
            answer.entry(json_of(&key)).or_default().extend(events.map(|(index, _)| id(*index)));
        }
        answer
    }

    /// The events that the planner says are worth keeping.
    fn kept(&self, planner: &Planner, events: &[Event]) -> Vec<(usize, Event)> {
        let plan = planner.plan_window(self.sql).expect("planned before");
        let mut events = numbered(events);
        for conjunct in plan.candidates.iter().flatten() {
            let rows = batch(&events);
            let physical = planner.physical(&conjunct.expr, &rows.schema()).expect("the columns are there");
            let answers = physical.evaluate(&rows).and_then(|value| value.into_array(rows.num_rows()));
            let answers = answers.expect("evaluates");
            let mut answers = answers.as_boolean().iter();
            events.retain(|_| answers.next() == Some(Some(true)));
        }
        events
    }
}

const LENGTHS: &[Lengths] = &[
    Lengths { size: 60, every: 10, suppress: 0 },
    Lengths { size: 60, every: 60, suppress: 60 },
    Lengths { size: 30, every: 5, suppress: 25 },
    Lengths { size: 100, every: 20, suppress: 20 },
    Lengths { size: 45, every: 15, suppress: 200 },
];

fn some_events(random: &mut StdRng, most: usize) -> Vec<Event> {
    let spread = *[40, 120, 400].choose(random).expect("not empty");
    let mut events: Vec<Event> = (0..random.random_range(1..=most))
        .map(|_| {
            let user = *["ann", "bob", "eve", ""].choose(random).expect("not empty");
            let verb = *["get", "get", "get", "create", "delete"].choose(random).expect("not empty");
            let name = *["a", "b", "c", "d"].choose(random).expect("not empty");
            let code = *[200, 201, 403, 404].choose(random).expect("not empty");
            (1_000_000 + random.random_range(0..spread), user, verb, name, code)
        })
        .collect();
    events.sort_by_key(|event| event.0);
    events
}

/// Shows the window the events, wakes it between them now and then, and saves and restores it in the middle.
fn replayed(random: &mut StdRng, rule: &Arc<WindowRule>, events: &[(usize, Event)], restore: bool) -> Vec<Finding> {
    let mut window = Window::new(Arc::clone(rule), "cluster".into());
    let mut out = Vec::new();
    let mut rest = events;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(random.random_range(1..=rest.len().min(9)));
        rest = after;
        for entry in entries(chunk) {
            if random.random_bool(0.3) {
                window.wake(entry.event_us - 1, &mut out);
            }
            window.see(0, &entry, &mut out);
        }
        if restore && random.random_bool(0.4) {
            let saved = window.save();
            window = Window::new(Arc::clone(rule), "cluster".into());
            window.restore(&saved).expect("its own tables");
            if !rule.early {
                assert_eq!(window.save(), saved);
            }
        }
    }
    finish(&mut window, &mut out);
    assert_eq!(window.failures(), Vec::<String>::new());
    assert_eq!(window.size(), Size::default(), "nothing is left");
    out
}

/// The rule in every way in which it can be evaluated.
fn ways(planner: &Planner, case: &Case, lengths: Lengths) -> Vec<Arc<WindowRule>> {
    let rule = || rule(planner, case.sql, case.entity, lengths);
    let mut ways = vec![Arc::new(WindowRule { evaluator: Evaluator::Ring, ..rule() })];
    if rule().report().evaluator == Evaluator::Panes {
        ways.push(Arc::new(rule()));
    }
    if rule().plan.only_rises().is_ok() {
        ways.push(Arc::new(WindowRule { early: true, ..rule() }));
    }
    ways
}

#[test]
fn windows_are_what_a_run_from_scratch_at_every_hop_says() {
    let (planner, scratch) = (planner(), Scratch::default());
    let mut random = StdRng::seed_from_u64(20_261_125);
    let mut findings = vec![0; CASES.len()];
    for round in 0..3 {
        let events = some_events(&mut random, 40);
        for (case, count) in CASES.iter().zip(&mut findings) {
            let lengths = *LENGTHS.choose(&mut random).expect("not empty");
            // Asked again only where it can be another answer.
            let mut last = (Vec::new(), Answer::new());
            let expected = expected(&events, lengths, |inside, span| {
                if last.0 != inside || case.sql.contains("window_") {
                    last = (inside.to_vec(), case.answer(&scratch, inside, span));
                }
                last.1.clone()
            });
            *count += expected.len();
            let kept = case.kept(&planner, &events);
            assert!(kept.iter().all(|(_, event)| (case.seen)(event)), "{}", case.sql);
            for rule in ways(&planner, case, lengths) {
                let found = told(&replayed(&mut random, &rule, &kept, round % 2 == 1));
                assert_eq!(found, expected, "{}\n{rule:?}\n{events:?}", case.sql);
            }
        }
    }
    assert!(findings.iter().all(|count| *count > 0), "a query that finds nothing proves nothing: {findings:?}");
}

/// The first three queries and the join as plain loops.
fn by_hand(case: usize, inside: &[(usize, Event)]) -> Answer {
    let mut answer = Answer::new();
    let null = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    for (_, (_, user, ..)) in inside {
        let own: Vec<&(usize, Event)> = inside.iter().filter(|(_, event)| event.1 == *user).collect();
        let events: Vec<&(usize, Event)> = match case {
            0 => {
                let gets: Vec<_> = own.into_iter().filter(|(_, event)| event.2 == "get").collect();
                if gets.len() >= 3 { gets } else { Vec::new() }
            }
            1 => {
                let names: BTreeSet<&str> = own.iter().map(|(_, event)| event.3).collect();
                if names.len() > 2 { own } else { Vec::new() }
            }
            2 => {
                let failed: Vec<_> = own.into_iter().filter(|(_, event)| event.4 >= 400).collect();
                let many = |name: &str| failed.iter().filter(|(_, event)| event.3 == name).count() > 1;
                failed.iter().filter(|(_, event)| many(event.3)).copied().collect()
            }
            _ => {
                let mut pairs = BTreeSet::new();
                for (_, made) in own.iter().filter(|(_, event)| event.2 == "create" && !user.is_empty()) {
                    for (_, gone) in own.iter().filter(|(_, event)| event.2 == "delete" && event.0 > made.0) {
                        pairs.extend([made.3, gone.3]);
                    }
                }
                own.into_iter().filter(|(_, event)| event.2 != "get" && pairs.contains(event.3)).collect()
            }
        };
        if !events.is_empty() {
            answer.entry(json_of(&[null(user)])).or_default().extend(events.into_iter().map(|(index, _)| id(*index)));
        }
    }
    answer
}

#[test]
fn windows_are_what_plain_loops_say() {
    let planner = planner();
    let mut random = StdRng::seed_from_u64(7);
    for (by, case) in [0, 1, 2, 6].into_iter().filter_map(|case| Some((case, CASES.get(case)?))) {
        let mut findings = 0;
        for _ in 0..12 {
            let events = some_events(&mut random, 60);
            let lengths = *LENGTHS.choose(&mut random).expect("not empty");
            let expected = expected(&events, lengths, |inside, _| by_hand(by, inside));
            findings += expected.len();
            let kept = case.kept(&planner, &events);
            for rule in ways(&planner, case, lengths) {
                let found = told(&replayed(&mut random, &rule, &kept, false));
                assert_eq!(found, expected, "{}\n{rule:?}\n{events:?}", case.sql);
            }
        }
        assert!(findings > 5, "{findings} of {}", case.sql);
    }
}

#[test]
fn a_finding_says_what_the_query_computed_and_which_events_it_stands_for() {
    let sql = "SELECT user_name AS who, count(*) AS n, window_start() AS since, window_end() AS until FROM audit GROUP BY user_name HAVING count(*) >= 2";
    let lengths = Lengths { size: 60, every: 20, suppress: 0 };
    let mut window = window(rule(&planner(), sql, &["user_name"], lengths));
    let found =
        run(&mut window, &[(0, "ann", "get", "a", 200), (20, "bob", "get", "a", 200), (20, "ann", "get", "b", 200)]);
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    // The event of second 20 belongs to the pane that ends at 40.
    assert_eq!(finding.at_us, 40 * SECOND);
    assert_eq!(finding.identity, [json!("ann"), json!("1970-01-01T00:00:40Z")]);
    let computed: Vec<(&str, &Value)> = finding.computed.iter().map(|(name, value)| (name.as_ref(), value)).collect();
    assert_eq!(
        computed,
        [
            ("who", &json!("ann")),
            ("n", &json!(2)),
            ("since", &json!("1969-12-31T23:59:40Z")),
            ("until", &json!("1970-01-01T00:00:40Z")),
            (EVENTS, &json!(2)),
        ]
    );
    assert_eq!(ids(&finding.evidence.rows), [id(0), id(2)].into());
    assert_eq!(finding.evidence.arrival_ms, [Some(ARRIVED), Some(ARRIVED + 2)]);
}

#[test]
fn what_can_be_merged_or_only_rises_is_known() {
    let planner = planner();
    let lengths = Lengths { size: 60, every: 10, suppress: 0 };
    let of = |case: &Case| {
        let rule = rule(&planner, case.sql, case.entity, lengths);
        let floor = rule.report().floor.map_or(1, |(rows, _)| rows);
        (rule.report().evaluator, floor, rule.plan.only_rises().is_ok())
    };
    let found: Vec<_> = CASES.iter().map(of).collect();
    use Evaluator::{Panes, Ring};
    assert_eq!(
        found,
        [
            (Panes, 3, true),
            (Panes, 3, true),
            (Panes, 2, true),
            (Panes, 4, true),
            (Panes, 3, false),
            (Panes, 2, false),
            (Ring, 1, false),
            (Ring, 1, false),
            (Ring, 1, false),
            (Panes, 5, true),
            (Ring, 1, false),
        ]
    );
}

#[test]
fn an_early_window_tells_with_the_event_that_makes_it_true() {
    let sql = "SELECT user_name, count(*) AS n FROM audit GROUP BY user_name HAVING count(*) >= 3";
    let lengths = Lengths { size: 60, every: 60, suppress: 0 };
    let events: Vec<Event> = (0..5).map(|second| (second * 10, "ann", "get", "a", 200)).collect();
    let rule = rule(&planner(), sql, &["user_name"], lengths);
    let mut early = window(WindowRule { early: true, ..rule });
    let mut out = Vec::new();
    let counts: Vec<usize> = entries(&numbered(&events))
        .iter()
        .map(|entry| {
            early.see(0, entry, &mut out);
            out.len()
        })
        .collect();
    assert_eq!(counts, [0, 0, 1, 1, 1]);
    finish(&mut early, &mut out);
    let [first, last] = out.as_slice() else { panic!("{out:?}") };
    assert_eq!((&first.identity, first.at_us), (&last.identity, last.at_us));
    assert_eq!((ids(&first.evidence.rows).len(), ids(&last.evidence.rows).len()), (3, 5));
}

#[test]
fn what_is_wrong_with_a_window_is_told_when_it_is_made() {
    let planner = planner();
    let made = |sql: &str, entity: &str, size: u64, every: u64, early: bool| {
        let length = |seconds| Length(Duration::from_secs(seconds));
        let spec = WindowSpec { size: length(size), every: Some(length(every)), early };
        let plan = Arc::new(planner.plan_window(sql).expect("plans"));
        WindowRule::new(0, plan, &spec, &[Field::new(entity)], 0, columns()).map(|_| ())
    };
    let grouped = "SELECT user_name, count(*) AS n FROM audit GROUP BY user_name HAVING count(*) >= 3";
    assert_eq!(made(grouped, "user_name", 60, 10, true), Ok(()));
    let told = |result: Result<(), String>| result.expect_err("refused");
    assert_eq!(
        told(made(grouped, "namespace", 60, 10, false)),
        "the entity `namespace` is not in the SELECT list of the query"
    );
    assert_eq!(told(made(grouped, "user_name", 60, 25, false)), "`size` (60s) is not a multiple of `every` (25s)");
    assert_eq!(told(made(grouped, "user_name", 7200, 1, false)), "`every` (1s) is less than 1/3600 of `size` (7200s)");
    let falling = "SELECT user_name FROM audit GROUP BY user_name HAVING count(*) >= 3 AND min(response_code) > 400";
    let error = told(made(falling, "user_name", 60, 10, true));
    assert!(error.starts_with("the window cannot fire early: `min(audit.response_code) > Int64(400)`"), "{error}");
    let joined = "SELECT a.user_name FROM audit a JOIN audit b ON a.user_name = b.user_name AND a.name <> b.name";
    let error = told(made(joined, "user_name", 60, 10, true));
    assert_eq!(
        error,
        "the window cannot fire early: the query is more than conditions on counts of events grouped by plain columns"
    );
    let moving = "SELECT user_name, window_end() AS until, count(*) AS n FROM audit GROUP BY user_name";
    assert_eq!(told(made(moving, "until", 60, 10, false)), "the entity `until` differs from hop to hop");
}

#[test]
fn hops_that_nobody_gave_are_about_a_thirtieth() {
    let hop = |seconds: u64| {
        let spec = WindowSpec { size: Length(Duration::from_secs(seconds)), every: None, early: false };
        spec.hop().expect("always one").0.as_secs()
    };
    assert_eq!([1, 7, 60, 61, 300, 3600, 86_400].map(hop), [1, 7, 10, 61, 10, 120, 2880]);
}

#[test]
fn the_oldest_pane_goes_where_there_is_no_room_and_it_is_told() {
    let sql = "SELECT user_name, count(*) AS n FROM audit GROUP BY user_name HAVING count(*) >= 4";
    let lengths = Lengths { size: 60, every: 10, suppress: 0 };
    let rule = rule(&planner(), sql, &["user_name"], lengths);
    let mut window = window(WindowRule { rows_max: 4, ..rule });
    let mut out = Vec::new();
    let events: Vec<Event> = [1, 2, 11, 12, 13].into_iter().map(|second| (second, "ann", "get", "a", 200)).collect();
    entries(&numbered(&events)).iter().for_each(|entry| window.see(0, entry, &mut out));
    assert_eq!((window.size().rows, window.size().shed), (3, 2));
    let told = "2 events from 1970-01-01T00:00:00Z to 1970-01-01T00:00:10Z were let go: more than 4 were held";
    assert_eq!(window.failures(), [told]);
    finish(&mut window, &mut out);
    assert!(out.is_empty(), "five events came, but no more than four were held together");
}

#[test]
fn a_hop_that_fails_is_told_and_the_next_goes_on() {
    let sql = "SELECT user_name, count(*) AS n FROM audit GROUP BY user_name, CAST(name AS BIGINT)";
    let lengths = Lengths { size: 10, every: 10, suppress: 0 };
    let mut window = window(rule(&planner(), sql, &["user_name"], lengths));
    let mut out = Vec::new();
    let events = [(1, "ann", "get", "x", 200), (11, "ann", "get", "7", 200)];
    entries(&numbered(&events)).iter().for_each(|entry| window.see(0, entry, &mut out));
    finish(&mut window, &mut out);
    let failures = window.failures();
    assert!(
        matches!(failures.as_slice(), [told] if told.starts_with("the window up to 1970-01-01T00:00:10Z: ")),
        "{failures:?}"
    );
    assert_eq!(out.len(), 1);
    assert_eq!(window.failures(), Vec::<String>::new(), "each is told once");
    assert_eq!(window.harm(), 0, "what an event can do by its values is no harm");
}

#[test]
fn a_join_of_everything_with_everything_is_cut_off() {
    let sql = "SELECT a.user_name FROM audit a JOIN audit b ON a.response_code < b.response_code JOIN audit c ON b.response_code < c.response_code";
    let lengths = Lengths { size: 60, every: 60, suppress: 0 };
    let mut window = window(rule(&planner(), sql, &["user_name"], lengths));
    let mut out = Vec::new();
    let events: Vec<Event> = (0..1000).map(|index| (1, "ann", "get", "a", index)).collect();
    entries(&numbered(&events)).iter().for_each(|entry| window.see(0, entry, &mut out));
    finish(&mut window, &mut out);
    assert!(out.is_empty());
    let failures = window.failures();
    assert!(
        matches!(failures.as_slice(), [told] if told.contains("a join without an equality would compare 1001000000 pairs")),
        "{failures:?}"
    );
    assert_eq!((window.harm(), window.harm()), (1, 0), "each is told once");
}

#[test]
fn what_was_saved_must_fit() {
    let sql = "SELECT user_name, count(*) AS n FROM audit GROUP BY user_name HAVING count(*) >= 2";
    let lengths = Lengths { size: 60, every: 10, suppress: 0 };
    let rule = Arc::new(rule(&planner(), sql, &["user_name"], lengths));
    let mut window = Window::new(Arc::clone(&rule), "cluster".into());
    let mut out = Vec::new();
    let events = [(1, "ann", "get", "a", 200), (11, "ann", "get", "a", 200), (12, "ann", "get", "b", 200)];
    entries(&numbered(&events)).iter().for_each(|entry| window.see(0, entry, &mut out));
    let saved = window.save();
    let names: Vec<&str> = saved.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["window", "edges", "rows-10000000-0-1", "open"]);
    for (left_out, told) in [("window", "the table `window` is missing"), ("edges", "the table `edges` is missing")] {
        let part: Vec<_> = saved.iter().filter(|(name, _)| name != left_out).cloned().collect();
        assert_eq!(window.restore(&part), Err(told.to_owned()));
        assert_eq!(window.size().rows, 3, "it is as it was");
    }
    let cut = |(name, table): &(String, RecordBatch)| {
        let columns = table.num_columns() - usize::from(name.starts_with("rows-"));
        (name.clone(), table.project(&(0..columns).collect::<Vec<_>>()).expect("columns that are there"))
    };
    let cut: Vec<_> = saved.iter().map(cut).collect();
    assert_eq!(window.restore(&cut), Err("the column `arrival_ms` is missing".to_owned()));
    assert_eq!(window.restore(&saved), Ok(()));
    assert_eq!(window.size().rows, 3);
}

#[test]
fn an_event_without_a_column_that_is_read_is_a_failure_and_no_null() {
    let sql = "SELECT namespace, count(*) AS n FROM audit GROUP BY namespace";
    let lengths = Lengths { size: 10, every: 10, suppress: 0 };
    let mut window = window(rule(&planner(), sql, &["namespace"], lengths));
    let mut out = Vec::new();
    entries(&numbered(&[(1, "ann", "get", "a", 200)])).iter().for_each(|entry| window.see(0, entry, &mut out));
    finish(&mut window, &mut out);
    assert!(out.is_empty());
    assert_eq!(window.failures(), ["the column namespace was not kept"]);
}

#[test]
fn a_finding_carries_the_newest_events_and_counts_all() {
    let sql = "SELECT user_name, count(*) AS n FROM audit GROUP BY user_name HAVING count(*) >= 2";
    let lengths = Lengths { size: 10, every: 10, suppress: 0 };
    let mut window = window(rule(&planner(), sql, &["user_name"], lengths));
    let events: Vec<Event> = (0..5000).map(|_| (1, "ann", "get", "a", 200)).collect();
    let found = run(&mut window, &events);
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    let kept = ids(&finding.evidence.rows);
    assert_eq!((kept.len(), kept.first(), kept.last()), (1000, Some(&id(4000)), Some(&id(4999))));
    assert!(finding.computed.contains(&(EVENTS.into(), json!(5000))));
}

#[test]
fn the_report_says_what_is_kept_and_how() {
    let sql = "SELECT user_name, count(*) AS n FROM audit WHERE verb = 'get' GROUP BY user_name HAVING count(*) >= 3";
    let lengths = Lengths { size: 60, every: 10, suppress: 0 };
    let text = rule(&planner(), sql, &["user_name"], lengths).report().to_string();
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            "window     60 s, every 10 s",
            "evaluator  panes: each event is aggregated once, the answer is put together out of panes",
            "floor      it runs over events that share user_name with at least 2 others",
            "keeps      events with verb = Utf8(\"get\")",
            "columns    event_id, event_time, verb, name, user_name, response_code",
            "at most    1000000 events a cluster",
            "key        user_name",
            "evidence   events with the same user_name",
        ]
    );
}
