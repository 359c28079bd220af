import random
import threading
import time

import numpy as np

from fedpref.flower.fence import rng_fence
from fedpref.seeds import generator


def test_fences_of_two_threads_do_not_disturb_each_other_or_anybody_else() -> None:
    drawn: dict[int, list[float]] = {}

    def work(client: int) -> None:
        with rng_fence(generator(0, "task", client)):
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
