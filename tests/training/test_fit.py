"""The training loop: resuming equals never having stopped, freezing freezes, bad checkpoints are refused."""

import contextlib

import pandas as pd
import pytest
import torch

from pnet.common.errors import ConfigError, DataError
from pnet.training.fit import CHECKPOINT, HISTORY, FitConfig, fit


class Line:
    """Noisy points of a line; the step's seed decides which."""

    def batch(self, seed, device):
        generator = torch.Generator().manual_seed(seed)
        x = torch.rand(16, 3, generator=generator)
        return x, x.sum(dim=1, keepdim=True)


def network():
    torch.manual_seed(7)
    return torch.nn.Sequential(
        torch.nn.Linear(3, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1)
    )


def loss(model, batch):
    x, y = batch
    value = (model(x) - y).square().mean()
    return {"loss": value, "squared": value}


class Stopped(Exception):
    pass


def run(folder, model, config, stop_after=None, loss=loss, **options):
    """Train; a run that is to stop is interrupted as a user would do it."""

    def stops(history):
        if len(history) == stop_after:
            raise Stopped

    interrupted = pytest.raises(Stopped) if stop_after else contextlib.nullcontext()
    options |= {"accelerator": "cpu", "devices": 1, "progress": False}
    with interrupted:
        return fit(model, loss, Line(), config, folder, on_epoch=stops, **options)


CONFIG = FitConfig(epochs=4, steps=5, learning_rate=1e-2, seed=3)


def test_resumed_run_ends_with_the_same_weights(tmp_path):
    """Dropout and normalisation included: every step seeds its own random numbers."""
    straight, resumed = network(), network()
    history = run(tmp_path / "a", straight, CONFIG)
    run(tmp_path / "b", network(), CONFIG, stop_after=2)
    history_b = run(tmp_path / "b", resumed, CONFIG)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [row["loss"] for row in history] == [row["loss"] for row in history_b]


def test_history_is_a_table_with_validation(tmp_path):
    run(tmp_path, network(), CONFIG, validate=lambda model: {"answer": 42.0})
    rows = pd.read_csv(tmp_path / HISTORY)
    assert rows["epoch"].tolist() == [1, 2, 3, 4] and (rows["val_answer"] == 42.0).all()
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]


def test_frozen_parts_hold_still_and_thaw(tmp_path):
    config = FitConfig(epochs=3, steps=4, learning_rate=1e-2, freeze_epochs=2, freeze=("0", "1"))
    model = network()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    run(tmp_path, model, config, stop_after=2)
    now = model.state_dict()
    for name in start:
        same = torch.equal(start[name], now[name])
        assert same == name.startswith(("0", "1")), name
    run(tmp_path, model, config)
    assert not torch.equal(start["0.weight"], model.state_dict()["0.weight"])
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_damaged_and_foreign_checkpoints_are_refused(tmp_path):
    run(tmp_path, network(), CONFIG, stop_after=1)
    with pytest.raises(ConfigError, match="learning_rate"):
        run(tmp_path, network(), FitConfig(epochs=4, steps=5, learning_rate=5e-3, seed=3))
    content = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="damaged"):
        run(tmp_path, network(), CONFIG)


def test_interrupted_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    run(tmp_path, network(), CONFIG, stop_after=1)
    before = (tmp_path / CHECKPOINT).read_bytes()

    def fails(_, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, network(), CONFIG)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, HISTORY}


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    with pytest.raises(DataError, match="the loss is nan at step 0"):
        run(tmp_path, network(), CONFIG, loss=lambda model, batch: {"loss": model(batch[0]).sum() * torch.nan})
    assert not (tmp_path / CHECKPOINT).exists()


def test_learning_rate_rises_and_falls():
    config = FitConfig(epochs=10, steps=100, learning_rate=1.0, warmup=50)
    rates = [config.rate(step) for step in range(1000)]
    assert rates[0] < 0.05 and max(rates) > 0.98 and rates[-1] < 0.02
    assert rates.index(max(rates)) == pytest.approx(50, abs=3)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"steps": 0}, {"learning_rate": 0.0}])
def test_configuration_is_checked(bad):
    with pytest.raises(ConfigError):
        FitConfig(**({"epochs": 1, "steps": 1} | bad))


@pytest.mark.parametrize("precision", ["bf16-mixed", "32-true"])
def test_mixed_precision_does_not_round_what_the_network_is_given(tmp_path, precision):
    """bfloat16 has 8 bits: a pixel of 70,001 electrons would become 70,144."""
    seen = []

    def looks(model, batch):
        model.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].clone()))
        return loss(model, (batch[0] + 70_001, batch[1]))

    run(tmp_path, network(), FitConfig(epochs=1, steps=1, precision=precision), loss=looks)
    assert seen[0].dtype == torch.float32 and bool(((seen[0] >= 70_001) & (seen[0] < 70_002)).all())
