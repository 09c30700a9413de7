//! Which of several control planes of a zone works: the one that holds a Lease.
