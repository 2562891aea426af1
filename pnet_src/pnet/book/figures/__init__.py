"""The paper's figures and ours: each function takes measurements and returns a matplotlib figure."""
