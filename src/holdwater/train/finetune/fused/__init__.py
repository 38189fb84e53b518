"""A decoder-only transformer's step with frozen weights, written out: every buffer and every kernel by name."""
