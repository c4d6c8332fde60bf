"""Run instances: claim them, renew the claims, store the outcomes, and sweep for due and lost instances."""
