//! The TOML schema and its lowering to `Config`.
