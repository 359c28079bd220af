"""Apple's pfl-research: federated averaging in its simulated backend, as its examples set it up."""

# mypy: disable-error-code="import-not-found, import-untyped"
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from fedpref.benchmarks.throughput.job import SEED, Between, Job, Size, Tensors, batches_of
from fedpref.flower.rounds import fresh_from
from fedpref.types import Weights

__all__ = ["pfl_research"]


def pfl_research(job: Job, size: Size, between: Between) -> Weights:
    """Users in the order that its sampler recommends; users are not evaluated, but for the first round."""
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    assert job.peer is not None
    job.peer.warm(size.num_clients)
    peer, tasks = job.peer, iter(range(10**9))
    module: Any = peer.fresh(fresh_from(job.rule(size), SEED)("global"))
    module.metrics = lambda *_: {"nothing": 0.0}

    class Steps(Dataset):  # type: ignore[misc]  # its own batches are cut in order, and no epoch may be partial
        def iter(self, batch_size: int | None) -> Iterator[Tensors]:
            return batches_of(self.raw_data, size, next(tasks))

    class Turns(TrainingProcessCallback):  # type: ignore[misc]
        def on_train_begin(self, *, model: Any) -> Any:
            between()
            return Metrics()

        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
            between()
            return False, Metrics()

    def user(client: int) -> Any:
        return Steps(raw_data=peer.tensors(client), user_id=str(client))

    users = FederatedDataset(user, get_user_sampler("minimize_reuse", list(range(size.num_clients))))
    model = PyTorchModel(
        module,
        local_optimizer_create=peer.optimizer,
        central_optimizer=torch.optim.SGD(module.parameters(), lr=1.0),
    )
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=size.rounds,
            evaluation_frequency=size.rounds,
            train_cohort_size=size.cohort_size,
            val_cohort_size=0,
        ),
        SimulatedBackend(training_data=users, val_data=users),
        model,
        NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=peer.lr, local_batch_size=size.batch_pairs
        ),
        NNEvalHyperParams(local_batch_size=None),
        [Turns()],
        send_metrics_to_platform=False,
    )
    return {key: value.detach().numpy() for key, value in module.state_dict().items()}
