"""What the verification workflow costs and how fast it runs: `python -m benchmarks --help`."""
