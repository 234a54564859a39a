//! Planning: SQL text in, something to evaluate many times out.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray};
use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::scalar::ScalarValue;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ExprWithAlias, Statement as Ast, Visit};

use super::canonical::{canonical, conjuncts, depth, unqualified};
use super::check;
use super::error::{SqlError, from_datafusion};
use super::filter::{Filter, filter_of};
use super::functions::type_name;
use super::general::{GeneralPlan, Scans, flattened};
use super::lists::Lists;
use super::locate;
use super::pattern;
use super::session::{block_on, check_size, on_large_stack, state};
use super::table::AUDIT;
use crate::model::{AUDIT_SCHEMA, Column, ColumnSet};

/// Deepest expression that may leave the planner: whoever evaluates it has an ordinary stack.
const DEPTH_MAX: usize = 128;

/// Plans detections and predicates against the table `audit` and a set of reference lists.
#[derive(Debug)]
pub struct Planner {
    pub(super) state: SessionState,
}

/// One conjunct of a detection's condition.
#[derive(Debug, Clone)]
pub struct Conjunct {
    /// Type-checked and simplified, over columns without a table name. Equal expressions mean the same.
    pub expr: Expr,
    /// The expression as text; different expressions have different texts.
    pub text: String,
    /// The columns that it reads.
    pub columns: ColumnSet,
}

/// A detection's query, planned.
#[derive(Debug, Clone)]
pub struct EventPlan {
    /// What the condition and the computed outputs read; for [`Shape::General`], all that the plan reads.
    pub columns: ColumnSet,
    /// Names of the SELECT list.
    pub output: Vec<String>,
    /// Outputs that are not plain columns of the table, with expressions over [`AUDIT_SCHEMA`]. Empty for
    /// [`Shape::General`], whose output batch holds them.
    pub computed: Vec<(Arc<str>, Arc<dyn PhysicalExpr>)>,
    pub shape: Shape,
}

/// How a detection is evaluated.
#[derive(Debug, Clone)]
pub enum Shape {
    /// An event matches when all conjuncts are true. No conjunct at all: every event matches.
    Filter { conjuncts: Vec<Conjunct> },
    /// An event matches when the plan gives a row for it. Only events that pass all `candidates` can;
    /// `None`: any event can.
    General { plan: Arc<GeneralPlan>, candidates: Option<Vec<Conjunct>> },
}

/// A condition over one event.
#[derive(Debug, Clone)]
pub struct Predicate {
    /// Boolean, over [`AUDIT_SCHEMA`].
    pub expr: Arc<dyn PhysicalExpr>,
    /// The columns that it reads.
    pub columns: ColumnSet,
}

impl Predicate {
    /// For each row of all columns of `audit`, whether the condition is true (unknown is not true).
    ///
    /// # Errors
    /// Where evaluation fails, such as a cast that does not fit.
    pub fn holds(&self, rows: &RecordBatch) -> Result<Vec<bool>, SqlError> {
        let array = self.expr.evaluate(rows).and_then(|value| value.into_array(rows.num_rows()));
        let array = array.map_err(|error| SqlError::new(error.strip_backtrace()))?;
        let answers = array.as_any().downcast_ref::<BooleanArray>();
        let answers = answers.ok_or_else(|| SqlError::new("the condition is not true or false"))?;
        Ok(answers.iter().map(|answer| answer == Some(true)).collect())
    }
}

impl Planner {
    /// A planner with its own restricted session over these lists. Does no input or output.
    pub fn new(lists: Lists) -> Self {
        Planner { state: state(&lists).expect("the session's settings are constants that DataFusion knows") }
    }

    /// Plans an event detection: one SELECT over `audit`.
    ///
    /// # Errors
    /// What is wrong with the text, where, and how to mend it.
    pub fn plan_event(&self, sql: &str) -> Result<EventPlan, SqlError> {
        check_size(sql)?;
        on_large_stack(|| {
            let statement = self.parse(sql)?;
            let planned = block_on(self.state.statement_to_plan(Statement::Statement(statement.clone())));
            let plan = planned.map_err(|error| self.explain(&error, statement.as_ref(), sql))?;
            check::allowed(&plan)?;
            let plan = self.state.optimize(&plan).map_err(|error| self.explain(&error, statement.as_ref(), sql))?;
            self.event(plan)
        })
    }

