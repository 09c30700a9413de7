//! How a pod gets its sidecar.
