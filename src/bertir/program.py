"""The command `bertir`: the same tasks as `invoke` has in a checkout, under a name of their own."""

from __future__ import annotations

import gc
import inspect
import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.exceptions import ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program
from invoke.tasks import Task

from bertir import __version__
from bertir.installed import CHECKOUT_TASKS, as_called, is_installed, project_root
from bertir.refusal import explain_refusals

if TYPE_CHECKING:
    from types import ModuleType

    from invoke.parser.argument import Argument

# Of invoke's own options: those that no task of bertir's could heed (--pty, --dry, --hide, …) are left out.
_OPTIONS = {
    "help": "Show this, or what a task does and takes.",
    "list": "List the tasks.",
    "print-completion-script": "Print the completion script of a shell: bash, zsh or fish.",
    "version": "Show the version.",
}
# There, and not worth a line of help.
_QUIET_OPTIONS = ("complete", "debug", "list-depth", "list-format", "write-pyc")
_LIST_FORMATS = ("flat", "nested", "json")


def main() -> None:
    """Run `bertir`."""
    command = Command(namespace=_namespace(), name="bertir", binary="bertir", version=__version__)
    explain_refusals(command)
    gc.freeze()  # as `tasks.py` has it
    command.run()


class Command(Program):
    """invoke's `Program`, saying no more than a user of bertir has use for."""

    def create_config(self) -> None:
        # What somebody has set for invoke, in their home or for the machine, isn't meant for bertir.
        self.config = self.config_class(lazy=True)

    def update_config(self, merge: bool = True) -> None:
        """Merge nothing: the options that would change it are left out."""

    def core_args(self) -> list[Argument]:
        kept = [one for one in super().core_args() if one.name in (*_OPTIONS, *_QUIET_OPTIONS)]
        for one in kept:
            one.help = _OPTIONS.get(str(one.name), one.help)
            if one.name == "list":
                one.kind, one.optional = bool, False  # there are no namespaces to name
        return kept

    def print_help(self) -> None:
        print("Usage: bertir TASK [--options]\n")
        print("TensorFlow BERT checkpoints to OpenVINO IR, reproducibly.\n")
        print("Options:\n")
        shown = [one for one in self.core_args() if one.name in _OPTIONS]
        self.print_columns(ParserContext(args=shown).help_tuples())
        self.list_tasks()
        print("`bertir --help TASK` says more.")

    def print_task_help(self, name: str) -> None:
        context = self.parser.contexts[name]
        positional = "".join(f" {one.name.upper()}" for one in context.positional_args)
        print(f"Usage: bertir {name}{positional} [--options]\n")
        text = inspect.getdoc(self.collection[name]) or ""
        print("\n".join(f"  {line}" for line in text.replace(" Example: ", "\nExample: ").splitlines()), "\n")
        if options := context.help_tuples():
            print("Options:\n")
            self.print_columns(options)

    def list_tasks(self) -> None:
        if self.list_format not in _LIST_FORMATS:
            known = ", ".join(_LIST_FORMATS)
            raise ParseError(f"--list-format must be one of {known}, and is {self.list_format!r}")
        super().list_tasks()

    def task_list_opener(self, extra: str = "") -> str:  # noqa: ARG002 - as invoke has it
        return "Tasks"


def _namespace() -> Collection:
    """Give the tasks as this user calls them; what only a checkout can do is left out where there is none."""
    chosen = Collection()
    for one in vars(_tasks()).values():
        if not isinstance(one, Task) or (is_installed() and one.name in CHECKOUT_TASKS):
            continue
        one.__doc__ = as_called(one.__doc__ or "")
        one.help = {option: as_called(text) for option, text in one.help.items()}
        chosen.add_task(one)
    return chosen


def _tasks() -> ModuleType:
    """Import tasks.py, as invoke does where it lies in the current folder."""
    path = project_root() / "tasks.py"
    found = spec_from_file_location("tasks", path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} can't be imported", path=str(path))
    module = module_from_spec(found)
    sys.modules["tasks"] = module
    found.loader.exec_module(module)
    return module
