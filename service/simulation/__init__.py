"""Flows tried out before they go live: cases, virtual time, told answers, and what came of it."""

from service.simulation.cases import (
    SIGNUP_INPUT,
    BadCases,
    Case,
    check_input,
    read_cases,
    single_case,
)
from service.simulation.report import failures_of, render, summary
from service.simulation.run import Account, Played, names_of, play

__all__ = [
    "SIGNUP_INPUT",
    "Account",
    "BadCases",
    "Case",
    "Played",
    "check_input",
    "failures_of",
    "names_of",
    "play",
    "read_cases",
    "render",
    "single_case",
    "summary",
]
