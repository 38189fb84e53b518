"""Hold a run inside its budget: samples in, decisions out, and a record of both."""
