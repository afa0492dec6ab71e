"""The eight states: one module each, with its fields, its checks and what it does."""
