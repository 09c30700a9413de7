//! What the build made of the .proto files.

#![expect(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::use_self,
    missing_docs,
    unused_qualifications,
    reason = "generated; its documentation is that of the .proto files"
)]

include!(concat!(env!("OUT_DIR"), "/mod.rs"));
