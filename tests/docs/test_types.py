"""A strict type checker of the Pyright family accepts the examples, and knows the type of everything that is public.

It is basedpyright, which brings its own Node.js as a wheel. Its mode `strict` has the rules of Pyright's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.test_documents import DOCUMENTS, ROOT, script

pytest.importorskip("basedpyright", reason="basedpyright is not installed")

#: The least part of the public symbols whose type is known, in percent.
COMPLETE = 99.0

#: Rules that an example cannot follow, each with the reason.
WITHOUT = {
    # The blocks of a document are one script here: a later block imports, defines and names things again.
    "reportDuplicateImport": False,
    "reportRedeclaration": False,
    "reportUnusedImport": False,
    "reportUnusedVariable": False,
    # An example catches the error that it has just caused.
    "reportPossiblyUnbound": False,
    "reportPossiblyUnboundVariable": False,
}

#: Packages without types.
UNTYPED = ("celery", "pysqlite3")

EXAMPLES = {
    re.sub(r"\W", "_", document.relative_to(ROOT).as_posix()) + ".py": text
    for document in DOCUMENTS
    if (text := script(document.read_text("utf-8"))).strip()
}


def checked(folder, *arguments):
    """The answer of the type checker for a folder, by the packages of this interpreter."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "basedpyright", "--outputjson", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_the_examples_pass_a_strict_type_checker(tmp_path):
    """The README and every document: what an editor shows while somebody types an example has no errors."""
    for package in UNTYPED:
        stub = tmp_path / "typings" / package / "__init__.pyi"
        stub.parent.mkdir(parents=True)
        stub.write_text("from typing import Any\ndef __getattr__(name: str) -> Any: ...\n", "utf-8")
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text, "utf-8")
    settings = {"typeCheckingMode": "strict", "include": ["*.py"], **WITHOUT}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings), "utf-8")
    answer = checked(tmp_path, "--pythonpath", sys.executable)
    assert answer["summary"]["filesAnalyzed"] >= len(EXAMPLES) > 15
    problems = [
        f"{Path(one['file']).name}:{one['range']['start']['line'] + 1}: {one['message']} ({one.get('rule')})"
        for one in answer["generalDiagnostics"]
        if one["severity"] == "error"
    ]
    assert not problems, "\n".join(problems)


def test_the_types_of_public_symbols_are_known(tmp_path):
    """No type checker has to guess what an attribute without an annotation is."""
    completeness = checked(tmp_path, "--verifytypes", "triggers", "--ignoreexternal")["typeCompleteness"]
    unknown = [symbol["name"] for symbol in completeness["symbols"] if not symbol["isTypeKnown"]]
    assert sum(completeness["exportedSymbolCounts"].values()) > 1_000
    assert 100 * completeness["completenessScore"] >= COMPLETE, unknown[:20]
