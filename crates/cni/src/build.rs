//! The version and the commit of this build. All programs and the node records have them, so that hosts can be compared.

/// The version of crosshost: `1.0.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The first eight digits of the git commit, or `unknown`.
pub const COMMIT: &str = env!("CROSSHOST_COMMIT");
/// Both, as `--version` prints them: `1.0.0 (a1b2c3d4)`.
pub const BUILD: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("CROSSHOST_COMMIT"),
    ")"
);
