//! Test support: several control planes in one process.
