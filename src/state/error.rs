//! What can go wrong with state, and whose turn it is then.

/// Why state could not be read, written or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The address is wrong: the user's to mend.
    #[error("state address `{address}`: {reason}")]
    Address { address: String, reason: String },
    /// There is nothing at the address, where something has to be.
    #[error("there is no state at {place}; `kubetide config show` says which address `state` has")]
    Absent { place: String },
    /// The store refused or failed; trying again may help.
    #[error("state at {place}: cannot {action} {name}: {reason}")]
    Store { place: String, action: &'static str, name: String, reason: String },
    /// Another process has written since we did: this one must not go on.
    #[error(
        "state at {place}: {owner} has taken it over with epoch {epoch}, so this process ({own}) must stop; give each \
         process its own state, or run only one"
    )]
    Fenced { place: String, epoch: u64, owner: String, own: String },
    /// Written in a form that this version does not know.
    #[error(
        "state at {place}: {name} has format {found} and this version knows {known}; run the version that wrote it \
         ({product}), or move the state away and start without"
    )]
    Format { place: String, name: String, found: u32, known: u32, product: String },
    /// What is there is of another kind, or was made for something else.
    #[error("state at {place}: {reason}")]
    Divided { place: String, reason: String },
    /// A table that has no stored form: a fault of the program.
    #[error("table {table} of {part} cannot be stored: {reason}")]
    Encode { part: String, table: String, reason: String },
}

impl StateError {
    /// Whether what the user wrote or did is to blame, so that trying again cannot help.
    pub fn is_users(&self) -> bool {
        matches!(
            self,
            StateError::Address { .. }
                | StateError::Absent { .. }
                | StateError::Format { .. }
                | StateError::Divided { .. }
        )
    }
}
