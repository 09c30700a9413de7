//! The tables of a mesh, updated by what changed, and what each proxy gets out of them.
