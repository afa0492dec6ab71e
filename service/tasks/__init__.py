"""What a workflow can call: the built-in handlers, and how an operator adds their own."""

from service.engine.ports import Task
from service.tasks.accounts import ACCOUNT_TASKS, close_account, close_ended
from service.tasks.buckets import FolderBuckets
from service.tasks.email import EmailTasks, MailSettings
from service.tasks.execution import START_EXECUTION, StartRefused, start_execution
from service.tasks.handlers import BadHandlers, handler, load_handlers
from service.tasks.lambda_ import LambdaEndpoint
from service.tasks.registry import Registry

__all__ = [
    "ACCOUNT_TASKS",
    "START_EXECUTION",
    "BadHandlers",
    "EmailTasks",
    "FolderBuckets",
    "LambdaEndpoint",
    "MailSettings",
    "Registry",
    "StartRefused",
    "Task",
    "close_account",
    "close_ended",
    "handler",
    "load_handlers",
    "start_execution",
]
