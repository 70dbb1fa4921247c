pub const ALL: &[crate::Situation] = &[];
