"""Countersign: user verification whose flow is an Amazon States Language file."""
