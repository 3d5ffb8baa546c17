import subprocess
import sys

from tamiz import __version__


def test_the_module_is_the_command_line():
    said = subprocess.run([sys.executable, "-m", "tamiz", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"tamiz {__version__}\n"


def test_wrong_use_ends_with_2():
    assert subprocess.run([sys.executable, "-m", "tamiz", "no-such"], capture_output=True).returncode == 2
