//! To come: a lab.
