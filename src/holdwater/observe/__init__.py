"""Follow a training process from one beside it, which goes on when that crashes: read, judge, ask, explain."""
