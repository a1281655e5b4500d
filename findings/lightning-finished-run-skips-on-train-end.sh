#!/usr/bin/env bash
# lightning 2.6.6, torch 2.13.0
# `Trainer.fit(ckpt_path=...)` from the checkpoint of a run that is complete calls neither `on_train_start` nor `on_train_end`
# of callbacks, while `on_fit_start` and `on_fit_end` are called: a callback that puts the best weights back in
# `on_train_end` leaves the last ones there.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/env"
"$place/env/bin/pip" install --quiet lightning==2.6.6 torch==2.13.0
cd "$place"
"$place/env/bin/python" -W ignore - << 'PYTHON' 2> /dev/null
import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

HOOKS = ("on_fit_start", "on_train_start", "on_train_epoch_end", "on_train_end", "on_fit_end")


class Watch(pl.Callback):
    def __init__(self):
        self.called = []


for hook in HOOKS:
    setattr(Watch, hook, lambda self, trainer, module, hook=hook: self.called.append(hook))


class Mean(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.value = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch, batch_idx):
        return (batch - self.value).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def run(checkpoint=None):
    watch = Watch()
    trainer = pl.Trainer(
        max_epochs=2, accelerator="cpu", callbacks=[watch], logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    trainer.fit(Mean(), DataLoader(torch.ones(4)), ckpt_path=checkpoint)
    trainer.save_checkpoint("complete.ckpt")
    return list(dict.fromkeys(watch.called))


first, again = run(), run("complete.ckpt")
print("first run:", first)
print("complete run, once more:", again)
assert first == list(HOOKS)
assert again == ["on_fit_start", "on_fit_end"]
PYTHON
