//! The DataFusion session: what SQL may use, and how planning runs.
//!
//! Everything is listed by hand; nothing is there because it is DataFusion's default:
//! - one partition, so plans spawn no tasks of their own accord and can be reset and run again;
//! - dynamic filters off, as a plan with them cannot be run again correctly;
//! - no clock, no chance, no catalog queries, no recursion, no table functions, nothing that grows a value at will;
//! - sharing of equal parts off in the optimiser: detections share conjuncts among each other instead, and hoisted
//!   expressions would only hide them.

use std::sync::Arc;

use datafusion::config::Dialect;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::functions::{core, datetime, regex, string, unicode};
use datafusion::functions_nested as nested;
use datafusion::logical_expr::ScalarUDF;
use datafusion::optimizer::Optimizer;
use datafusion::prelude::SessionConfig;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::error::{Place, SqlError, fragment};
use super::functions;
use super::lists::Lists;
use super::table::{ALERTS, AUDIT, Table};
use crate::model::{ALERTS_SCHEMA, AUDIT_SCHEMA};

/// Stack of a planning thread: parser, planner and the drop of an expression recurse as deep as the text says.
const STACK_BYTES: usize = 64 << 20;
/// Longest SQL text. Large sets of values belong into lists.
pub(super) const TEXT_BYTES_MAX: usize = 64 << 10;
/// Most words and signs in a SQL text: the optimiser takes time in the square of the length of a chain of conditions.
pub(super) const TOKENS_MAX: usize = 2048;
/// Most function calls within each other's arguments: the parser reads each call twice, so that every one doubles its time.
const CALLS_NESTED_MAX: usize = 12;
/// Memory of one execution of a prepared plan.
const MEMORY_BYTES: usize = 64 << 20;
/// Memory of the executions of one window's query.
const WINDOW_MEMORY_BYTES: usize = 256 << 20;
/// A join moves conditions in one pass that the next brings to the scans.
const WINDOW_PASSES: usize = 3;
/// Optimiser rules that hide what is counted: `count(DISTINCT x)` would become an aggregate over another.
const WINDOW_RULES_OFF: [&str; 1] = ["single_distinct_aggregation_to_group_by"];
/// Optimiser rules that hide or move shared expressions.
const RULES_OFF: [&str; 3] =
    ["common_sub_expression_eliminate", "extract_leaf_expressions", "push_down_leaf_projections"];

