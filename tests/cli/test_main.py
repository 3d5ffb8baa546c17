import subprocess
import sys

from tamiz import __version__
from tests.models import linear_model
from tests.projects import write_project


def test_the_module_is_the_command_line():
    said = subprocess.run([sys.executable, "-m", "tamiz", "--version"], capture_output=True, text=True, check=True)
    assert said.stdout == f"tamiz {__version__}\n"


def test_wrong_use_ends_with_2():
    assert subprocess.run([sys.executable, "-m", "tamiz", "no-such"], capture_output=True).returncode == 2


TRAINING = ("polars", "pyarrow", "deltalake", "mlflow", "pandas", "scipy", "sklearn", "lightgbm", "plotly", "jinja2")


def without(libraries, *arguments):
    """Run the command line as if some libraries were not installed."""
    script = (
        f"import sys; sys.modules |= dict.fromkeys({libraries}); from tamiz.cli import main; main({list(arguments)})"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_without_the_libraries_of_training_it_says_what_to_install(tmp_path):
    file = tmp_path / "reviews.csv"
    file.write_text("text,label\n" + "good,yes\nbad,no\n" * 50, encoding="utf-8")
    said = without(["polars"], "check", str(file))
    assert said.returncode == 1
    assert said.stderr == (
        "error 'polars' is needed for this command and not installed. Install it with: pip install 'tamiz[train]'\n"
    )


def test_without_a_library_of_the_server_it_says_what_to_install(tmp_path):
    said = without(["httptools"], "serve", "--package", str(tmp_path))  # MLflow brings FastAPI and uvicorn, not this
    assert said.returncode == 1
    assert said.stderr == (
        "error 'httptools' is needed here and not installed. Install it with: pip install 'tamiz[serve]'\n"
    )


def test_what_needs_no_training_library_does_without(tmp_path):
    package = tmp_path / "model"
    linear_model().save(package)
    assert without(TRAINING, "--version").stdout == f"tamiz {__version__}\n"
    assert "thresholds" in without(TRAINING, "--help").stdout
    said = without(TRAINING, "predict", "--model", str(package), "a fine film")
    assert (said.returncode, said.stderr) == (0, "")
    assert "a fine film" in said.stdout


def test_the_command_needs_no_other_extra():
    blocked = ["fastapi", "prometheus_client", "optuna", "boto3", "onnxruntime", "tokenizers", "torch", "transformers"]
    script = f"import sys; sys.modules |= dict.fromkeys({blocked}); from tamiz.cli import main; main(['--version'])"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == f"tamiz {__version__}\n"


def test_a_dry_run_of_a_search_without_optuna_says_what_to_install(tmp_path):
    write_project(tmp_path, candidates=[{"family": "linear"}])
    said = without(["optuna"], "tune", "--dry-run", "--project", str(tmp_path))
    assert said.returncode == 1
    assert said.stderr == (
        "error 'optuna' is needed here and not installed. Install it with: pip install 'tamiz[tune]'\n"
    )
