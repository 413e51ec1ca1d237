//! Servers that no honest program is.
