"""Running instances: claim, run, keep the claim alive, and find what is due or lost."""
