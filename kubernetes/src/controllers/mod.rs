//! What pods and services of the cluster are in the mesh: each controller is a small reconciler.