/// A session over the table `audit` and the given lists.
///
/// # Errors
/// Only if DataFusion refuses its own settings.
pub(super) fn state(lists: &Lists) -> Result<SessionState> {
    let mut optimizer = Optimizer::new();
    optimizer.rules.retain(|rule| !RULES_OFF.contains(&rule.name()));
    let rules = optimizer.rules;
    let mut state = SessionStateBuilder::new()
        .with_config(config())
        .with_runtime_env(runtime(MEMORY_BYTES)?)
        .with_optimizer_rules(rules)
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(scalar_functions(lists))
        .with_aggregate_functions(SessionStateDefaults::default_aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .build();
    datafusion_functions_json::register_all(&mut state)?;
    for (name, schema) in [(AUDIT, &AUDIT_SCHEMA), (ALERTS, &ALERTS_SCHEMA)] {
        state.schema_for_ref(name)?.register_table(name.to_owned(), Arc::new(Table(Arc::clone(schema))))?;
    }
    Ok(state)
}

/// The same session, set for what is read out of the plan of a window's query, and with its own memory.
///
/// # Errors
/// Only if DataFusion refuses its own settings.
pub(super) fn window_state(state: &SessionState) -> Result<SessionState> {
    let rules = state.optimizers().iter().filter(|rule| !WINDOW_RULES_OFF.contains(&rule.name())).cloned().collect();
    // The catalog is shared: with the setting as it was, the builder would put an empty one in its place.
    let mut config = state.config().clone().with_create_default_catalog_and_schema(false);
    config.options_mut().optimizer.max_passes = WINDOW_PASSES;
    // States that were not aggregated would be as large as the rows.
    config.options_mut().execution.skip_partial_aggregation_probe_ratio_threshold = f64::MAX;
    let state = SessionStateBuilder::new_from_existing(state.clone()).with_config(config).with_optimizer_rules(rules);
    Ok(state.with_runtime_env(runtime(WINDOW_MEMORY_BYTES)?).build())
}

fn runtime(memory_bytes: usize) -> Result<Arc<RuntimeEnv>> {
    RuntimeEnvBuilder::new()
        .with_memory_limit(memory_bytes, 1.0)
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
        .build_arc()
}

fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_target_partitions(1).with_information_schema(false);
    let options = config.options_mut();
    options.execution.enable_recursive_ctes = false;
    options.execution.time_zone = Some("UTC".to_owned());
    options.execution.collect_statistics = false;
    options.optimizer.enable_dynamic_filter_pushdown = false;
    options.optimizer.enable_topk_dynamic_filter_pushdown = false;
    options.optimizer.enable_join_dynamic_filter_pushdown = false;
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.optimizer.enable_leaf_expression_pushdown = false;
    // Further passes change nothing for a filter over one table, and cost most of the planning.
    options.optimizer.max_passes = 1;
    options.sql_parser.collect_spans = true;
    // The only one in which `labels->>'app' = 'x'` compares what the arrow gives.
    options.sql_parser.dialect = Dialect::PostgreSQL;
    // The table's texts are Utf8; casts to another kind of text would only cost.
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

/// The scalar functions that SQL may use, ours last.
fn scalar_functions(lists: &Lists) -> Vec<Arc<ScalarUDF>> {
    let mut all = vec![
        core::arrow_cast(),
        core::arrow_typeof(),
        core::coalesce(),
        core::get_field(),
        core::greatest(),
        core::least(),
        core::named_struct(),
        core::nullif(),
        core::nvl(),
        core::nvl2(),
        core::overlay(),
        core::r#struct(),
        string::ascii(),
        string::bit_length(),
        string::btrim(),
        string::chr(),
        string::concat(),
        string::concat_ws(),
        string::contains(),
        string::ends_with(),
        string::levenshtein(),
        string::lower(),
        string::ltrim(),
        string::octet_length(),
        string::replace(),
        string::rtrim(),
        string::split_part(),
        string::starts_with(),
        string::to_hex(),
        string::upper(),
        unicode::character_length(),
        unicode::find_in_set(),
        unicode::initcap(),
        unicode::left(),
        unicode::reverse(),
        unicode::right(),
        unicode::strpos(),
        unicode::substr(),
        unicode::substr_index(),
        unicode::translate(),
    ];
    all.extend(regex::functions());
    all.extend(datetime_functions());
    all.extend(nested_functions());
    all.extend(functions::all(lists));
    all.extend(functions::span::functions());
    all
}

/// Times from texts and numbers and back; nothing that reads the clock.
fn datetime_functions() -> Vec<Arc<ScalarUDF>> {
    let config = datafusion::config::ConfigOptions::default();
    vec![
        datetime::date_bin(),
        datetime::date_part(),
        datetime::date_trunc(),
        datetime::from_unixtime(),
        datetime::make_date(),
        datetime::to_char(),
        datetime::to_date(),
        datetime::to_unixtime(),
        datetime::to_timestamp(&config),
        datetime::to_timestamp_seconds(&config),
        datetime::to_timestamp_millis(&config),
        datetime::to_timestamp_micros(&config),
    ]
}

/// Functions over lists whose result is no larger than their arguments.
fn nested_functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        nested::array_compact::array_compact_udf(),
        nested::array_has::array_has_all_udf(),
        nested::array_has::array_has_any_udf(),
        nested::array_has::array_has_udf(),
        nested::cardinality::cardinality_udf(),
        nested::concat::array_append_udf(),
        nested::concat::array_concat_udf(),
        nested::concat::array_prepend_udf(),
        nested::dimension::array_ndims_udf(),
        nested::empty::array_empty_udf(),
        nested::except::array_except_udf(),
        nested::extract::array_any_value_udf(),
        nested::extract::array_element_udf(),
        nested::extract::array_pop_back_udf(),
        nested::extract::array_pop_front_udf(),
        nested::extract::array_slice_udf(),
        nested::flatten::flatten_udf(),
        nested::length::array_length_udf(),
        nested::make_array::make_array_udf(),
        nested::min_max::array_max_udf(),
        nested::min_max::array_min_udf(),
        nested::position::array_position_udf(),
        nested::position::array_positions_udf(),
        nested::remove::array_remove_all_udf(),
        nested::remove::array_remove_udf(),
        nested::reverse::array_reverse_udf(),
        nested::set_ops::array_distinct_udf(),
        nested::set_ops::array_intersect_udf(),
        nested::set_ops::array_union_udf(),
        nested::sort::array_sort_udf(),
        nested::string::array_to_string_udf(),
        nested::string::string_to_array_udf(),
    ]
}

