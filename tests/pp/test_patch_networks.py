from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from stomics_tools.pp._patch_networks import encode, resolve_encoder


@pytest.fixture
def patches() -> np.ndarray:
    return np.random.default_rng(0).random((5, 24, 24, 3), dtype=np.float32)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )


def test_module_is_run_as_in_evaluation(patches):
    model = network()
    names, values = encode(model, patches, "tiny")
    assert model.training
    assert all(part.training for part in model)
    with torch.no_grad():
        expected = model.eval()(torch.from_numpy(patches).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert names == ["0", "1", "2", "3"]
    assert values.dtype == np.float32


def test_module_in_other_precision(patches):
    half = network().to(torch.bfloat16)
    np.testing.assert_allclose(encode(half, patches, "half")[1], encode(network(), patches, "full")[1], atol=0.05)


@pytest.mark.parametrize("as_array", [True, False])
def test_function(patches, as_array):
    def means(images):
        assert images.dtype == torch.float32
        assert 0 <= float(images.min()) <= float(images.max()) <= 1
        out = images.mean(dim=(2, 3))
        return out.numpy() if as_array else out

    name, describe = resolve_encoder(means, None)
    assert name == "means"
    np.testing.assert_allclose(describe(patches)[1], patches.mean(axis=(1, 2)), atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda x: x, r"`encoder` '<lambda>' must give .* found \(5, 3, 24, 24\) for \(5, 3, 24, 24\)"),
        (lambda x: x[:2, :, 0, 0], r"found \(2, 3\)"),
        (lambda x: x[:, :, 0, 0] / 0, "gave NaN or infinite features"),
    ],
)
def test_output_of_no_use(patches, encoder, message):
    with pytest.raises(ValueError, match=message):
        resolve_encoder(encoder, None)[1](patches)


@pytest.mark.parametrize("package", ["timm", "open_clip"])
def test_missing_package_names_the_extra(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs the package {package}.*stomics-tools\[histology\]"):
        resolve_encoder(f"{package}:some_model", "pretrained")


@pytest.mark.parametrize("encoder", ["resnet18", "keras:resnet18", "timm:"])
def test_unknown_name(encoder):
    with pytest.raises(ValueError, match="must be 'timm:<model>', 'open_clip:<model>' or a callable"):
        resolve_encoder(encoder, None)


def test_neither_name_nor_callable():
    with pytest.raises(TypeError, match="must be a callable or a name, found int"):
        resolve_encoder(3, None)
    with pytest.raises(ValueError, match="`weights` are for encoders given by name"):
        resolve_encoder(network(), "weights.pt")
    with pytest.raises(ValueError, match="`weights` are for encoders given by name"):
        resolve_encoder(None, "weights.pt")


class Stub:
    """Stands for timm and open_clip, and records how it is called."""

    def __init__(self):
        self.calls = []
        config = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.1), "input_size": (3, 16, 16)}
        self.data = SimpleNamespace(resolve_model_data_config=lambda model: config)

    def list_pretrained_tags_by_model(self, model):
        return ["tag"]

    def create_model(self, name, **options):
        self.calls.append((name, options))
        model = nn.Flatten()
        model.encode_image = model.forward
        model.visual = SimpleNamespace(image_mean=(0.5, 0.4, 0.3), image_std=(0.2, 0.2, 0.1), image_size=(16, 16))
        return model


@pytest.mark.parametrize("package", ["timm", "open_clip"])
def test_models_by_name_get_their_size_and_normalisation(package, patches, monkeypatch, tmp_path):
    stub = Stub()
    monkeypatch.setitem(sys.modules, package, stub)
    file = tmp_path / "weights.pt"
    file.touch()
    name, describe = resolve_encoder(f"{package}:model", file)
    assert name == f"{package}:model"
    flat = np.full_like(patches, 0.5)
    values = describe(flat)[1].reshape(5, 3, 16, 16)
    np.testing.assert_allclose(values[0, :, 3, 3], [0, 0.5, 2.0], atol=1e-5)
    ((model, options),) = stub.calls
    assert model == "model"
    assert str(file) in str(options)


def test_nothing_is_downloaded_unasked(monkeypatch):
    for package, known in (("timm", "pretrained"), ("open_clip", "tag")):
        stub = Stub()
        monkeypatch.setitem(sys.modules, package, stub)
        with pytest.raises(ValueError, match=rf"must be a file of weights or one of \['{known}'\], found none"):
            resolve_encoder(f"{package}:model", None)
        with pytest.raises(ValueError, match="found 'nowhere.pt', which is neither"):
            resolve_encoder(f"{package}:model", "nowhere.pt")
        assert not stub.calls
        resolve_encoder(f"{package}:model", known)
        assert len(stub.calls) == 1
