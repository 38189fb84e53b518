"""Watch a notebook: one training cell or a whole session, with the verdict and its explanation as rich output."""
