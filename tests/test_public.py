import logging
import subprocess
import sys
import warnings

import pytest

import rd_lightning

from .conftest import clean_environment


def test_every_public_name_loads():
    for name in rd_lightning.__all__:
        assert getattr(rd_lightning, name).__doc__
    assert set(rd_lightning.__all__) <= set(dir(rd_lightning))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rd_lightning.nothing


def test_importing_loads_no_torch_and_changes_no_global():
    code = (
        "import sys, logging, warnings\n"
        "before = (list(warnings.filters), list(logging.root.handlers), logging.root.level)\n"
        "import rd_lightning\n"
        "assert 'torch' not in sys.modules and 'lightning' not in sys.modules\n"
        "import torch, lightning\n"
        "state = lambda: (torch.get_float32_matmul_precision(), torch.get_default_dtype(),\n"
        "    torch.is_grad_enabled(), torch.initial_seed() if False else None)\n"
        "before = (list(warnings.filters), list(logging.root.handlers), state())\n"
        "from rd_lightning import *\n"
        "assert before[1:] == (list(logging.root.handlers), state())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=clean_environment(), timeout=120)


def test_quiet_libraries_are_quiet_for_the_command_only():
    from rd_lightning.cli.command import quiet_libraries

    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)
    with quiet_libraries():
        assert logger.level == logging.WARNING
    assert logger.level == level
    assert warnings.filters == filters
