//! A Kubernetes API server for tests: etcd and kube-apiserver on a loopback address of their own.
//!
//! It has no nodes, so no pod ever runs: tests set the status that a kubelet would. A test starts one
//! with [`ApiServer::start`], and is a [`trial`], which is ignored where the programs are not built.

mod group;
mod keys;
mod kubeconfig;
mod programs;
mod server;
mod setup;
mod trial;

pub use self::{
    group::Group,
    keys::{Authority, Pair},
    kubeconfig::Kubeconfig,
    programs::Programs,
    server::{ApiServer, Options, Paused},
    setup::{ADMINISTRATOR, Setup, User},
    trial::{apart, trial},
};
