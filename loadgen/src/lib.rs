//! How to press on a farm of mail servers, and a server to press on.
