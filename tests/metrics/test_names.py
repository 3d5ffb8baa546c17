import subprocess
import sys

import pytest

from tamiz import metrics
from tamiz.errors import ConfigError
from tamiz.metrics import METRICS, higher_is_better
from tamiz.metrics.names import base_name

LOWER = {"log_loss", "brier", "ece", "hamming_loss", "set_size"}


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("prefix", ["", "val_", "test_"])
def test_direction_of_every_metric(name, prefix):
    assert higher_is_better(prefix + name) is (name not in LOWER)
    assert base_name(prefix + name) == name


@pytest.mark.parametrize(
    ("name", "higher"),
    [
        ("latency_p50_ms", False),
        ("latency_p99_ms", False),
        ("size_mb", False),
        ("fit_seconds", False),
        ("texts_per_s", True),
        ("best_val_f1", True),
    ],
)
def test_direction_of_operations(name, higher):
    assert higher_is_better(name) is higher


def test_unknown_metric_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'val_f1_marco' is unknown.*did you mean 'val_f1_macro'"):
        higher_is_better("val_f1_marco")
    with pytest.raises(ConfigError, match="did you mean 'latency_p50_ms'"):
        higher_is_better("latency_p50ms")
    with pytest.raises(ConfigError):
        higher_is_better("train_accuracy")


def test_descriptions_are_sentences():
    assert all(text[0].isupper() and text.endswith(".") and len(text) > 20 for text in METRICS.values())


def test_public_names_exist():
    assert all(hasattr(metrics, name) for name in metrics.__all__)


def test_import_is_light():
    code = "import sys, tamiz.metrics; print([m for m in ('sklearn', 'scipy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
