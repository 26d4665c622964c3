"""A site: unpack, call, pack."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedunlearn.flower import answering, tell
from quickstart.task import Net, loader, partition, train

app = answering(ClientApp(mods=[tell("quickstart.task:partition")]), "quickstart.task:Net", "quickstart.task:partition")


@app.train()
def train_here(message: Message, context: Context) -> Message:
    """Train the model that came on this site's rows."""
    net = Net()
    net.load_state_dict(message.content["arrays"].to_torch_state_dict())
    batches = loader(partition(context.node_config["partition-id"]), context.run_config["batch-size"])
    loss = train(net, batches, context.run_config["local-epochs"], message.content["config"]["lr"])
    metrics = MetricRecord({"train_loss": loss, "num-examples": len(batches.dataset)})
    return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": metrics}), reply_to=message)
