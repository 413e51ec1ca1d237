//! The embedded TCP forwarder.
