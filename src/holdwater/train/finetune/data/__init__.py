"""Examples for fine-tuning: read by number, made tokens, weighed, held out, and packed into rows."""
