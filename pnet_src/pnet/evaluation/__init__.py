"""Judging: measurements beside truth and limit, metrics, scores, the ledger, classical baselines."""
