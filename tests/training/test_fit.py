"""The training loop: resuming equals never having stopped, freezing freezes, bad checkpoints are refused."""

import contextlib
import math
import sys

import pandas as pd
import pytest
import torch

from pnet.common.errors import ConfigError, DataError
from pnet.detection import predict
from pnet.training import fit as fitting
from pnet.training.fit import CHECKPOINT, HISTORY, FitConfig, fit, launch


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
    options |= {"fabric": launch("cpu", "1", options.pop("precision", "32-true")), "progress": False}
    with interrupted:
        return fit(model, loss, Line(), config, folder, on_epoch=stops, **options)


CONFIG = FitConfig(epochs=4, steps=5, learning_rate=1e-2, seed=3)


def test_resumed_run_ends_with_the_same_weights(tmp_path):
    """Dropout and normalisation included: every step seeds its own random numbers."""
    straight, resumed = network(), network()
    history = run(tmp_path / "a", straight, CONFIG, validate=lambda model: {"answer": 42.0})
    run(tmp_path / "b", network(), CONFIG, stop_after=2)
    history_b = run(tmp_path / "b", resumed, CONFIG)
    for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert [row["loss"] for row in history] == [row["loss"] for row in history_b]
    rows = pd.read_csv(tmp_path / "a" / HISTORY)
    assert rows["epoch"].tolist() == [1, 2, 3, 4] and (rows["val_answer"] == 42.0).all()
    assert rows["loss"].iloc[-1] < rows["loss"].iloc[0]


@pytest.mark.parametrize("limit", [1e-3, math.inf])
def test_history_keeps_the_largest_norm_before_clipping(tmp_path, limit):
    model, config = network(), FitConfig(epochs=1, steps=2, clip_norm=limit)
    n = sum(parameter.numel() for parameter in model.parameters())

    def steep(model, batch):  # a gradient of 3 for every number
        return {"loss": 3 * sum(parameter.sum() for parameter in model.parameters())}

    (row,) = run(tmp_path, model, config, loss=steep)
    assert row["gradient_norm"] == pytest.approx(3 * math.sqrt(n))


def test_frozen_parts_hold_still_and_thaw(tmp_path):
    config = FitConfig(epochs=3, steps=4, learning_rate=1e-2, freeze_epochs=2, freeze=("0", "1"))
    model = network()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    run(tmp_path, model, config, stop_after=2)
    now = model.state_dict()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(("0", "1")), "what is frozen costs no gradient"
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


@pytest.mark.parametrize(("step", "by"), [(3, 4), (5, 9), (0, 0)])
def test_no_checkpoint_follows_a_loss_that_is_not_finite(tmp_path, step, by):
    """It is looked at every 20 steps and at the end of an epoch; a gradient alone may spoil the weights, too."""
    for spoilt in (lambda value: value * torch.inf, lambda value: value + 1e30 * value**20):
        seen = []

        def once(model, batch, spoilt=spoilt, seen=seen):
            parts = loss(model, batch)
            seen.append(parts)
            return parts | {"loss": spoilt(parts["loss"])} if len(seen) == step + 1 else parts

        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(DataError, match=f"by step {by}"):
            run(folder, network(), CONFIG, loss=once)
        assert len(list(folder.glob(CHECKPOINT))) == step // CONFIG.steps
        if folder.exists():
            state = torch.load(folder / CHECKPOINT)
            assert all(bool(value.isfinite().all()) for value in state["model"].values()) and len(state["history"]) == 1


class Counted:
    """The first batches of a line, one after the other, `joined` so many in one."""

    def __init__(self, joined):
        self.joined, self.next = joined, 0

    def batch(self, seed, device):
        self.next += self.joined
        parts = [Line().batch(index, device) for index in range(self.next - self.joined, self.next)]
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))


def test_a_step_made_up_of_pieces_is_that_of_the_whole_batch(tmp_path):
    models, config = [], FitConfig(epochs=4, steps=5, learning_rate=1e-2, clip_norm=1e9, seed=3)
    for pieces in (1, 2):
        torch.manual_seed(7)
        models.append(torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)))
        options = {"pieces": pieces, "progress": False}
        rows = fit(models[-1], loss, Counted(3 - pieces), config, tmp_path / str(pieces), launch("cpu", "1"), **options)
    for a, b in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    assert rows[0]["loss"] == pytest.approx(pd.read_csv(tmp_path / "1" / HISTORY)["loss"][0], rel=1e-4)


def test_the_scaler_is_kept_and_a_run_goes_on_in_another_precision(tmp_path, capsys):
    straight, resumed = network(), network()
    run(tmp_path / "a", straight, CONFIG, precision="16-mixed")
    run(tmp_path / "b", network(), CONFIG, precision="16-mixed", stop_after=2)
    state = torch.load(tmp_path / "b" / CHECKPOINT)
    assert state["scaler"]["scale"] > 8 and state["scaler"]["_growth_tracker"] > 0
    torch.save(state | {"scaler": state["scaler"] | {"scale": 8.0}}, tmp_path / "b" / CHECKPOINT)
    run(tmp_path / "b", resumed, CONFIG, precision="16-mixed")
    assert torch.load(tmp_path / "b" / CHECKPOINT)["scaler"]["scale"] == 8
    run(tmp_path / "c", network(), CONFIG, stop_after=2)
    run(tmp_path / "c", network(), CONFIG, precision="16-mixed", stop_after=3)
    run(tmp_path / "c", network(), CONFIG, precision="bf16-mixed")
    assert capsys.readouterr().err == ""
    torch.save(state | {"shares": {"devices": 2, "pieces": 1}}, tmp_path / "b" / CHECKPOINT)
    run(tmp_path / "b", resumed, CONFIG)
    assert "had {'devices': 2, 'pieces': 1}, it goes on with {'devices': 1, 'pieces': 1}" in capsys.readouterr().err


def test_a_card_without_bfloat16_gets_float16_in_training_and_in_use(monkeypatch):
    for native, kind in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert predict.half_precision("cuda") == kind and predict.half_precision("cpu") == torch.bfloat16
    monkeypatch.setattr(fitting, "half_precision", lambda kind: torch.float16)
    for asked, given in (("bf16-mixed", "16-mixed"), ("32-true", "32-true")):
        assert launch("cpu", "1", asked).strategy.precision.precision == given


def test_what_computes_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert fitting.machine("auto", "auto") == fitting.machine("cuda", "2") == ("cuda", 2)
    assert fitting.machine("cpu", "auto") == ("cpu", 1)
    with pytest.raises(ConfigError, match="devices is 3, but PyTorch sees 2"):
        fitting.machine("auto", "3")
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert fitting.machine("auto", "auto") == ("cuda", 1), "a notebook cannot start the others"
    with pytest.raises(ConfigError, match="a notebook takes one"):
        fitting.machine("auto", "2")


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

    run(tmp_path, network(), FitConfig(epochs=1, steps=1), loss=looks, precision=precision)
    assert seen[0].dtype == torch.float32 and bool(((seen[0] >= 70_001) & (seen[0] < 70_002)).all())
