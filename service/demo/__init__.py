"""The embedded stand-ins for a database server and a mail server, for the demo and the tests."""
