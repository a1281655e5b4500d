"""A small quantized student of a wide teacher in floating point."""

from __future__ import annotations

import numpy as np
import pytest
from mudata import MuData

from stomics_tools import datasets, pp
from stomics_tools.model import PRAGA, PRAGASpike

MODALITIES = {"rna": "X_pca", "protein": "X_protein"}
QUIET = {"enable_progress_bar": False, "key_added": None, "accelerator": "cpu", "early_stopping": False}
STUDENT = {"n_latent": 32, "weight_bits": 2}


@pytest.fixture(scope="module")
def mdata() -> MuData:
    mdata = datasets.simulate_multiomics(n_obs=300, n_domains=4)
    pp.rna(mdata["rna"])
    pp.protein(mdata["protein"])
    PRAGASpike.setup_mudata(mdata, MODALITIES)
    return mdata


@pytest.fixture(scope="module")
def teacher(mdata) -> PRAGASpike:
    model = PRAGASpike(mdata, n_latent=64, weight_bits="float")
    model.train(30, **QUIET)
    return model


def _student(mdata, teacher, seed=0, max_epochs=6, **kwargs):
    model = PRAGASpike(mdata, **STUDENT, **kwargs)
    model.train(max_epochs, distill_from=teacher, seed=seed, **QUIET)
    return model


def _distance(model, teacher):
    """Root mean square of the difference of all denoised features, over that of the teacher's about their means."""
    ours, theirs = model.get_denoised(), teacher.get_denoised()
    parts = [np.linalg.norm(ours[m] - theirs[m]) / np.linalg.norm(theirs[m] - theirs[m].mean(0)) for m in MODALITIES]
    return float(np.mean(parts))


def test_the_student_comes_nearer_to_its_teacher(mdata, teacher):
    """Both students begin with the closed form; one learns from the data alone."""

    def trained(seed, teacher=None):
        given = {} if teacher is None else {"distill_weight": 10.0}
        model = PRAGASpike(mdata, **STUDENT, **given)
        model.train(25, lr=0.01, seed=seed, distill_from=teacher, **QUIET)
        return model

    # Not the seed of the teacher, which hides the same spots from both.
    with_, without = ([trained(seed, t) for seed in (1, 2)] for t in (teacher, None))
    assert len(with_[0].history["distillation_loss"]) == 25
    assert "distillation_loss" not in without[0].history
    distances = [[_distance(model, teacher) for model in models] for models in (with_, without)]
    assert np.mean(distances[0]) < 0.85 * np.mean(distances[1]), distances


def test_same_seed_same_bits(mdata, teacher):
    first, second, other = (_student(mdata, teacher, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.get_latent_representation(), second.get_latent_representation())
    assert np.abs(first.get_latent_representation() - other.get_latent_representation()).max() > 1e-4


def test_the_teacher_stays_as_it_was(mdata, teacher):
    before = teacher.get_denoised()
    _student(mdata, teacher)
    for name, values in teacher.get_denoised().items():
        np.testing.assert_array_equal(values, before[name])


def test_a_weight_of_zero_teaches_nothing(mdata, teacher):
    student, alone = _student(mdata, teacher, distill_weight=0.0), _student(mdata, None)
    np.testing.assert_array_equal(student.get_latent_representation(), alone.get_latent_representation())


def test_the_saved_student_needs_no_teacher(mdata, teacher, tmp_path):
    student = _student(mdata, teacher)
    student.quantize(n_repeats=1)
    student.save(tmp_path / "student")
    loaded = PRAGASpike.load(tmp_path / "student", mdata)
    np.testing.assert_array_equal(loaded.get_latent_representation(), student.get_latent_representation())
    assert not [name for name in loaded.module.state_dict() if "target" in name]


def test_a_packed_teacher_teaches(mdata):
    packed = PRAGASpike(mdata, weight_bits=8)
    packed.train(5, **QUIET)
    packed.quantize(n_repeats=1)
    student = PRAGASpike(mdata, **STUDENT)
    student.train(3, distill_from=packed, **QUIET)
    assert "distillation_loss" in student.history


def test_going_on_without_the_teacher(mdata, teacher):
    student = _student(mdata, teacher)
    student.train(3, **QUIET)
    assert len(student.history["train_loss"]) == 9
    assert student.module.targets is None


def test_wrong_teachers(mdata, teacher):
    student = PRAGASpike(mdata, **STUDENT)
    for wrong in (PRAGASpike(mdata), "teacher"):
        with pytest.raises(ValueError, match="`distill_from` must be a trained PRAGASpike"):
            student.train(3, distill_from=wrong, **QUIET)
    assert not student.is_trained_
    PRAGA.setup_mudata(mdata, MODALITIES)
    with pytest.raises(TypeError, match=r"PRAGA\.train\(\) has no argument `distill_from`"):
        PRAGA(mdata).train(3, distill_from=teacher, **QUIET)
