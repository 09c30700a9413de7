//! Keeps the resources of a zone as objects of its Kubernetes cluster.
