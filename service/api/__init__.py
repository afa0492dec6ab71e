"""The two HTTP ports: the public one for visitors, and the ops port for operators."""

from service.api.ops import OpsDeps, create_ops_app
from service.api.probes import Probe
from service.api.public import PublicDeps, create_public_app
from service.api.server import Served, serve_app

__all__ = [
    "OpsDeps",
    "Probe",
    "PublicDeps",
    "Served",
    "create_ops_app",
    "create_public_app",
    "serve_app",
]
