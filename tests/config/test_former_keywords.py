"""Settings are made with the names that they had in version 0.1, with a warning."""

import pytest

from dupmae.config import DuplexConfig, FinetuneConfig, PretrainConfig
from dupmae.config.renamed import RENAMED

SETTINGS = {"duplex": DuplexConfig, "finetune": FinetuneConfig, "pretrain": PretrainConfig}


@pytest.mark.parametrize("key", [key for key in RENAMED if "." in key])
def test_a_former_name_is_taken_with_a_warning(key):
    section, _, former = key.partition(".")
    new = RENAMED[key].partition(".")[2]
    kind = SETTINGS[section]
    value = getattr(kind(), new)
    with pytest.warns(FutureWarning, match=f"{former} of {kind.__name__} is now called {new}"):
        assert getattr(kind(**{former: value}), new) == value


def test_a_name_that_no_version_knew_is_refused():
    with pytest.raises(TypeError, match="cls_size"):
        DuplexConfig(**{"cls_size": 3})


def test_both_names_at_once_are_refused():
    with pytest.raises(TypeError, match="cls_dimension"):
        DuplexConfig(**{"cls_dimension": 3}, dense_dimension=3)


def test_a_setting_whose_name_another_had_is_itself():
    assert PretrainConfig(cls_weight=0.25).cls_weight == 0.25
