//! ipam-kv
