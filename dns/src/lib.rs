//! Answers names: a table of records, an authority, a forwarder.
