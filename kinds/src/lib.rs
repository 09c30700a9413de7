//! Every kind of resource, one folder each.
