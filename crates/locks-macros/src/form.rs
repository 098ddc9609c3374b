//! The six decorators, and what tells them apart.

/// A decorator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Form {
    /// What users write.
    pub(crate) attribute: &'static str,
    pub(crate) naming: Naming,
    /// Whether the function is skipped if the lock is held.
    pub(crate) tries: bool,
    /// Whether it is always a lock of the file backend.
    pub(crate) files: bool,
}

/// Where the lock's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// From where the function is.
    Function,
    /// From the attribute.
    Custom,
}

impl Form {
    pub(crate) const LOCK: Self =
        Self { attribute: "lock", naming: Naming::Function, tries: false, files: false };
    pub(crate) const TRY_LOCK: Self = Self { attribute: "trylock", tries: true, ..Self::LOCK };
    pub(crate) const CUSTOM_LOCK: Self =
        Self { attribute: "customlock", naming: Naming::Custom, ..Self::LOCK };
    pub(crate) const FILE_LOCK: Self = Self { attribute: "filelock", files: true, ..Self::LOCK };
    pub(crate) const TRY_FILE_LOCK: Self = Self { attribute: "tryfilelock", files: true, ..Self::TRY_LOCK };
    pub(crate) const CUSTOM_FILE_LOCK: Self =
        Self { attribute: "customfilelock", files: true, ..Self::CUSTOM_LOCK };

    /// The decorator of the same kind that takes a name.
    pub(crate) const fn custom(self) -> &'static str {
        if self.files { Self::CUSTOM_FILE_LOCK.attribute } else { Self::CUSTOM_LOCK.attribute }
    }
}
