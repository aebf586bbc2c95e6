//! Settings that guard an Ingress: one that cannot be read must close, not open.

/// Something that was asked for to keep requests out, or why there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Guard<T> {
    /// Nothing was asked for.
    #[default]
    Unset,
    /// This.
    Set(T),
    /// What was asked for makes no sense, which has been reported: nobody may pass.
    Wrong,
}

impl<T> Guard<T> {
    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        matches!(self, Self::Unset)
    }

    /// What was asked for, where it makes sense.
    #[must_use]
    pub fn set(&self) -> Option<&T> {
        match self {
            Self::Set(guard) => Some(guard),
            Self::Unset | Self::Wrong => None,
        }
    }
}
