"""What a site's ClientApp does with our messages: unpack, have the worker answer, pack."""

from collections.abc import Callable, Collection

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedunlearn.errors import FedUnlearnError
from fedunlearn.runtime.backend import Answerer, answer
from fedunlearn.runtime.codec import CodecError, Packed, pack, unpack
from fedunlearn.runtime.flower.records import CONFIG, TASKS, WHOAMI, from_records, to_records
from fedunlearn.runtime.tasks import Answer, Failure, Task
from fedunlearn.store.code import code

WorkerOf = Callable[[Context], Answerer]


def client_app(worker_of: WorkerOf, allowed: Collection[str] = ()) -> ClientApp:
    """A ClientApp that does nothing but unlearning.

    Args:
        worker_of: the worker of the node whose Context it gets; asked at every message.
        allowed: methods of the site's own choice beyond the menu and the worker's, each "their.module:Class".
    """
    return add_handlers(ClientApp(), worker_of, allowed)


def add_handlers(app: ClientApp, worker_of: WorkerOf, allowed: Collection[str] = ()) -> ClientApp:
    """Have an app that trains also answer tasks of unlearning; what it does already stays.

    The site's name is the node_config's `site` where there is one; what the worker calls its place must be the same name.

    Args:
        app: a ClientApp without `client_fn`.
        worker_of: the worker of the node whose Context it gets; asked at every message.
        allowed: methods of the site's own choice beyond the menu and the worker's, each "their.module:Class".

    Returns:
        The same app.
    """

    @app.query(WHOAMI.split(".")[1])
    def whoami(message: Message, context: Context) -> Message:
        named = context.node_config.get("site")
        place = named if isinstance(named, str) else worker_of(context).place
        return Message(RecordDict({CONFIG: ConfigRecord({"place": place})}), reply_to=message)

    @app.query(TASKS.split(".")[1])
    def tasks(message: Message, context: Context) -> Message:
        batch, packed = from_records(message.content)
        worker = worker_of(context)
        answers = [_answered(worker, one, allowed) for one in packed]
        return Message(to_records(batch, answers, code()), reply_to=message)

    return app


def _answered(worker: Answerer, packed: Packed, allowed: Collection[str]) -> Packed:
    try:
        task = unpack(packed)
        if not isinstance(task, Task):
            raise CodecError(f"{packed.kind}: is an answer, expected a task")
        given: Answer = answer(worker, task, allowed)
    except FedUnlearnError as error:
        given = Failure(worker.place, str(error))
    try:
        return pack(given)
    except CodecError as error:
        return pack(Failure(worker.place, f"its answer cannot be sent: {error}"))