    /// Plans a condition over the columns of `audit`.
    ///
    /// # Errors
    /// What is wrong with the text, where, and how to mend it.
    pub fn plan_predicate(&self, sql: &str) -> Result<Predicate, SqlError> {
        check_size(sql)?;
        on_large_stack(|| {
            let (expr, kind) = self.expression(sql)?;
            if !matches!(kind, DataType::Boolean | DataType::Null) {
                let kind = type_name(&kind);
                return Err(SqlError::new(format!("the condition must be true or false, but it is {kind}")));
            }
            // A condition that is nothing but NULL has no type of its own.
            let expr = if kind == DataType::Null { lit(ScalarValue::Boolean(None)) } else { expr };
            let conjunct = self.conjunct(expr)?;
            Ok(Predicate { expr: self.physical(&conjunct.expr, &AUDIT_SCHEMA)?, columns: conjunct.columns })
        })
    }

    /// An expression over the columns of `audit`, simplified, and its type.
    pub(super) fn expression(&self, sql: &str) -> Result<(Expr, DataType), SqlError> {
        let dialect = self.state.config_options().sql_parser.dialect;
        let parsed = self.state.sql_to_expr(sql, &dialect).map_err(|error| self.tell(&error, sql))?;
        let explain = |error: DataFusionError| self.explain(&error, &parsed, sql);
        let schema = audit_schema().map_err(explain)?;
        let with_alias = ExprWithAlias { expr: parsed.clone(), alias: None };
        let expr = self.state.create_logical_expr_from_sql_expr(with_alias, &schema).map_err(explain)?;
        check::allowed_expr(&expr)?;
        let expr = simplified(&self.state, expr, &schema).map_err(explain)?;
        let kind = expr.get_type(&schema).map_err(explain)?;
        let expr = canonical(expr).and_then(unqualified).map_err(explain)?;
        Ok((expr, kind))
    }

    /// Turns an expression (of a [`Conjunct`]) into one that can be evaluated over batches of the given schema.
    ///
    /// # Errors
    /// Where the schema lacks a column or has it with a type that does not fit.
    pub fn physical(&self, expr: &Expr, schema: &Schema) -> Result<Arc<dyn PhysicalExpr>, SqlError> {
        let built = DFSchema::try_from(schema.clone())
            .and_then(|schema| self.state.create_physical_expr(pattern::compiled(expr.clone())?, &schema));
        built.map_err(|error| from_datafusion(&error, &self.function_names()))
    }

    /// Names of all functions that SQL may use, DataFusion's and ours.
    pub fn function_names(&self) -> Vec<String> {
        let scalar = self.state.scalar_functions().keys();
        let others = self.state.aggregate_functions().keys().chain(self.state.window_functions().keys());
        let mut names: Vec<String> = scalar.chain(others).cloned().collect();
        names.sort();
        names
    }

    pub(super) fn parse(&self, sql: &str) -> Result<Box<Ast>, SqlError> {
        let help = "an event detection is one SELECT over `audit`";
        let dialect = self.state.config_options().sql_parser.dialect;
        let statement = match self.state.sql_to_statement(sql, &dialect) {
            Ok(statement) => statement,
            Err(DataFusionError::NotImplemented(_)) => {
                return Err(SqlError::new("only one statement is allowed").help(help));
            }
            Err(error) => return Err(self.tell(&error, sql)),
        };
        match statement {
            Statement::Statement(statement) if matches!(*statement, Ast::Query(_)) => Ok(statement),
            _ => Err(SqlError::new("only a SELECT is allowed").help(help)),
        }
    }

    fn event(&self, plan: LogicalPlan) -> Result<EventPlan, SqlError> {
        let output = plan.schema().fields().iter().map(|field| field.name().clone()).collect();
        match filter_of(&plan)? {
            Some(filter) => self.filter_event(filter, output),
            None => self.general_event(plan, output),
        }
    }

    fn filter_event(&self, filter: Filter, output: Vec<String>) -> Result<EventPlan, SqlError> {
        let mut columns = ColumnSet::EMPTY;
        let mut planned = Vec::new();
        for expr in filter.predicate.map(conjuncts).unwrap_or_default() {
            match expr {
                Expr::Literal(ScalarValue::Boolean(Some(true)), _) => continue,
                Expr::Literal(..) => return Err(never_true()),
                expr => planned.push(self.conjunct(expr)?),
            }
        }
        let mut computed = Vec::new();
        for (name, expr) in filter.outputs {
            if matches!(&expr, Expr::Column(column) if column.name == name) {
                continue;
            }
            if Column::by_name(&name).is_some() {
                let message = format!("the output `{name}` has the name of a column but another value");
                return Err(SqlError::new(message).help("give it a name of its own with AS"));
            }
            columns = columns.union(self.conjunct(expr.clone())?.columns);
            computed.push((Arc::from(name), self.physical(&expr, &AUDIT_SCHEMA)?));
        }
        columns = planned.iter().fold(columns, |all, conjunct| all.union(conjunct.columns));
        Ok(EventPlan { columns, output, computed, shape: Shape::Filter { conjuncts: planned } })
    }

