//! pgsql
