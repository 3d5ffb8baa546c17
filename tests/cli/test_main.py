import subprocess
import sys

from tamiz import __version__


def test_the_module_is_the_command_line():
    said = subprocess.run([sys.executable, "-m", "tamiz", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"tamiz {__version__}\n"


def test_wrong_use_ends_with_2():
    assert subprocess.run([sys.executable, "-m", "tamiz", "no-such"], capture_output=True).returncode == 2


def test_without_the_libraries_of_training_it_says_what_to_install():
    script = "import sys; sys.modules['polars'] = None; from tamiz.cli import main; main(['--version'])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert said.returncode == 1
    assert said.stderr == (
        "error  'polars' is needed for the command line and not installed. "
        "Install it with: pip install 'tamiz[train,serve]'\n"
    )


def test_the_command_needs_no_other_extra():
    blocked = ["fastapi", "prometheus_client", "optuna", "boto3", "onnxruntime", "tokenizers", "torch", "transformers"]
    script = f"import sys; sys.modules |= dict.fromkeys({blocked}); from tamiz.cli import main; main(['--version'])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == f"tamiz {__version__}\n"
