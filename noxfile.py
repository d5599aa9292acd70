"""One environment for each nnsight that people run: `nox` runs the nnsight tests in all of them."""

from __future__ import annotations

import os

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = True

TORCH = "torch==2.13.0"

# What each release of nnsight was made for.
ENVIRONMENTS = {
    "0.6.3": ["transformers==4.57.6"],
    "0.7.0": ["transformers==5.23.0"],
    "0.8.1": ["transformers==5.23.0"],
}

TEST_TOOLS = ["hypothesis", "numpy", "pillow", "pytest", "pytest-timeout", "pytest-xdist"]


@nox.session
@nox.parametrize("version", list(ENVIRONMENTS), ids=list(ENVIRONMENTS))
def nnsight(session: nox.Session, version: str) -> None:
    """The nnsight tests against one release of nnsight, with a wheel of this tree.

    Each session compiles one, unless NNTAP_WHEEL names a file that is there already.
    """
    package = os.environ.get("NNTAP_WHEEL", ".")
    session.install(TORCH)
    session.install(f"{package}[safetensors]", f"nnsight=={version}", *ENVIRONMENTS[version], *TEST_TOOLS)
    session.run("pytest", "-n", "auto", "tests/under_nnsight", *session.posargs, env={"HF_HUB_OFFLINE": "1"})
