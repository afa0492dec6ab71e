"""JSONata, the query language: its public face is `compile_expression` and `unwrap`."""

from service.asl.query.jsonata.expression import (
    QUERY_EVALUATION_ERROR,
    BadExpression,
    Expression,
    compile_expression,
    unwrap,
)

__all__ = [
    "QUERY_EVALUATION_ERROR",
    "BadExpression",
    "Expression",
    "compile_expression",
    "unwrap",
]
