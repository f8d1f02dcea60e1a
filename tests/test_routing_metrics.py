"""Routers' numbers for a logger, and the callback of the Hugging Face Trainer."""

import sys

import pytest

import resonance_theory as rt

torch = pytest.importorskip("torch")


def model(experts=4):
    torch.manual_seed(0)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.router = rt.nn.ResonanceRouter(8, experts, capacity_factor=1.0)
            self.moe = rt.nn.ResonanceMoE(self.router, rt.nn.FeedForwardExperts(8, 16, experts))

        def forward(self, x, labels=None):
            y = self.moe(x)
            return {"loss": (y - x).square().mean(), "logits": y}

    return Net()


def test_flat_numbers_of_every_router():
    net = model()
    x = torch.randn(3, 16, 8)
    net(x)
    found = rt.nn.routing_metrics(net)
    flat = net.router.statistics.flat()
    where = next(name for name in found if name.endswith("/tokens")).removesuffix("tokens")
    assert found[f"{where}tokens"] == 48
    assert found[f"{where}drop_rate"] == flat["drop_rate"]
    assert found[f"{where}max_load"] == pytest.approx(4 * max(flat[f"load/{e}"] for e in range(4)))
    assert all(isinstance(value, float) for value in found.values())
    full = rt.nn.routing_metrics(net, full=True, reset=True, prefix="")
    assert {name.removeprefix("routing/") for name in found} <= set(full)
    assert len(full) > 20
    assert rt.nn.routing_metrics(net)[f"{where}tokens"] == 0
    assert rt.nn.routing_metrics(torch.nn.Linear(2, 2)) == {}


def test_the_trainer_logs_the_routers(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from resonance_theory.nn.trainer import RoutingCallback

    net = model()
    data = [{"x": torch.randn(16, 8)} for _ in range(24)]
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=4, max_steps=6, logging_steps=2, report_to="none",
        use_cpu=True, save_strategy="no", remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = transformers.Trainer(model=net, args=args, train_dataset=data)
    trainer.add_callback(RoutingCallback(trainer))
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if any(name.startswith("routing/") for name in entry)]
    assert [entry["step"] for entry in logged] == [2, 4, 6]
    tokens = [value for entry in logged for name, value in entry.items() if name.endswith("/tokens")]
    assert tokens == [128.0, 128.0, 128.0]  # two steps of four samples of 16 tokens, counted anew after every log


def test_torch_alone_is_enough():
    assert "resonance_theory.nn.trainer" not in sys.modules or "transformers" in sys.modules
