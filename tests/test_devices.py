"""No tensor is made on the wrong device, found without a GPU: see `emulated_device`."""

import dataclasses

import numpy as np
import pytest
import torch
from emulated_device import Emulated, WrongDevice, emulated, moved

from pnet.detection import losses, network, predict
from pnet.simulation.recipe import Recipe
from pnet.sky.background import Subtracted
from pnet.stars.elbo import ELBO
from pnet.stars.network import CONFIGS, BayesianPhotometryNet
from pnet.stars.predict import predict as predict_stars
from pnet.training.fields import RenderedFields
from pnet.training.stars import RenderedStars

TINY = network.CONFIGS["tiny"]
NETS = {
    "ours": TINY,
    "paper": dataclasses.replace(TINY, inputs="asinh", flux="linear", offset_reach=0, focal="hard"),
}
STARS = {
    "bpnn": CONFIGS["tiny"],
    "plain": dataclasses.replace(CONFIGS["tiny"], head="plain"),
    "paper": dataclasses.replace(CONFIGS["tiny"], target="magnitude", context=False, targets=("mag",), bare=True),
}


def gradients(loss, model, batch):
    loss(model, batch)["loss"].backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_the_emulated_device_finds_what_meets_the_wrong_one():
    with emulated() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert there.device == device and (there + there).device == device and here.device.type == "cpu"
        assert (there + torch.tensor(2.0)).tolist() == [3, 3, 3], "a number may come from anywhere"
        assert there[torch.tensor([0, 2])].device == there[[0, 2]].device == device, "and so may an index"
        assert torch.equal(here.to(device).cpu(), here)
        for wrong in (lambda: there + here, lambda: torch.stack([there, here]), lambda: np.asarray(there.numpy())):
            with pytest.raises(WrongDevice):
                wrong()
        weight = torch.nn.Parameter(torch.ones(3, device=device))
        (weight * there).sum().backward()
        assert isinstance(weight.grad, Emulated)


@pytest.mark.parametrize("name", NETS)
def test_a_step_of_the_detection_net(name):
    found = []
    for move in (False, True):
        torch.manual_seed(1)
        model = network.PhotometryDetectionNet(NETS[name])
        with emulated() as device:
            source = RenderedFields(Recipe.load(), 2, 128)
            batch = source.batch(3, device if move else torch.device("cpu"))
            assert all(isinstance(value, Emulated) == move for value in vars(batch).values())
            model = moved(model) if move else model
            torch.manual_seed(2)
            found.append(gradients(losses.detection_loss, model, batch))
    for name, gradient in found[0].items():
        assert isinstance(found[1][name], Emulated)
        torch.testing.assert_close(found[1][name].held, gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", STARS)
def test_a_step_and_a_prediction_of_the_network_of_stars(name):
    torch.manual_seed(1)
    with emulated() as device:
        model = moved(BayesianPhotometryNet(STARS[name]))
        bare = STARS[name].stamp if STARS[name].bare else None
        batch = RenderedStars(Recipe.load(), 32, bare=bare, count=2).batch(3, device)
        assert all(isinstance(gradient, Emulated) for gradient in gradients(ELBO(1000), model, batch).values())
        with torch.no_grad():  # inference mode knows no emulation
            found = predict_stars.__wrapped__(model, batch.inputs, samples=3)
        assert set(found) == set(STARS[name].targets) and np.isfinite(found["mag"].sigma).all()


@pytest.mark.filterwarnings("ignore:CUDA is not available")
@pytest.mark.parametrize("name", NETS)
def test_stars_are_read_from_the_output(name):
    torch.manual_seed(1)
    model = network.PhotometryDetectionNet(NETS[name]).eval()
    batch = RenderedFields(Recipe.load(), 2, 128).batch(3, torch.device("cpu"))
    plain, found = None, None
    with torch.inference_mode():
        image = network.network_input(batch.image, batch.sigma, NETS[name].inputs)
        plain = predict.decode(model(image)[-1], batch.image, batch.sigma, NETS[name])
    with torch.no_grad(), emulated() as device:
        there, sigma = batch.image.to(device), batch.sigma.to(device)
        image = network.network_input(there, sigma, NETS[name].inputs)
        found = predict.decode(moved(model)(image)[-1], there, sigma, NETS[name])
        one = Subtracted(batch.image[0].numpy(), *[float(batch.sigma[0])] * 2)
        whole = predict.detect.__wrapped__(model, None, 0.1, one)
    assert len(whole)
    assert len(plain["x"])
    for key, value in found.items():
        assert isinstance(value, Emulated)
        torch.testing.assert_close(value.held, plain[key], rtol=1e-4, atol=1e-4)
