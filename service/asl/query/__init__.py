"""The query languages that a definition selects and shapes its data with."""