    fn general_event(&self, plan: LogicalPlan, output: Vec<String>) -> Result<EventPlan, SqlError> {
        let tell = |error: DataFusionError| from_datafusion(&error, &self.function_names());
        let (plan, scans) = self.scanned(plan)?;
        let general = GeneralPlan::of_event(&self.state, &plan).map_err(tell)?;
        // Also what makes `candidates` right: an event that no scan keeps is as good as no event.
        if general.matches_without_event()? {
            return Err(SqlError::new("the query gives a row even without any event, so it would match every event")
                .help("an aggregate without GROUP BY always gives a row: add GROUP BY or HAVING"));
        }
        let candidates = self.candidates(&scans, &AUDIT_SCHEMA)?;
        let shape = Shape::General { plan: Arc::new(general), candidates };
        Ok(EventPlan { columns: scans.columns, output, computed: Vec::new(), shape })
    }

    /// A plan that is more than a filter, with no filter that is deep, and what its scans read.
    pub(super) fn scanned(&self, plan: LogicalPlan) -> Result<(LogicalPlan, Scans), SqlError> {
        let tell = |error: DataFusionError| from_datafusion(&error, &self.function_names());
        let plan = flattened(plan).map_err(tell)?;
        let scans = Scans::of(&plan).map_err(tell)?;
        if scans.none() {
            return Err(never_true());
        }
        check_depth(&plan)?;
        Ok((plan, scans))
    }

    /// Conjuncts over a table of this schema that every row which some scan keeps passes; `None`: a scan keeps all.
    pub(super) fn candidates(&self, scans: &Scans, schema: &Schema) -> Result<Option<Vec<Conjunct>>, SqlError> {
        let parts = scans.candidates().map_err(|error| from_datafusion(&error, &self.function_names()))?;
        parts.map(|parts| parts.into_iter().map(|part| self.conjunct_over(part, schema)).collect()).transpose()
    }

    /// Checks that an expression can be evaluated, now instead of when events arrive.
    pub(super) fn conjunct(&self, expr: Expr) -> Result<Conjunct, SqlError> {
        self.conjunct_over(expr, &AUDIT_SCHEMA)
    }

    /// The same over another table.
    pub(super) fn conjunct_over(&self, expr: Expr, schema: &Schema) -> Result<Conjunct, SqlError> {
        if depth(&expr) > DEPTH_MAX {
            return Err(too_deep());
        }
        self.physical(&expr, schema)?;
        let columns = expr.column_refs().into_iter().filter_map(|column| Column::by_name(&column.name)).collect();
        Ok(Conjunct { text: expr.to_string(), columns, expr })
    }

    /// An error of the parser, which knows its place.
    fn tell(&self, error: &DataFusionError, sql: &str) -> SqlError {
        let told = locate::quoted_text(from_datafusion(error, &self.function_names()), sql);
        if told.line.is_none() && told.message.ends_with("found: EOF") { told.at(locate::end(sql)) } else { told }
    }

    /// An error of planning; where it does not say its place, the innermost expression that fails alike is it.
    pub(super) fn explain(&self, error: &DataFusionError, parsed: &impl Visit, sql: &str) -> SqlError {
        let told = self.tell(error, sql);
        if told.line.is_some() {
            return told;
        }
        let place = locate::culprit(&self.state, parsed, &told, &self.function_names());
        told.at(place)
    }
}

/// The table's schema with its name, as a query sees it.
pub(super) fn audit_schema() -> datafusion::error::Result<Arc<DFSchema>> {
    Ok(Arc::new(DFSchema::try_from_qualified_schema(AUDIT, &AUDIT_SCHEMA)?))
}

/// The expression with its types made to fit and its constant parts computed.
pub(super) fn simplified(state: &SessionState, expr: Expr, schema: &Arc<DFSchema>) -> datafusion::error::Result<Expr> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(schema))
        .with_config_options(Arc::clone(state.config_options()))
        .build();
    let simplifier = ExprSimplifier::new(context);
    simplifier.simplify(simplifier.coerce(expr, schema)?)
}

fn never_true() -> SqlError {
    SqlError::new("the condition is never true, so the detection could never match")
}

fn too_deep() -> SqlError {
    SqlError::new("an expression is nested too deeply").help("split it, or use IN, any_like or a reference list")
}

fn check_depth(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut deep = false;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            deep |= depth(expr) > DEPTH_MAX;
            Ok(datafusion::common::tree_node::TreeNodeRecursion::Continue)
        })
    });
    match (walked, deep) {
        (Ok(_), false) => Ok(()),
        _ => Err(too_deep()),
    }
}
