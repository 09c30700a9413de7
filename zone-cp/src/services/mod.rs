//! Services, their state, addresses and host names, out of workloads.
