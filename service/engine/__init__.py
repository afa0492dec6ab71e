"""The runtime: a small loop around the pure language that commits what it decides and performs what
it asks for.
"""