/// Refuses a text that is too long to plan safely, and tells what the tokenizer finds wrong.
pub(super) fn check_size(sql: &str) -> Result<(), SqlError> {
    if sql.len() > TEXT_BYTES_MAX {
        let message = format!("the SQL text has {} bytes; at most {TEXT_BYTES_MAX} are allowed", sql.len());
        return Err(SqlError::new(message).help("keep long lists of values in `detections/lists`"));
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize_with_location().map_err(|error| {
        SqlError::new(fragment(&error.message)).at(Place::new(error.location.line, error.location.column))
    })?;
    let words = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).count();
    if words == 0 {
        return Err(SqlError::new("there is no SQL"));
    }
    if words > TOKENS_MAX {
        let message = format!("the SQL text has {words} words and signs; at most {TOKENS_MAX} are allowed");
        return Err(SqlError::new(message).help("keep long lists of values in `detections/lists`"));
    }
    if calls_nested(tokens.iter().map(|token| &token.token)) > CALLS_NESTED_MAX {
        let message = format!("function calls are nested more than {CALLS_NESTED_MAX} deep");
        return Err(SqlError::new(message).help("compute the inner part in a subquery or a WITH, and use its column"));
    }
    Ok(())
}

/// How deep function calls stand within each other's arguments.
fn calls_nested<'t>(tokens: impl Iterator<Item = &'t Token>) -> usize {
    use Keyword::{AND, AS, BY, ELSE, EXISTS, FROM, HAVING, IN, NOT, ON, OR, OVER, SELECT, THEN, WHEN, WHERE};
    let no_call = [AND, AS, BY, ELSE, EXISTS, FROM, HAVING, IN, NOT, ON, OR, OVER, SELECT, THEN, WHEN, WHERE];
    let mut open: Vec<bool> = Vec::new();
    let (mut depth, mut deepest) = (0, 0);
    let mut after_name = false;
    for token in tokens {
        match token {
            Token::Whitespace(_) => continue,
            Token::LParen => {
                open.push(after_name);
                depth += usize::from(after_name);
                deepest = deepest.max(depth);
            }
            Token::RParen => depth -= usize::from(open.pop().unwrap_or(false)),
            _ => {}
        }
        after_name = matches!(token, Token::Word(word) if !no_call.contains(&word.keyword));
    }
    deepest
}

/// Runs the work on a thread whose stack holds whatever [`check_size`] lets pass.
///
/// # Errors
/// Says that planning failed where the work panicked.
pub(super) fn on_large_stack<T: Send>(work: impl FnOnce() -> Result<T, SqlError> + Send) -> Result<T, SqlError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("sql-planner".into()).stack_size(STACK_BYTES);
        let running = thread
            .spawn_scoped(scope, work)
            .map_err(|error| SqlError::new(format!("cannot start a thread for planning: {error}")))?;
        running
            .join()
            .unwrap_or_else(|_| Err(SqlError::new("the SQL planner failed on this query; write it another way")))
    })
}

/// Runs a future to its end on this thread; from within a runtime, on a thread of its own.
pub(super) fn block_on<T: Send>(future: impl Future<Output = Result<T>> + Send) -> Result<T> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(DataFusionError::IoError)?;
        runtime.block_on(future)
    };
    if tokio::runtime::Handle::try_current().is_err() {
        return run();
    }
    let joined = std::thread::scope(|scope| scope.spawn(run).join());
    joined.unwrap_or_else(|_| datafusion::common::exec_err!("evaluation panicked"))
}
