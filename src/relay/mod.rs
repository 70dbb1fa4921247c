//! Moving a visitor's bytes: a relay is a value with a state, not an opaque future.
