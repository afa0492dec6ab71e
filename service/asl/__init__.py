"""The Amazon States Language: definitions in, commands and history out, with no IO of its own."""
