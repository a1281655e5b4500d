"""Lightning's loggers hold what the history holds, by the same names."""

from __future__ import annotations

import json
import struct
import time
from itertools import chain

import lightning.pytorch.loggers as loggers
import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto.wandb_internal_pb2 import Record

N_EPOCHS = 3


def in_csv(logger):
    table = pd.read_csv(f"{logger.log_dir}/metrics.csv")
    return {name: table[name].dropna().to_numpy() for name in table.columns if name not in ("epoch", "step")}


def in_tensorboard(logger):
    events = EventAccumulator(logger.log_dir).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "epoch"]
    return {tag: np.array([event.value for event in events.Scalars(tag)]) for tag in tags}


def assert_equals_history(found, model):
    assert set(found) == set(model.history)
    for name, table in model.history.items():
        np.testing.assert_allclose(found[name], table[name], rtol=1e-5, err_msg=name)


def test_csv_and_tensorboard(each_new, tmp_path):
    model = each_new()
    logger = [loggers.CSVLogger(tmp_path, name="csv"), loggers.TensorBoardLogger(tmp_path, name="board")]
    model.train(max_epochs=N_EPOCHS, logger=logger, enable_progress_bar=False, accelerator="cpu")
    assert all(len(table) == N_EPOCHS for table in model.history.values())
    assert_equals_history(in_csv(logger[0]), model)
    assert_equals_history(in_tensorboard(logger[1]), model)


def wandb_records(path):
    """Records of an offline run: fragments in blocks of 32 KiB, after a header of 7 bytes."""
    content, at, record, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        record = (b"" if kind in (1, 2) else record) + content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4) and at <= len(content):
            found.append(Record.FromString(record))
    return found


def in_wandb(path):
    """Histories in the file, when its writer, another process, has ended it."""
    end = time.monotonic() + 30
    records = wandb_records(path)
    while not any(record.HasField("exit") for record in records):
        assert time.monotonic() < end, "the run was not ended"
        time.sleep(0.05)
        records = wandb_records(path)
    found: dict[str, list[float]] = {}
    for item in chain.from_iterable(record.history.item for record in records):
        found.setdefault(item.key or "/".join(item.nested_key), []).append(json.loads(item.value_json))
    return {
        k: np.array(v) for k, v in found.items() if not k.startswith("_") and k not in ("epoch", "trainer/global_step")
    }


@pytest.mark.parametrize("each_new", ["GraphST", "VARST"], indirect=True)
def test_wandb_without_a_network(each_new, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    model = each_new()
    logger = loggers.WandbLogger(save_dir=tmp_path, project="test", offline=True)
    model.train(max_epochs=N_EPOCHS, logger=logger, enable_progress_bar=False, accelerator="cpu")
    logger.experiment.finish()
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    assert_equals_history(in_wandb(path), model)
