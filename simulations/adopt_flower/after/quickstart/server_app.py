"""The server: rounds of FedAvg, and a test after each."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fedunlearn.flower import Recorded, forgetting
from quickstart.task import Net, loader, split, test

app = forgetting(ServerApp(), "family")


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, then save the model."""
    config = context.run_config
    strategy = FedAvg(fraction_evaluate=config["fraction-evaluate"])
    strategy = Recorded(strategy, "family", net="quickstart.task:Net", data="quickstart.task:partition")
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        train_config=ConfigRecord({"lr": config["learning-rate"]}),
        num_rounds=config["num-server-rounds"],
        evaluate_fn=evaluate,
    )
    torch.save(result.arrays.to_torch_state_dict(), "final_model.pt")


def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
    """Test a global model on rows that nobody trains on."""
    net = Net()
    net.load_state_dict(arrays.to_torch_state_dict())
    return MetricRecord({"accuracy": test(net, loader(split()[1], 128))})
