//! What the conditions of Sigma and Falco have in common: `not` binds tightest, then `and`, then `or`.

use super::expr::Expr;

/// Brackets and negations (and macros in each other) that are followed down.
pub(super) const DEPTH_MAX: usize = 64;

/// A reader of conditions that tells words and operands apart in its own way.
pub(super) trait Grammar {
    /// What else may be the reason where alternatives are nested too deeply, to be added to the error.
    const OR_ELSE: &'static str = "";

    /// Takes this word if it comes next.
    fn word(&mut self, word: &str) -> bool;

    /// An operand: a bracket, a name, a comparison.
    fn primary(&mut self, depth: usize) -> Result<Expr, String>;

    /// A whole condition.
    ///
    /// # Errors
    /// Says what cannot be read.
    fn or(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested more than {DEPTH_MAX} levels deep{}", Self::OR_ELSE));
        }
        let mut parts = vec![self.and(depth)?];
        while self.word("or") {
            parts.push(self.and(depth)?);
        }
        Ok(Expr::any(parts))
    }

    fn and(&mut self, depth: usize) -> Result<Expr, String> {
        let mut parts = vec![self.not(depth)?];
        while self.word("and") {
            parts.push(self.not(depth)?);
        }
        Ok(Expr::all(parts))
    }

    fn not(&mut self, depth: usize) -> Result<Expr, String> {
        if depth > DEPTH_MAX {
            return Err(format!("it is nested more than {DEPTH_MAX} levels deep"));
        }
        if self.word("not") { Ok(Expr::not(self.not(depth + 1)?)) } else { self.primary(depth) }
    }
}
