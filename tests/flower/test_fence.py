import random
import threading
import time

import numpy as np
import torch

from fedpref.flower.fence import rng_fence, streams_kept
from fedpref.seeds import number


def test_fences_of_two_threads_do_not_disturb_each_other_or_anybody_else() -> None:
    drawn: dict[int, list[float]] = {}

    def work(client: int) -> None:
        with rng_fence(number(0, "task", client)):
            first = random.random()
            time.sleep(0.05)  # where the other thread would step in
            drawn[client] = [first, random.random(), float(np.random.random())]

    work(0)
    work(1)
    alone = dict(drawn)
    before = random.getstate()
    threads = [threading.Thread(target=work, args=(client,)) for client in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert drawn == alone and alone[0] != alone[1]
    assert random.getstate() == before


def test_a_loop_that_keeps_the_streams_puts_them_back_once_and_its_fences_still_seed() -> None:
    before = random.getstate()
    np.random.normal()  # leaves half a pair of normals behind, which is part of the stream
    state = np.random.get_state(legacy=False)
    drawn = []
    with streams_kept():
        for seed in (1, 2, 1):
            with rng_fence(seed):
                drawn.append((random.random(), float(np.random.normal())))
            assert random.getstate() != before
    with rng_fence(1):
        assert (random.random(), float(np.random.normal())) == drawn[0] == drawn[2] != drawn[1]
    after = np.random.get_state(legacy=False)
    assert random.getstate() == before and str(after) == str(state)


def test_torch_draws_inside_what_it_draws_after_its_own_seeding_and_goes_on_as_if_nothing_was() -> None:
    torch.manual_seed(11)
    expected, before = torch.rand(3), torch.get_rng_state()
    with rng_fence(11):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.get_rng_state(), before)
